"""Shards, replicas and id maps on devices."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest
import strict
from checks import assert_knn, assert_range, assert_same
from devices import UNSANITIZED, StrictDevice, examples, from_device, on_device
from hypothesis import given
from hypothesis import strategies as st
from strategies import Case

from faiss_dmih import reference
from faiss_dmih.gpu import GpuIDMap, GpuIndexDMIH, GpuReplicas, GpuShards

CASE = Case(d=64, n=2000, nq=11, kind="duplicates", seed=1)
KINDS = [GpuShards, GpuReplicas]


@UNSANITIZED
@pytest.mark.parametrize("kind", KINDS)
@examples(0.5)
@given(data=st.data())
def test_as_one(gpu: Any, kind: Any, data: st.DataObject) -> None:
    """Adds, removals and searches are those of one index over all codes."""
    index = kind(64, [0] * data.draw(st.integers(1, 4)))
    xb = np.empty((0, 8), np.uint8)
    for size in data.draw(st.lists(st.integers(0, 700), min_size=1, max_size=4)):
        index.add(CASE.xb[:size])
        xb = np.concatenate([xb, CASE.xb[:size]])
        if data.draw(st.booleans()):
            gone = np.random.default_rng(size).random(len(xb)) < 0.3
            assert index.remove_ids(np.flatnonzero(gone)) == gone.sum()
            xb = xb[~gone]
        if data.draw(st.booleans()):
            index.compact()
        assert index.ntotal == len(xb)
        np.testing.assert_array_equal(index.reconstruct_n(), xb)
    index.force_engine(data.draw(st.sampled_from(["auto", "scan", "probe"])))
    k, radius = data.draw(st.sampled_from([1, 7, 100, 3000])), data.draw(st.integers(0, 20))
    assert_knn(index, xb, CASE.xq, k)
    assert_range(index, xb, CASE.xq, radius)
    mask = np.random.default_rng(k).random(len(xb)) < 0.4
    expected = reference.knn(xb, CASE.xq, k, mask=mask)
    assert_same(index.search(CASE.xq, k, mask=mask), expected)
    params = faiss.SearchParameters(sel=faiss.IDSelectorBatch(np.flatnonzero(mask)))
    expected_range = reference.range_search(xb, CASE.xq, radius, mask=mask)
    assert_same(index.range_search(CASE.xq, radius, params=params), expected_range)
    index.reset()
    assert index.ntotal == 0


@pytest.mark.parametrize("kind", KINDS)
def test_an_add_that_fails_somewhere_is_undone_everywhere(gpu: Any, kind: Any) -> None:
    index = kind(64, [0, 0, 0])
    index.add(CASE.xb)

    def fail(x: Any) -> None:
        raise MemoryError("the second is full")

    index._indexes[1].add = fail
    with pytest.raises(MemoryError, match="the second is full"):
        index.add(CASE.xb[:100])
    assert index.ntotal == CASE.n
    assert_knn(index, CASE.xb, CASE.xq, 9)


@pytest.mark.parametrize("kind", KINDS)
def test_from_and_to_the_device(gpu: Any, kind: Any) -> None:
    if not isinstance(gpu, StrictDevice):
        pytest.skip("made for the arrays of the test's own device")
    index = kind(64, [0, 0])
    index.add(on_device(CASE.xb))
    D, I = index.search(on_device(CASE.xq), 5)
    assert type(D) is type(I) is strict.ndarray
    assert_same(from_device(D, I), reference.knn(CASE.xb, CASE.xq, 5))
    lims, D, I = index.range_search(on_device(CASE.xq), 5)
    assert type(lims) is strict.ndarray
    expected = reference.range_search(CASE.xb, CASE.xq, 5)
    assert_same(from_device(lims, D, I), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_refused(gpu: Any, kind: Any) -> None:
    with pytest.raises(ValueError, match="got no devices"):
        kind(64, [])
    index = kind(64, [0, 0])
    index.add(CASE.xb)
    with pytest.raises(ValueError, match="expected at least 1"):
        index.search(CASE.xq, 0)
    with pytest.raises(ValueError, match="got codes of 7 bytes"):
        index.add(CASE.xb[:, :7])
    with pytest.raises(ValueError, match=r"not in \[0, ntotal = 2000\)"):
        index.reconstruct_n(1, 2000)
    assert index.ntotal == CASE.n


def test_id_map(gpu: Any) -> None:
    """As FAISS's, also for ids that are given twice, and selectors of them."""
    ids = np.random.default_rng(0).integers(-5, 1500, CASE.n)
    ours = GpuIDMap(GpuIndexDMIH(64))
    theirs = faiss.IndexBinaryIDMap(faiss.IndexBinaryFlat(64))
    for map_ in (ours, theirs):
        map_.add_with_ids(CASE.xb[:700], ids[:700])
        map_.add_with_ids(CASE.xb[700:], ids[700:])
    ours.index.compact()
    chosen = faiss.SearchParameters(sel=faiss.IDSelectorRange(100, 400))

    def same() -> None:
        assert ours.ntotal == theirs.ntotal
        for k in (1, 9, 2500):
            assert_same(ours.search(CASE.xq, k), theirs.search(CASE.xq, k))
        filtered = {"params": chosen}
        assert_same(ours.search(CASE.xq, 9, **filtered), theirs.search(CASE.xq, 9, **filtered))
        assert_same(ours.range_search(CASE.xq, 9), theirs.range_search(CASE.xq, 9))

    same()
    for map_ in (ours, theirs):
        map_.remove_ids(faiss.IDSelectorRange(7, 300))
    same()
    gone = np.array([301, 302, 9999])
    assert ours.remove_ids(gone) == theirs.remove_ids(gone)
    same()
    last = np.flatnonzero(ids == 1000)[-1]
    np.testing.assert_array_equal(ours.reconstruct(1000), CASE.xb[last])
    np.testing.assert_array_equal(ours.ids, ids[(ids < 7) | (ids == 300) | (ids > 302)])
    with pytest.raises(ValueError, match="no code with the id 301"):
        ours.reconstruct(301)
    with pytest.raises(RuntimeError, match="add needs ids"):
        ours.add(CASE.xb)
    with pytest.raises(ValueError, match=r"ids: got int64 \(3,\), expected integers \(2,\)"):
        ours.add_with_ids(CASE.xb[:2], ids[:3])
    with pytest.raises(ValueError, match="expected an empty one"):
        GpuIDMap(ours.index)
    ours.reset()
    assert (ours.ntotal, len(ours.ids)) == (0, 0)


def test_id_map_on_the_device(gpu: Any) -> None:
    if not isinstance(gpu, StrictDevice):
        pytest.skip("made for the arrays of the test's own device")
    ours = GpuIDMap(GpuIndexDMIH(64))
    ours.add_with_ids(on_device(CASE.xb), on_device(np.arange(CASE.n) + 50))
    strict.waits = 0
    D, I = ours.search(on_device(CASE.xq), 5)
    assert strict.waits == 0
    assert type(I) is strict.ndarray
    expected_D, expected_I = reference.knn(CASE.xb, CASE.xq, 5)
    assert_same(from_device(D, I), (expected_D, expected_I + 50))
    assert ours._there.made_on == "kept"
    assert ours.remove_ids(on_device(np.arange(60))) == 10

"""Removal, merging and reset: what IndexBinaryFlat does, or would do, and all or nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import pytest
from checks import assert_exact, assert_same, flat, make_index, shuffle_bits
from hypothesis import given
from hypothesis import strategies as st
from strategies import Case, batches, cases, cuts, ks, radii
from test_selectors import SELECTORS

from faiss_dmih import IndexDMIH

MODES = ("auto", "mih", "scan")
CASE = Case(d=64, n=700, nq=20, kind="duplicates", seed=9)

# Which of n ids to remove.
Victims = Callable[[np.random.Generator, int], np.ndarray]
VICTIMS: dict[str, Victims] = {
    "none": lambda rng, n: np.zeros(n, bool),
    "all": lambda rng, n: np.ones(n, bool),
    "few": lambda rng, n: rng.random(n) < 3 / max(n, 1),
    "half": lambda rng, n: rng.random(n) < 0.5,
    "most": lambda rng, n: rng.random(n) < 0.95,
    "all but few": lambda rng, n: rng.random(n) >= 3 / max(n, 1),
    "the last": lambda rng, n: np.arange(n) >= n - min(n, 300),
    "the first": lambda rng, n: np.arange(n) < min(n, 3000),
    "a run": lambda rng, n: np.abs(np.arange(n) - rng.integers(0, n + 1)) < n // 6,
}


def filled(case: Case, mode: str = "auto", **options: Any) -> Any:
    index = make_index(case.d, mode, **options)
    index.add(case.xb)
    return index


@pytest.mark.parametrize("mode", MODES)
@given(case=cases(biggest_d=512), data=st.data())
def test_removals_between_adds(mode: str, case: Case, data: st.DataObject) -> None:
    """By every kind of selector and by ids, with searches after each."""
    index = make_index(case.d, mode, cuts=data.draw(cuts(case.d), label="cuts"))
    stored = case.xb[:0]
    at = 0
    rng = np.random.default_rng(case.seed)
    k, radius = data.draw(ks(case.n), label="k"), data.draw(radii(case.d), label="radius")
    for batch in data.draw(batches(case.n), label="batches"):
        index.add(case.xb[at : at + batch])
        stored = np.concatenate([stored, case.xb[at : at + batch]])
        at += batch
        if data.draw(st.booleans(), label="compact"):
            index.compact()
        if data.draw(st.booleans(), label="shuffle"):
            shuffle_bits(index, at)
        gone = VICTIMS[data.draw(st.sampled_from(sorted(VICTIMS)), label="gone")](rng, len(stored))
        how = data.draw(st.sampled_from(["ids", *sorted(SELECTORS)]), label="how")
        what = rng.permutation(np.flatnonzero(gone)) if how == "ids" else SELECTORS[how](gone)
        yardstick = flat(stored)
        removed = index.remove_ids(what)
        assert removed == yardstick.remove_ids(what) == gone.sum()
        stored = stored[~gone]
        assert_same([index.reconstruct_n()], [yardstick.reconstruct_n()])
        assert_exact(index, stored, case.xq, k, radius)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["clustered", "duplicates", "all equal"])
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.usefixtures("threads")
def test_a_segment_with_clusters_shrinks_by_and_by(mode: str, kind: str, shuffled: bool) -> None:
    """Filtered again and again, until it is built anew and at last fits the tail."""
    case = Case(d=128, n=40_000, nq=100, kind=kind, seed=5)
    index, stored = filled(case, mode), case.xb
    if shuffled:
        shuffle_bits(index, 0)
    index.add(case.xb[:3000])
    stored = np.concatenate([stored, case.xb[:3000]])
    rng = np.random.default_rng(0)
    while len(stored):
        gone = rng.random(len(stored)) < 0.3
        gone[-1] |= len(stored) < 100
        assert index.remove_ids(np.flatnonzero(gone)) == gone.sum()
        stored = stored[~gone]
        assert_exact(index, stored, case.xq[:5], 10, 30)
    index.add(case.xb)
    assert_exact(index, case.xb, case.xq, 10, 30)


def test_tables_and_memory_follow_the_codes() -> None:
    """What is left of a segment takes no more memory than it must."""
    case = Case(d=64, n=60_000, nq=200, kind="uniform", seed=1)
    index = filled(case)
    before = index.memory_usage()
    index.remove_ids(faiss.IDSelectorRange(0, 20_000))
    some = index.memory_usage()
    assert some["codes"] == before["codes"] * 2 // 3
    assert some["tables"] < before["tables"]
    index.remove_ids(faiss.IDSelectorRange(0, 39_000))
    assert index.memory_usage()["total"] < before["total"] / 20
    assert_exact(index, case.xb[59_000:], case.xq, 5, 12)


def test_a_removal_is_cheaper_than_building() -> None:
    """A pass over what is there: neither sorted nor clustered again."""
    import time

    case = Case(d=64, n=300_000, nq=0, kind="uniform", seed=1)
    index, seconds = make_index(64), list[float]()
    for work in (lambda: index.add(case.xb), *[lambda: index.remove_ids(np.array([7]))] * 3):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    assert min(seconds[1:]) < seconds[0] / 2


# Of a selector or of ids.
IDS: dict[str, Any] = {
    "repeated": np.array([3, 3, 5, 3]),
    "out of range": np.array([-1, 5, 700, 2**40, -(2**40)]),
    "short integers": np.array([1, 2], np.int16),
    "unsigned": np.array([1, 2], np.uint64),
    "every other": np.arange(40)[::2],
    "no": np.array([], np.int64),
    "all of them": faiss.IDSelectorAll(),
    "those of a range": faiss.IDSelectorRange(-5, 3),
    "both": faiss.IDSelectorAnd(faiss.IDSelectorRange(3, 90), faiss.IDSelectorRange(60, 1000)),
    "one of both": faiss.IDSelectorXOr(
        faiss.IDSelectorRange(3, 90), faiss.IDSelectorRange(60, 1000)
    ),
    "by a function": faiss.PyCallbackIDSelector(lambda i: i % 3 == 0),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
def test_ids_as_flat_takes_them(ids: Any, mode: str) -> None:
    index, yardstick = filled(CASE, mode), flat(CASE.xb)
    assert index.remove_ids(ids) == yardstick.remove_ids(ids)
    assert_exact(index, yardstick.reconstruct_n(), CASE.xq, 5, 20)


@pytest.mark.parametrize(
    ("ids", "error"),
    [
        (np.array([[1]]), AssertionError),
        (np.array(1), AssertionError),
        (np.array([1.0]), TypeError),
        (np.array([True, False]), TypeError),
        ("12", TypeError),
        (None, TypeError),
    ],
)
def test_ids_that_are_none(ids: Any, error: type[Exception]) -> None:
    index = filled(CASE)
    with pytest.raises(error):
        index.remove_ids(ids)
    assert_exact(index, CASE.xb, CASE.xq, 5, 20)


def test_lists_of_ids() -> None:
    index = filled(CASE)
    assert index.remove_ids([4, 7]) == 2
    assert index.remove_ids([]) == 0
    assert_exact(index, np.delete(CASE.xb, [4, 7], axis=0), CASE.xq, 5, 20)


@pytest.mark.parametrize("mode", MODES)
def test_a_selector_that_raises_removes_nothing(mode: str) -> None:
    index = filled(CASE, mode)

    def refuse(i: int) -> bool:
        if i == 600:
            raise KeyError(i)
        return True

    with pytest.raises(KeyError):
        index.remove_ids(faiss.PyCallbackIDSelector(refuse))
    assert_exact(index, CASE.xb, CASE.xq, 5, 20)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("composite", [faiss.IndexBinaryIDMap, faiss.IndexBinaryIDMap2])
def test_removal_through_an_id_map(composite: Any, mode: str) -> None:
    case = Case(d=64, n=9000, nq=50, kind="clustered", seed=2)
    ids = np.random.default_rng(0).permutation(10**6)[: case.n].astype(np.int64) + 2**40
    both = []
    for inner in (make_index(64, mode), faiss.IndexBinaryFlat(64)):
        index = composite(inner)
        for part in np.array_split(np.arange(case.n), 4):
            index.add_with_ids(case.xb[part], ids[part])
        assert index.remove_ids(ids[::3]) == case.n // 3
        assert inner.ntotal == index.ntotal == case.n - case.n // 3
        both.append(index)
    assert_same(both[0].search(case.xq, 10), both[1].search(case.xq, 10))
    assert_same(both[0].range_search(case.xq, 12), both[1].range_search(case.xq, 12))
    if composite is faiss.IndexBinaryIDMap2:
        assert_same([both[0].reconstruct(int(ids[1]))], [case.xb[1]])


@pytest.mark.parametrize("modes", [("auto", "auto"), ("auto", "mih"), ("scan", "auto")])
@given(case=cases(biggest_d=256), share=st.floats(0, 1), data=st.data())
def test_merges(modes: tuple[str, str], case: Case, share: float, data: st.DataObject) -> None:
    """Segments or tails, an empty one among them; the other is empty, and lives on."""
    here = round(share * case.n)
    index, other = (make_index(case.d, mode) for mode in modes)
    for one, codes in ((index, case.xb[:here]), (other, case.xb[here:])):
        order = data.draw(st.sampled_from([None, 1, 2]), label="order of bits")
        if order is not None:
            shuffle_bits(one, order)
        one.add(codes)
    if data.draw(st.booleans(), label="compact"):
        other.compact()
    learned = index.partition, other.partition
    index.check_compatible_for_merge(other)
    index.merge_from(other)
    k, radius = data.draw(ks(case.n), label="k"), data.draw(radii(case.d), label="radius")
    assert_exact(index, case.xb, case.xq, k, radius)
    assert_exact(other, case.xb[:0], case.xq, k, radius)
    other.add(case.xb)
    assert_exact(other, case.xb, case.xq, k, radius)
    assert (index.partition, other.partition) == learned


@pytest.mark.parametrize(
    ("other", "add_id", "said"),
    [
        (IndexDMIH(72), 0, "72 bits.*64 bits"),
        (faiss.IndexBinaryFlat(64), 0, "IndexDMIH"),
        (IndexDMIH(64), 1, "add_id = 1"),
        (None, 0, "itself"),
    ],
)
def test_merges_that_cannot_be(other: Any, add_id: int, said: str) -> None:
    index = filled(CASE)
    with pytest.raises(RuntimeError, match=said):
        index.merge_from(index if other is None else other, add_id)
    if add_id == 0:
        with pytest.raises(RuntimeError, match=said):
            index.check_compatible_for_merge(index if other is None else other)
    assert_exact(index, CASE.xb, CASE.xq, 5, 20)


def test_id_maps_are_merged() -> None:
    ids = np.arange(CASE.n) * 7
    maps = [faiss.IndexBinaryIDMap2(IndexDMIH(64)) for _ in range(2)]
    maps[0].add_with_ids(CASE.xb[:400], ids[:400])
    maps[1].add_with_ids(CASE.xb[400:], ids[400:])
    maps[0].merge_from(maps[1])
    D, I = flat(CASE.xb).search(CASE.xq, 5)
    assert_same(maps[0].search(CASE.xq, 5), (D, ids[I]))
    assert (maps[0].ntotal, maps[1].ntotal) == (CASE.n, 0)


def test_codes_as_a_standalone_codec_has_them() -> None:
    """add_sa_codes is add; with ids it is refused, as by FAISS."""
    index = IndexDMIH(64)
    assert index.sa_code_size() == 8
    index.add_sa_codes(CASE.n, faiss.swig_ptr(CASE.xb), None)
    assert_exact(index, CASE.xb, CASE.xq, 5, 20)
    with pytest.raises(RuntimeError, match="add_with_ids not implemented"):
        index.add_sa_codes(CASE.n, faiss.swig_ptr(CASE.xb), faiss.swig_ptr(np.arange(CASE.n)))
    assert_exact(index, CASE.xb, CASE.xq, 5, 20)


def test_codes_by_ids() -> None:
    index = filled(CASE)
    keys = np.random.default_rng(0).integers(0, CASE.n, 50)
    assert_same([index.reconstruct_batch(keys)], [CASE.xb[keys]])
    out = np.zeros((50, 8), np.uint8)
    assert index.reconstruct_batch(keys.astype(np.int16).tolist(), out) is out
    assert_same([out], [CASE.xb[keys]])
    assert index.reconstruct_batch([]).shape == (0, 8)
    for key in (-1, CASE.n, 2**40):
        with pytest.raises(RuntimeError, match=f"id {key} is not in"):
            index.reconstruct_batch([0, key])
    with pytest.raises(TypeError, match="float64"):
        index.reconstruct_batch([1.0])
    for keys_, x in (([[1]], None), ([1], np.zeros((2, 8), np.uint8)), ([1], np.zeros((1, 8)))):
        with pytest.raises(ValueError, match="got"):
            index.reconstruct_batch(keys_, x)

"""An index that has been written and read answers as it did before, and as IndexBinaryFlat does."""

from __future__ import annotations

import copy
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from checks import assert_exact, assert_same, make_index, shuffle_bits
from hypothesis import given
from hypothesis import strategies as st
from strategies import Case, batches, cases, cuts, ks, radii

import faiss_dmih
from faiss_dmih import IndexDMIH, composites


@contextmanager
def written(index: Any) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "index.ibdm")
        faiss_dmih.write_index(index, path)
        yield path
        assert os.listdir(folder) == ["index.ibdm"]


def read(index: Any) -> Any:
    with written(index) as path:
        return faiss_dmih.read_index(path)


def mapped(index: Any) -> Any:
    with written(index) as path:  # a mapping outlives the name of its file
        return faiss_dmih.read_index(path, mmap=True)


def streamed(index: Any) -> Any:
    data = bytearray()
    faiss.write_index_binary(index, faiss.PyCallbackIOWriter(data.extend))
    left = memoryview(data)

    def some(n: int) -> bytes:
        nonlocal left
        out, left = bytes(left[: min(n, 1000)]), left[min(n, 1000) :]
        return out

    out = faiss.read_index_binary(faiss.PyCallbackIOReader(some))
    assert len(left) == 0
    return out


def vectors(index: Any) -> Any:
    writer, reader = faiss.VectorIOWriter(), faiss.VectorIOReader()
    faiss.write_index_binary(index, writer)
    reader.data.swap(writer.data)
    return faiss.read_index_binary(reader)


def buffered(index: Any) -> Any:
    with written(index) as path:
        reader = faiss.FileIOReader(path)
        return faiss.read_index_binary(faiss.BufferedIOReader(reader))


WAYS: dict[str, Callable[[Any], Any]] = {
    "read": read,
    "mapped": mapped,
    "copy of mapped": lambda index: composites.clone(mapped(index)),
    "streamed": streamed,
    "vectors": vectors,
    "buffered": buffered,
    "bytes": lambda index: faiss.deserialize_index_binary(faiss.serialize_index_binary(index)),
    "pickle": lambda index: pickle.loads(pickle.dumps(index)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "clone": faiss.clone_binary_index,
}


@given(data=st.data(), case=cases(biggest_d=1024))
def test_any_index_any_way(data: st.DataObject, case: Case) -> None:
    mode = data.draw(st.sampled_from(["auto", "mih", "scan"]))
    budget = data.draw(st.sampled_from([None, 0, 50_000])) if mode == "auto" else None
    index = IndexDMIH(case.d, mode=mode, cuts=data.draw(cuts(case.d)), memory_budget=budget)
    at = 0
    shuffled = data.draw(st.booleans())
    if shuffled:
        shuffle_bits(index, case.seed)
    for n in data.draw(batches(case.n)):
        index.add(case.xb[at : at + n])
        at += n
    if data.draw(st.booleans()):
        index.compact()
    k, radius = data.draw(ks(case.n)), data.draw(radii(case.d))
    way = data.draw(st.sampled_from(sorted(WAYS)))
    back = WAYS[way](index)
    assert isinstance(back, IndexDMIH)
    assert (back.d, back.mode, back.memory_budget) == (case.d, mode, budget)
    assert back.cuts == index.cuts
    assert back.partition == index.partition
    assert (back.partition is not None) == shuffled
    assert back.mapped == (way == "mapped")
    assert_same(back.search(case.xq, k), index.search(case.xq, k))
    assert_same(back.range_search(case.xq, radius), index.range_search(case.xq, radius))
    assert_exact(back, case.xb, case.xq, k, radius)
    np.testing.assert_array_equal(back.reconstruct_n(0, case.n), case.xb)
    if not back.mapped:  # and grows as if nothing had been
        back.add(case.xb)
        twice = np.concatenate([case.xb, case.xb])
        assert_exact(back, twice, case.xq[:5], k, radius)
        assert index.ntotal == case.n


LARGE = Case(d=64, n=40_000, nq=50, kind="clustered", seed=5)


def large(engine: str = "auto", *, shuffled: bool = False) -> Any:
    """Clusters, several segments, equal codes and a tail."""
    index = make_index(64, engine)
    if shuffled:
        shuffle_bits(index, 0)
    for begin, end in ((0, 30_000), (30_000, 36_000), (36_000, 39_000), (39_000, 40_000)):
        index.add(LARGE.xb[begin:end])
    return index


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize("engine", ["auto", "auto+probe", "auto+scan"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_segments_with_clusters(way: str, engine: str, shuffled: bool) -> None:
    index = large(shuffled=shuffled)
    assert index.memory_usage()["clusters"] > 0
    back = WAYS[way](index)
    back.force_engine(engine.partition("+")[2] or "auto")
    assert back.memory_usage()["clusters"] == index.memory_usage()["clusters"]
    # A file's offsets are not packed.
    tables, before = back.memory_usage()["tables"], index.memory_usage()["tables"]
    assert tables > before if way == "mapped" else tables == before
    assert_exact(back, LARGE.xb, LARGE.xq, 10, 12)


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_same_bytes_each_time(tmp_path: Path, shuffled: bool) -> None:
    """Nothing that is measured is in a file, and reading loses nothing."""
    index = large(shuffled=shuffled)
    first = faiss.serialize_index_binary(index)
    index.search(LARGE.xq, 10)
    for back in (index, read(index), mapped(index), index.copy()):
        np.testing.assert_array_equal(faiss.serialize_index_binary(back), first)
    path = tmp_path / "index"
    faiss.write_index_binary(index, str(path))
    assert path.read_bytes() == first.tobytes()


def test_a_mapped_index_is_read_only() -> None:
    index = mapped(large())
    other = make_index(64, "auto")
    for change in (
        lambda: index.add(LARGE.xb),
        index.reset,
        index.compact,
        lambda: index.remove_ids(np.arange(3)),
        lambda: index.merge_from(other),
        lambda: other.merge_from(index),
        lambda: index.train(LARGE.xb),
        lambda: train_native(index),
    ):
        with pytest.raises(RuntimeError, match=r"from a file and cannot be changed.*copy\(\)"):
            change()
    assert_exact(index, LARGE.xb, LARGE.xq[:5], 3, 9)
    changed = index.copy()
    assert not changed.mapped
    changed.add(LARGE.xq)
    assert changed.ntotal == 40_050
    assert index.ntotal == 40_000
    assert index.partition is None


def train_native(index: Any) -> None:
    """As FAISS's C++ does."""
    faiss.IndexBinary.train_c(index, LARGE.n, faiss.swig_ptr(LARGE.xb))


@pytest.mark.parametrize("way", ["mapped", "read", "deepcopy"])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.9])
@pytest.mark.parametrize("nq", [1, 50])
@pytest.mark.parametrize("shuffled", [False, True])
def test_filtered_searches(way: str, share: float, nq: int, shuffled: bool) -> None:
    """Of few ids, which are gathered, and of many: a mapped segment does not store their slots."""
    index, flat = WAYS[way](large(shuffled=shuffled)), faiss.IndexBinaryFlat(64)
    flat.add(LARGE.xb)
    ids = np.flatnonzero(np.random.default_rng(7).random(LARGE.n) < share)
    params = faiss.SearchParameters(sel=faiss.IDSelectorBatch(ids))
    for engine in ("auto", "probe", "scan"):
        index.force_engine(engine)
        for _ in range(2):  # what has been learnt decides how the second search is done
            assert_same(
                index.search(LARGE.xq[:nq], 10, params=params),
                flat.search(LARGE.xq[:nq], 10, params=params),
            )
    assert_same(
        index.range_search(LARGE.xq[:nq], 12, params=params),
        flat.range_search(LARGE.xq[:nq], 12, params=params),
    )
    few = faiss_dmih.SearchParametersDMIH(params.sel, max_codes=300)
    same = large(shuffled=shuffled).search(LARGE.xq[:nq], 10, params=few)
    assert_same(index.search(LARGE.xq[:nq], 10, params=few), same)


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize("shuffled", [False, True])
def test_what_a_removal_has_left(way: str, shuffled: bool) -> None:
    gone = np.random.default_rng(8).random(LARGE.n) < 0.2
    index = large(shuffled=shuffled)
    index.remove_ids(np.flatnonzero(gone))
    back = WAYS[way](index)
    assert_exact(back, LARGE.xb[~gone], LARGE.xq, 10, 12)
    if not back.mapped:
        back.remove_ids(np.arange(1000))
        assert_exact(back, LARGE.xb[~gone][1000:], LARGE.xq, 10, 12)


def test_flat_there_and_back() -> None:
    for n in (0, 1, 5000):
        flat = faiss.IndexBinaryFlat(64)
        flat.add(LARGE.xb[:n])
        for index in (IndexDMIH(flat), IndexDMIH.from_flat(flat, mode="mih")):
            assert_exact(index, LARGE.xb[:n], LARGE.xq, 3, 20)
            back = index.to_flat()
            assert type(back) is faiss.IndexBinaryFlat
            np.testing.assert_array_equal(back.reconstruct_n(0, n), LARGE.xb[:n])
    assert IndexDMIH(flat, cuts=[20, 22, 22]).cuts == (20, 22, 22)
    for wrong in (faiss.IndexBinaryHNSW(64, 8), faiss.IndexFlatL2(8), "64"):
        with pytest.raises(TypeError, match="expected"):
            IndexDMIH.from_flat(wrong)
    with pytest.raises(TypeError, match="got a IndexBinaryHNSW, expected a number of bits or"):
        IndexDMIH(faiss.IndexBinaryHNSW(64, 8))

"""What codes may come as: numpy, torch, anything that speaks DLPack; without copies."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import pytest
from checks import assert_same, make_index
from strategies import Case

import faiss_dmih
from faiss_dmih import reference

CASE = Case(d=64, n=3000, nq=30, kind="clustered", seed=3)


class OnlyDLPack:
    """An array of some other library."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


class OnlyArray:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.array


class OnDevice(OnlyDLPack):
    def __dlpack_device__(self) -> Any:
        return (2, 0)


def tensor(array: np.ndarray) -> Any:
    return pytest.importorskip("torch").from_numpy(array)


WAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "numpy": lambda x: x,
    "dlpack": OnlyDLPack,
    "array": OnlyArray,
    "torch": tensor,
    "memoryview": memoryview,
    "torch, strided": lambda x: tensor(np.repeat(x, 2, axis=0))[::2],
    "fortran": np.asfortranarray,
    "reversed": lambda x: np.ascontiguousarray(x[::-1])[::-1],
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_ways_to_hand_over_codes(way: Callable[[np.ndarray], Any]) -> None:
    index = make_index(64)
    index.train(way(CASE.xb))
    index.add(way(CASE.xb))
    xq = way(CASE.xq)
    expected = reference.knn(CASE.xb, CASE.xq, 5)
    assert_same(index.search(xq, 5), expected)
    assert_same(index.search_and_reconstruct(xq, 5)[:2], expected)
    assert_same([index.assign(xq, 5)], [expected[1]])
    assert_same(index.range_search(xq, 12), reference.range_search(CASE.xb, CASE.xq, 12))
    index.remove_ids(way(np.arange(100)) if way is not memoryview else np.arange(100))
    assert_same([index.reconstruct_n()], [CASE.xb[100:]])


def test_codes_in_a_device_are_refused() -> None:
    index = make_index(64)
    for call in (index.add, index.train, lambda x: index.search(x, 1)):
        with pytest.raises(TypeError, match="memory of a device"):
            call(OnDevice(CASE.xb))


@pytest.mark.parametrize("way", ["numpy", "dlpack", "array", "torch"])
def test_contiguous_codes_are_not_copied(way: str) -> None:
    """numpy tells tracemalloc of its memory; the engine's own is not seen by it."""
    xb = np.random.default_rng(0).integers(0, 256, (1_000_000, 8), dtype=np.uint8)
    codes = WAYS[way](xb)
    index = make_index(64, "scan")
    index.add(WAYS[way](xb[:10]))
    tracemalloc.start()
    try:
        index.add(codes)
        index.range_search(codes[:200_000] if way in ("numpy", "torch") else codes, 0)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    limits = 8 * (len(xb) + 1) * 3  # lims of the range search, and FAISS's copy of them
    assert held < limits + 1e6
    tracemalloc.start()
    try:
        index.add(codes)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_statistics_say_where_time_went() -> None:
    index = make_index(64)
    index.add(Case(d=64, n=20_000, nq=0, kind="uniform", seed=3).xb)
    faiss_dmih.reset_stats()
    assert set(faiss_dmih.stats().values()) == {0}
    index.search(CASE.xq, 5)
    after = faiss_dmih.stats()
    assert after["queries"] == CASE.nq
    assert after["visited"] == after["compared"] + after["scanned"] > 0
    assert after["answer_ns"] > 0
    assert after["probe_ns"] + after["scan_ns"] > 0
    assert after["select_ns"] == after["budget_ns"] == 0
    sel = faiss.IDSelectorRange(0, 10_000)
    index.search(CASE.xq, 5, params=faiss_dmih.SearchParametersDMIH(sel, max_codes=10))
    after = faiss_dmih.stats()
    assert after["select_ns"] > 0
    assert after["budget_ns"] > 0

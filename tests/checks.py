"""What tests compare with: the oracle, and FAISS's own exact index."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import Case, batches

import faiss_dmih
from faiss_dmih import _engine, reference

Codes = NDArray[np.uint8]

# All ways to search: a mode, or the automatic mode with one of its engines forced.
ENGINES = ("auto", "scan", "mih", "auto+scan", "auto+probe")


def make_index(d: int, engine: str = "auto", **options: Any) -> Any:
    mode, _, forced = engine.partition("+")
    index = faiss_dmih.IndexDMIH(d, mode=mode, **options)
    if forced:
        index.force_engine(forced)
    return index


def shuffle_bits(index: Any, seed: int) -> None:
    """As training does, by an order of bits that nobody would learn."""
    rng = np.random.default_rng(seed)
    cuts = index._cuts or _engine.cuts_for(index, index.ntotal)
    _engine.repartition(index, rng.permutation(index.d).astype(np.int32), np.array(cuts, np.int32))


def draw_index(case: Case, engine: str, data: st.DataObject) -> Any:
    """An index of the case's codes, added in one go or several, compacted or not, with its bits in
    any order from some moment on."""
    index = make_index(case.d, engine)
    at = 0
    for batch in data.draw(batches(case.n), label="batches"):
        if data.draw(st.booleans(), label="shuffle"):
            shuffle_bits(index, case.seed)
        index.add(case.xb[at : at + batch])
        at += batch
    if data.draw(st.booleans(), label="compact"):
        index.compact()
    return index


def flat(xb: Codes) -> Any:
    """FAISS's exact index over the same codes."""
    index = faiss.IndexBinaryFlat(xb.shape[1] * 8)
    index.add(xb)
    return index


def assert_same(got: Any, expected: Any) -> None:
    """Arrays of the same dtype, shape and bits, one by one."""
    assert len(got) == len(expected)
    for got_array, expected_array in zip(got, expected, strict=True):
        assert got_array.dtype == expected_array.dtype
        np.testing.assert_array_equal(got_array, expected_array, strict=True)


def assert_knn(index: Any, xb: Codes, xq: Codes, k: int) -> None:
    """The k nearest of xb, as the oracle has them."""
    assert_same(index.search(xq, k), reference.knn(xb, xq, k))


def assert_range(index: Any, xb: Codes, xq: Codes, radius: int) -> None:
    assert_same(index.range_search(xq, radius), reference.range_search(xb, xq, radius))


def assert_exact(index: Any, xb: Codes, xq: Codes, k: int, radius: int) -> None:
    """Both searches are those of the oracle and those of IndexBinaryFlat, bit for bit."""
    assert index.ntotal == len(xb)
    assert_knn(index, xb, xq, k)
    assert_range(index, xb, xq, radius)
    yardstick = flat(xb)
    assert_same(index.search(xq, k), yardstick.search(xq, k))
    assert_same(index.range_search(xq, radius), yardstick.range_search(xq, radius))

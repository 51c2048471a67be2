"""SearchParameters(sel=...) restricts both searches to the selected ids, exactly."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import pytest
from checks import ENGINES, assert_same, draw_index, flat, make_index
from hypothesis import given
from hypothesis import strategies as st
from strategies import Case, cases, ks, radii

from faiss_dmih import reference


def _batch(mask: np.ndarray) -> Any:
    return faiss.IDSelectorBatch(np.flatnonzero(mask))


def _array(mask: np.ndarray) -> Any:
    return faiss.IDSelectorArray(np.flatnonzero(mask))


def _bitmap(mask: np.ndarray) -> Any:
    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))


def _negated(mask: np.ndarray) -> Any:
    return faiss.IDSelectorNot(_array(~mask))


def _negated_batch(mask: np.ndarray) -> Any:
    return faiss.IDSelectorNot(_batch(~mask))


def _either(mask: np.ndarray) -> Any:
    even = np.arange(len(mask)) % 2 == 0
    return faiss.IDSelectorOr(_array(mask & even), _array(mask & ~even))


def _both(mask: np.ndarray) -> Any:
    some = mask | (np.arange(len(mask)) % 3 == 0)
    return faiss.IDSelectorAnd(_bitmap(some), _negated(mask | ~some))


def _one_of_both(mask: np.ndarray) -> Any:
    some = np.arange(len(mask)) % 5 < 2
    return faiss.IDSelectorXOr(_batch(some), _bitmap(mask ^ some))


def _and_a_function(mask: np.ndarray) -> Any:
    """The function is asked about ids in a range only."""
    last = int(mask.nonzero()[0].max(initial=0))

    def selects(i: int) -> bool:
        assert i <= last
        return bool(mask[i])

    in_range = faiss.IDSelectorRange(0, last + 1)
    return faiss.IDSelectorAnd(in_range, faiss.PyCallbackIDSelector(selects))


# Selectors of the allowed ids.
SELECTORS: dict[str, Callable[[np.ndarray], Any]] = {
    "batch": _batch,
    "array": _array,
    "bitmap": _bitmap,
    "not": _negated,
    "or": _either,
    "and": _both,
    "xor": _one_of_both,
    "a function": lambda mask: faiss.PyCallbackIDSelector(lambda i: bool(mask[i])),
    "and a function": _and_a_function,
    "not in a batch": _negated_batch,
    "all, but": lambda mask: faiss.IDSelectorAnd(faiss.IDSelectorAll(), _bitmap(mask)),
}


@pytest.mark.parametrize("engine", ENGINES)
@given(
    case=cases(biggest_d=512),
    kind=st.sampled_from(sorted(SELECTORS)),
    share=st.sampled_from([0.0, 0.003, 0.1, 0.5, 0.97, 1.0]),
    data=st.data(),
)
def test_selected_ids(
    engine: str, case: Case, kind: str, share: float, data: st.DataObject
) -> None:
    mask = np.random.default_rng(case.seed).random(case.n) < share
    selector = SELECTORS[kind](mask)
    params = faiss.SearchParameters(sel=selector)
    index = draw_index(case, engine, data)
    k, radius = data.draw(ks(case.n), label="k"), data.draw(radii(case.d), label="radius")
    assert_same(
        index.search(case.xq, k, params=params),
        reference.knn(case.xb, case.xq, k, mask=mask),
    )
    assert_same(
        index.range_search(case.xq, radius, params=params),
        reference.range_search(case.xb, case.xq, radius, mask=mask),
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.usefixtures("simd_level", "threads")
def test_a_range_of_ids(engine: str) -> None:
    case = Case(d=64, n=9000, nq=50, kind="clustered", seed=4)
    index, yardstick = make_index(case.d, engine), flat(case.xb)
    index.add(case.xb)
    for low, high in ((0, 9000), (100, 101), (4000, 4200), (8999, 20_000), (5, 5)):
        params = faiss.SearchParameters(sel=faiss.IDSelectorRange(low, high))
        assert_same(
            index.search(case.xq, 10, params=params), yardstick.search(case.xq, 10, params=params)
        )
        assert_same(
            index.range_search(case.xq, 12, params=params),
            yardstick.range_search(case.xq, 12, params=params),
        )


@pytest.mark.parametrize("engine", ["auto", "mih", "auto+probe"])
@pytest.mark.parametrize("share", [0.0005, 0.3])
@pytest.mark.parametrize("kind", ["clustered", "duplicates"])
@pytest.mark.usefixtures("threads")
def test_large_selections_of_several_segments(engine: str, share: float, kind: str) -> None:
    """Codes are gathered, or searched where they are; by batches, and one by one."""
    case = Case(d=64, n=40_000, nq=30, kind=kind, seed=4)
    index, yardstick = make_index(case.d, engine), flat(case.xb)
    index.add(case.xb[:30_000])
    index.add(case.xb[30_000:39_000])
    index.add(case.xb[39_000:])
    mask = np.random.default_rng(1).random(case.n) < share
    mask[30_000:35_000] = share < 0.5
    for selector in (_bitmap(mask), _negated_batch(mask)):
        params = faiss.SearchParameters(sel=selector)
        for k in (1, 500):
            expected = yardstick.search(case.xq, k, params=params)
            assert_same(index.search(case.xq, k, params=params), expected)
            for row in range(3):
                one = slice(row, row + 1)
                got = index.search(case.xq[one], k, params=params)
                assert_same(got, (expected[0][one], expected[1][one]))
        for radius in (3, 12):
            assert_same(
                index.range_search(case.xq, radius, params=params),
                yardstick.range_search(case.xq, radius, params=params),
            )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["batch", "not in a batch", "a function"])
@pytest.mark.parametrize("share", [0.001, 0.8])
def test_through_an_id_map(engine: str, kind: str, share: float) -> None:
    """Whose ids a selector is told; it makes a selector of its own of it."""
    case = Case(d=64, n=10_000, nq=40, kind="clustered", seed=6)
    ids = np.random.default_rng(0).permutation(15_000)[: case.n].astype(np.int64)
    mask = np.random.default_rng(1).random(15_000) < share
    params = faiss.SearchParameters(sel=SELECTORS[kind](mask))
    both = []
    for inner in (make_index(case.d, engine), faiss.IndexBinaryFlat(case.d)):
        index = faiss.IndexBinaryIDMap(inner)
        index.add_with_ids(case.xb, ids)
        both.append(index)
    few = 3 if kind == "a function" else case.nq  # Flat asks it about every pair
    for xq in (case.xq[:few], case.xq[:1], case.xq[1:2]):
        for k in (1, 3000):
            got, expected = (index.search(xq, k, params=params) for index in both)
            assert_same(got, expected)
        got, expected = (index.range_search(xq, 10, params=params) for index in both)
        assert_same(got, expected)


@pytest.mark.parametrize("threads", [1, 3], indirect=True)
@pytest.mark.usefixtures("threads")
def test_a_function_is_asked_once_about_an_id_by_the_calling_thread() -> None:
    case = Case(d=64, n=9000, nq=300, kind="clustered", seed=4)
    index = make_index(case.d)
    index.add(case.xb)
    asked = []

    def selects(i: int) -> bool:
        asked.append((i, threading.get_ident()))
        return i % 2 == 0

    params = faiss.SearchParameters(sel=faiss.PyCallbackIDSelector(selects))
    mask = np.arange(case.n) % 2 == 0
    assert_same(
        index.search(case.xq, 5, params=params), reference.knn(case.xb, case.xq, 5, mask=mask)
    )
    assert asked == [(i, threading.get_ident()) for i in range(case.n)]


def test_bitmaps_of_other_lengths() -> None:
    """Shorter than the index: the rest is not selected; longer: of no account."""
    case = Case(d=64, n=9001, nq=20, kind="uniform", seed=4)
    index, yardstick = make_index(case.d), flat(case.xb)
    index.add(case.xb)
    for length in (0, 1, 8, 1001, 1125, 1126, 1127, 5000):
        bits = np.full(length, 0xA5, np.uint8)
        params = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        assert_same(
            index.search(case.xq, 5, params=params), yardstick.search(case.xq, 5, params=params)
        )


def test_a_selection_is_forgotten_with_its_search() -> None:
    case = Case(d=64, n=500, nq=5, kind="uniform", seed=0)
    index = make_index(case.d)
    index.add(case.xb)
    everything = reference.knn(case.xb, case.xq, 5)
    none = faiss.SearchParameters(sel=faiss.IDSelectorRange(0, 0))
    assert (index.search(case.xq, 5, params=none)[1] == -1).all()
    assert_same(index.search(case.xq, 5), everything)
    assert_same(index.search(case.xq, 5, params=faiss.SearchParameters()), everything)
    assert_same(index.search(case.xq, 5, params=None), everything)

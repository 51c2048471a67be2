"""SearchParameters(sel=...) restricts both searches to the selected ids, exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import pytest
from checks import ENGINES, assert_same, flat, make_index
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


def _either(mask: np.ndarray) -> Any:
    even = np.arange(len(mask)) % 2 == 0
    return faiss.IDSelectorOr(_array(mask & even), _array(mask & ~even))


# Selectors of the allowed ids; each keeps alive what it refers to, as FAISS's Python layer does.
SELECTORS: dict[str, Callable[[np.ndarray], Any]] = {
    "batch": _batch,
    "array": _array,
    "bitmap": _bitmap,
    "not": _negated,
    "or": _either,
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
    index = make_index(case.d, engine)
    index.add(case.xb)
    if data.draw(st.booleans(), label="compact"):
        index.compact()
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

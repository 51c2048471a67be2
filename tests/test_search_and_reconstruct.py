"""search_and_reconstruct returns the codes beside D and I, also through FAISS's id maps."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest
from checks import assert_same, flat, make_index
from hypothesis import given
from strategies import Case, cases

from faiss_dmih import IndexDMIH

CASE = Case(d=72, n=300, nq=20, kind="clustered", seed=1)


def expected(xb: np.ndarray, xq: np.ndarray, k: int, params: Any = None) -> Any:
    D, I = flat(xb).search(xq, k, params=params)
    codes = np.concatenate([xb, np.full((1, xb.shape[1]), 255, np.uint8)])
    return D, I, codes[I]


@given(case=cases(biggest_d=256))
def test_codes_come_with_their_ids(case: Case) -> None:
    index = make_index(case.d)
    index.add(case.xb)
    for k in (1, 7):
        assert_same(index.search_and_reconstruct(case.xq, k), expected(case.xb, case.xq, k))


def test_missing_codes_and_filters() -> None:
    index = make_index(72)
    index.add(CASE.xb)
    params = faiss.SearchParameters(sel=faiss.IDSelectorRange(5, 8))
    got = index.search_and_reconstruct(CASE.xq, 5, params=params)
    assert_same(got, expected(CASE.xb, CASE.xq, 5, params))
    assert (got[2][:, 3:] == 255).all()


@pytest.mark.parametrize("inner", [IndexDMIH, faiss.IndexBinaryFlat])
def test_through_an_id_map(inner: Any) -> None:
    ids = np.random.default_rng(0).permutation(10_000)[: CASE.n].astype(np.int64)
    index = faiss.IndexBinaryIDMap2(inner(72))
    index.add_with_ids(CASE.xb, ids)
    D, I, R = expected(CASE.xb, CASE.xq, 5)
    assert_same(index.search_and_reconstruct(CASE.xq, 5), (D, ids[I], R))
    assert_same(index.search_and_reconstruct(x=CASE.xq, k=5), (D, ids[I], R))
    codes = np.empty_like(R)
    pointers = map(faiss.swig_ptr, (CASE.xq, D, I, codes))
    x, *out = pointers
    index.search_and_reconstruct(CASE.nq, x, 5, *out)  # as SWIG has it
    assert_same([codes], [R])
    plain = faiss.IndexBinaryIDMap(inner(72))
    plain.add_with_ids(CASE.xb, ids)
    with pytest.raises(RuntimeError, match="reconstruct not implemented"):  # as FAISS's always
        plain.search_and_reconstruct(CASE.xq, 5)


@pytest.mark.parametrize("make", [IndexDMIH, lambda d: faiss.IndexBinaryIDMap2(IndexDMIH(d))])
def test_what_is_refused(make: Any) -> None:
    index = make(72)
    with pytest.raises(TypeError):
        index.search_and_reconstruct(CASE.xq.astype(np.float32), 5)
    with pytest.raises(ValueError, match="not enough values"):
        index.search_and_reconstruct(CASE.xq[0], 5)
    with pytest.raises(AssertionError):
        index.search_and_reconstruct(CASE.xq[:, :8], 5)
    with pytest.raises(AssertionError):
        index.search_and_reconstruct(CASE.xq, 0)

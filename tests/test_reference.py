"""The oracle against plain Python loops."""

from __future__ import annotations

import numpy as np
import pytest
from checks import assert_same, flat
from hypothesis import given
from hypothesis import strategies as st
from strategies import Case, cases, ks, radii

from faiss_dmih import reference

SMALL = (0, 1, 2, 3, 20, 65)


def loop_distance(a: np.ndarray, b: np.ndarray) -> int:
    return sum((int(x) ^ int(y)).bit_count() for x, y in zip(a, b, strict=True))


def loop_neighbours(case: Case, query: int, mask: np.ndarray) -> list[tuple[int, int]]:
    """(distance, id) of all allowed codes, nearest first."""
    return sorted(
        (loop_distance(case.xq[query], code), i) for i, code in enumerate(case.xb) if mask[i]
    )


@st.composite
def small_cases(draw: st.DrawFn) -> tuple[Case, np.ndarray]:
    case = draw(cases(biggest_d=128, sizes=SMALL).filter(lambda case: case.nq <= 33))
    keep = draw(st.sampled_from([0.0, 0.5, 1.0]))
    return case, np.random.default_rng(case.seed).random(case.n) < keep


@given(small_cases())
def test_hamming(data: tuple[Case, np.ndarray]) -> None:
    case, _ = data
    got = reference.hamming(case.xq, case.xb)
    assert got.dtype == np.int32
    assert got.shape == (case.nq, case.n)
    assert got.tolist() == [[loop_distance(q, b) for b in case.xb] for q in case.xq]


@given(small_cases(), st.data())
def test_knn(data: tuple[Case, np.ndarray], draw: st.DataObject) -> None:
    case, mask = data
    k = draw.draw(ks(case.n))
    D, I = reference.knn(case.xb, case.xq, k, mask=mask)
    assert (D.dtype, I.dtype) == (np.int32, np.int64)
    assert D.shape == I.shape == (case.nq, k)
    for query in range(case.nq):
        wanted = loop_neighbours(case, query, mask)[:k]
        wanted += [(2147483647, -1)] * (k - len(wanted))
        assert list(zip(D[query].tolist(), I[query].tolist(), strict=True)) == wanted


@given(small_cases(), st.data())
def test_range_search(data: tuple[Case, np.ndarray], draw: st.DataObject) -> None:
    case, mask = data
    radius = draw.draw(radii(case.d))
    lims, D, I = reference.range_search(case.xb, case.xq, radius, mask=mask)
    assert (lims.dtype, D.dtype, I.dtype) == (np.uint64, np.float32, np.int64)
    assert lims[0] == 0
    assert lims[-1] == len(D) == len(I)
    for query in range(case.nq):
        near = [(i, dist) for dist, i in loop_neighbours(case, query, mask) if dist < radius]
        here = slice(int(lims[query]), int(lims[query + 1]))
        assert list(zip(I[here].tolist(), D[here].tolist(), strict=True)) == sorted(near)


@given(cases(), st.data())
def test_no_mask_is_a_mask_of_all(case: Case, data: st.DataObject) -> None:
    k, radius, everything = data.draw(ks(case.n)), data.draw(radii(case.d)), np.ones(case.n, bool)
    assert_same(
        reference.knn(case.xb, case.xq, k), reference.knn(case.xb, case.xq, k, mask=everything)
    )
    assert_same(
        reference.range_search(case.xb, case.xq, radius),
        reference.range_search(case.xb, case.xq, radius, mask=everything),
    )


@given(cases(), st.data())
def test_agrees_with_faiss(case: Case, data: st.DataObject) -> None:
    index, k, radius = flat(case.xb), data.draw(ks(case.n)), data.draw(radii(case.d))
    assert_same(reference.knn(case.xb, case.xq, k), index.search(case.xq, k))
    assert_same(
        reference.range_search(case.xb, case.xq, radius), index.range_search(case.xq, radius)
    )


def test_without_numpy_s_bitwise_count(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(d=72, n=300, nq=40, kind="complements", seed=6)
    distances = reference.hamming(case.xq, case.xb)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    np.testing.assert_array_equal(reference.hamming(case.xq, case.xb), distances, strict=True)


@pytest.mark.parametrize("blocks", [(1, 1), (2, 7), (33, 64)])
def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch, blocks: tuple[int, int]) -> None:
    case = Case(d=64, n=500, nq=40, kind="few bits", seed=5)
    mask = np.arange(case.n) % 3 > 0
    whole = reference.knn(case.xb, case.xq, 30, mask=mask)
    whole_range = reference.range_search(case.xb, case.xq, 4, mask=mask)
    assert len(whole_range[1]) > case.nq
    monkeypatch.setattr(reference, "_QUERY_BLOCK", blocks[0])
    monkeypatch.setattr(reference, "_CODE_BLOCK", blocks[1])
    assert_same(reference.knn(case.xb, case.xq, 30, mask=mask), whole)
    assert_same(reference.range_search(case.xb, case.xq, 4, mask=mask), whole_range)


def test_bad_arguments() -> None:
    xb = np.zeros((3, 8), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"xq: got codes of 4 bytes, expected 8"):
        reference.knn(xb, xb[:, :4], 1)
    with pytest.raises(ValueError, match=r"got k = 0, expected at least 1"):
        reference.knn(xb, xb, 0)
    with pytest.raises(TypeError, match=r"xb: got dtype float64, expected uint8"):
        reference.hamming(xb, np.zeros((3, 8)))
    with pytest.raises(TypeError, match=r"mask: got dtype int64, expected bool"):
        reference.knn(xb, xb, 1, mask=[0, 1, 1])
    with pytest.raises(ValueError, match=r"mask: got shape \(2,\), expected \(3,\)"):
        reference.range_search(xb, xb, 1, mask=[True, True])

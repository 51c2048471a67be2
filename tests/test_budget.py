"""SearchParametersDMIH: at most max_codes codes are visited, and more make no answer worse."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest
from checks import assert_same, draw_index, make_index
from hypothesis import given
from hypothesis import strategies as st
from strategies import Case, cases, ks, make_queries, radii

import faiss_dmih
from faiss_dmih import SearchParametersDMIH, reference

MODES = ("auto", "mih", "scan")
PLENTY = 2**62


def visited(search: Any) -> tuple[Any, int]:
    """What a search answers, and how many codes it visits."""
    faiss_dmih.reset_stats()
    answer = search()
    return answer, faiss_dmih.stats()["visited"]


@pytest.mark.parametrize("mode", MODES)
@given(case=cases(biggest_d=256), data=st.data())
def test_budgets(mode: str, case: Case, data: st.DataObject) -> None:
    index = draw_index(case, mode, data)
    k, radius = data.draw(ks(case.n), label="k"), data.draw(radii(case.d), label="radius")
    mask = np.ones(case.n, bool)
    sel = None
    if data.draw(st.booleans(), label="filter"):
        mask = np.random.default_rng(case.seed).random(case.n) < data.draw(st.floats(0, 1))
        sel = faiss.IDSelectorBatch(np.flatnonzero(mask))
    exact = reference.knn(case.xb, case.xq, k, mask=mask)
    in_range = reference.range_search(case.xb, case.xq, radius, mask=mask)
    params = SearchParametersDMIH(sel, max_codes=PLENTY)
    assert_same(index.search(case.xq, k, params=params), exact)
    assert_same(index.range_search(case.xq, radius, params=params), in_range)

    for q in range(min(case.nq, 2)):
        xq = case.xq[q : q + 1]

        def knn(max_codes: int, xq: Any = xq) -> Any:
            return index.search(xq, k, params=SearchParametersDMIH(sel, max_codes))

        def within(max_codes: int, xq: Any = xq) -> Any:
            return index.range_search(xq, radius, params=SearchParametersDMIH(sel, max_codes))

        _, all_of_them = visited(lambda knn=knn: knn(PLENTY))
        before = None
        for share in (0.0, 0.1, 0.5, 1.0):
            budget = max(1, int(share * all_of_them))
            (D, I), count = visited(lambda knn=knn, budget=budget: knn(budget))
            assert count <= budget
            assert_same(knn(budget), (D, I))
            real = I[I >= 0]
            assert mask[real].all()
            assert (reference.hamming(xq, case.xb[real]) == D[I >= 0]).all()
            ordered = list(zip(D[0].tolist(), I[0].view(np.uint64).tolist(), strict=True))
            assert ordered == sorted(ordered)
            assert before is None or (before >= D).all()
            before = D
        assert_same((D, I), (exact[0][q : q + 1], exact[1][q : q + 1]))

        _, all_of_them = visited(lambda within=within: within(PLENTY))
        found: set[int] = set()
        for budget in (1, max(1, all_of_them // 2), max(1, all_of_them)):
            (_, distances, ids), count = visited(lambda within=within, b=budget: within(b))
            assert count <= budget
            assert (np.diff(ids) > 0).all()
            assert (distances < radius).all()
            assert found <= set(ids.tolist())
            found = set(ids.tolist())
        assert found == set(in_range[2][in_range[0][q] : in_range[0][q + 1]].tolist())


def test_recall_grows_with_the_budget() -> None:
    case = Case(d=64, n=60_000, nq=0, kind="uniform", seed=1)
    index = make_index(64)
    index.add(case.xb)
    xq = case.xb[::100].copy()
    xq[:, 2] ^= 5
    xq[:, 6] ^= 9
    exact = reference.knn(case.xb, xq, 1)[1]
    recalls = list[float]()
    for max_codes in (1, 10, 100, 1000, 10_000, 60_000):
        params = SearchParametersDMIH(max_codes=max_codes)
        (_, I), count = visited(lambda params=params: index.search(xq, 1, params=params))
        assert count <= max_codes * len(xq)
        recalls.append(float((exact == I).mean()))
    assert recalls == sorted(recalls)
    assert recalls[2] > 0.9
    assert recalls[-1] == 1


@pytest.mark.parametrize("max_codes", [0, -1, -(2**62)])
def test_without_a_budget_it_is_exact(max_codes: int) -> None:
    case = Case(d=64, n=9000, nq=50, kind="clustered", seed=1)
    index = make_index(64)
    index.add(case.xb)
    params = SearchParametersDMIH(max_codes=max_codes)
    assert_same(index.search(case.xq, 5, params=params), reference.knn(case.xb, case.xq, 5))


def test_through_composites() -> None:
    case = Case(d=64, n=20_000, nq=20, kind="clustered", seed=1)
    ids = np.arange(case.n) * 3
    index = faiss.IndexBinaryIDMap2(make_index(64))
    index.add_with_ids(case.xb, ids)
    for sel in (None, faiss.IDSelectorRange(3000, 30_000)):
        params = SearchParametersDMIH(sel, max_codes=50)
        (_, I), count = visited(lambda p=params: index.search(case.xq, 3, params=p))
        assert 0 < count <= 50 * case.nq
        assert sel is None or ((I == -1) | ((I >= 3000) & (I < 30_000))).all()


def test_its_attributes() -> None:
    sel = faiss.IDSelectorRange(1, 2)
    params = SearchParametersDMIH(sel=sel, max_codes=np.int64(7))
    assert isinstance(params, faiss.SearchParameters)
    assert params.max_codes == 7
    assert params.sel.this == sel.this
    params.max_codes = 2**100
    assert params.max_codes == 2**63 - 1
    with pytest.raises(TypeError):
        SearchParametersDMIH(max_codes=1.5)
    with pytest.raises(TypeError):
        faiss_dmih._engine.max_codes(faiss.SearchParameters())


LARGE = [
    Case(d=64, n=20_000, nq=0, kind="clustered", seed=2),
    Case(d=128, n=20_000, nq=0, kind="duplicates", seed=3),
    Case(d=96, n=20_000, nq=0, kind="complements", seed=4),
    Case(d=256, n=20_000, nq=0, kind="few bits", seed=5),
    Case(d=520, n=12_000, nq=0, kind="uniform", seed=6),
]


@pytest.fixture(scope="module")
def large() -> dict[int, Any]:
    """Of each, segments with clusters and without, and a tail; some codes have been removed."""
    indexes = {}
    for at, case in enumerate(LARGE):
        index = indexes[at] = make_index(case.d)
        index.add(case.xb[: case.n * 3 // 5])
        index.add(case.xb[case.n * 3 // 5 : case.n - 100])
        index.remove_ids(np.arange(0, case.n // 2, 5))
        index.add(case.xb[-100:])
    return indexes


@given(data=st.data())
def test_neither_company_nor_machine_matters(large: dict[int, Any], data: st.DataObject) -> None:
    """A query has the same answer alone and in a batch, by one thread and two, at every level."""
    at = data.draw(st.sampled_from(range(len(LARGE))), label="case")
    index, case = large[at], LARGE[at]
    xq = make_queries(np.random.default_rng(data.draw(st.integers(0, 2**32))), case.xb, 70)
    k = data.draw(st.sampled_from([1, 10, 700]), label="k")
    radius = data.draw(st.integers(1, case.d // 2), label="radius")
    budget = data.draw(st.integers(1, 3 * case.n), label="max_codes")
    params = SearchParametersDMIH(max_codes=budget)
    knn, count = visited(lambda: index.search(xq, k, params=params))
    assert count <= budget * len(xq)
    within = index.range_search(xq, radius, params=params)
    level = faiss_dmih.simd_level()
    try:
        faiss_dmih.set_simd_level(
            data.draw(st.sampled_from(faiss_dmih.available_simd_levels()), label="level")
        )
        faiss.omp_set_num_threads(data.draw(st.sampled_from([1, 2, 3]), label="threads"))
        (D, I), again = visited(lambda: index.search(xq, k, params=params))
        assert_same((D, I), knn)
        assert again == count
        for q in data.draw(st.lists(st.integers(0, 69), max_size=3), label="alone"):
            assert_same(index.search(xq[q : q + 1], k, params=params), (D[q : q + 1], I[q : q + 1]))
        assert_same(index.range_search(xq, radius, params=params), within)
    finally:
        faiss_dmih.set_simd_level(level)
        faiss.omp_set_num_threads(1)


@given(data=st.data())
def test_more_is_better_and_enough_exact(large: dict[int, Any], data: st.DataObject) -> None:
    at = data.draw(st.sampled_from(range(len(LARGE))), label="case")
    index, case = large[at], LARGE[at]
    xq = make_queries(np.random.default_rng(data.draw(st.integers(0, 2**32))), case.xb, 40)
    k = data.draw(st.sampled_from([1, 10, 700]), label="k")
    radius = data.draw(st.integers(1, case.d // 2), label="radius")
    exact, exactly_within = index.search(xq, k), index.range_search(xq, radius)
    before, found = None, set[tuple[int, int]]()
    budgets = data.draw(st.lists(st.integers(1, case.n), min_size=2, max_size=5), label="max_codes")
    for budget in (*sorted(budgets), PLENTY):
        params = SearchParametersDMIH(max_codes=budget)
        D, I = index.search(xq, k, params=params)
        assert before is None or (before >= D).all()
        before = D
        lims, _, ids = index.range_search(xq, radius, params=params)
        queries = np.repeat(np.arange(len(xq)), np.diff(lims.astype(np.int64)))
        now = set(zip(queries.tolist(), ids.tolist(), strict=True))
        assert found <= now
        found = now
    assert_same((D, I), exact)
    assert_same(index.range_search(xq, radius, params=params), exactly_within)


def test_likely_codes_come_first() -> None:
    """Codes in groups, seven to a cluster of ours: a twentieth of them holds most neighbours."""
    rng = np.random.default_rng(7)
    centres = rng.integers(0, 256, (100, 16), dtype=np.uint8)
    member = np.repeat(centres, 600, axis=0)
    noise = np.bitwise_and.reduce(rng.integers(0, 256, (3, *member.shape), dtype=np.uint8))
    codes = rng.permutation(member ^ noise, axis=0)
    index, xq = make_index(128), codes[:100] ^ noise[:100]
    index.add(codes)
    D, _ = reference.knn(codes, xq, 10)
    params = SearchParametersDMIH(max_codes=len(codes) // 20)
    assert (index.search(xq, 10, params=params)[0] <= D[:, -1:]).mean() > 0.6

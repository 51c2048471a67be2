"""An index written in Python does in FAISS's composites what IndexBinaryFlat does."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faiss
import numpy as np
import pytest
from brute import Brute
from brutes import CASE, Make, Refusal, as_faiss_sees, filled, make_shards
from checks import assert_same
from hypothesis import given
from hypothesis import strategies as st
from strategies import Case, batches, cases, ks, radii
from test_selectors import SELECTORS

from faiss_dmih import IndexDMIH, _engine, reference
from faiss_dmih.python_index import PythonIndexBinary

SIZES = (0, 1, 2, 65, 300)

MAKES: tuple[Make, ...] = (Brute, faiss.IndexBinaryFlat)


def small_cases() -> st.SearchStrategy[Case]:
    return cases(biggest_d=512, sizes=SIZES)


def ids_of(case: Case) -> np.ndarray:
    return np.random.default_rng(case.seed).permutation(10 * case.n)[: case.n] - case.n


# ---- composites


@given(case=small_cases(), data=st.data())
@pytest.mark.parametrize("composite", [faiss.IndexBinaryIDMap, faiss.IndexBinaryIDMap2])
def test_id_maps(composite: Any, case: Case, data: st.DataObject) -> None:
    ids = ids_of(case)
    ours, theirs = maps = [composite(make(case.d)) for make in MAKES]
    start = 0
    for size in data.draw(batches(case.n), label="batches"):
        for map_ in maps:
            map_.add_with_ids(case.xb[start : start + size], ids[start : start + size])
        start += size
    k, radius = data.draw(ks(case.n), label="k"), data.draw(radii(case.d), label="radius")
    removed = ids[data.draw(st.integers(1, 9), label="step") // 2 :: 3]
    for _ in range(2):
        assert ours.ntotal == theirs.ntotal
        assert_same(ours.search(case.xq, k), theirs.search(case.xq, k))
        assert_same(ours.range_search(case.xq, radius), theirs.range_search(case.xq, radius))
        assert ours.remove_ids(removed) == theirs.remove_ids(removed)
    if composite is faiss.IndexBinaryIDMap2:
        for id_ in np.setdiff1d(ids, removed)[:5].tolist():
            assert_same([ours.reconstruct(id_)], [theirs.reconstruct(id_)])
    for map_ in maps:
        map_.reset()
        assert map_.ntotal == 0
    assert_same(ours.search(case.xq, k), theirs.search(case.xq, k))


@given(case=small_cases(), data=st.data())
@pytest.mark.parametrize("threaded", [False, True])
def test_shards(threaded: bool, case: Case, data: st.DataObject) -> None:
    both = [make_shards(make, case.d, threaded, successive=True) for make in MAKES]
    for shards in both:
        shards.train(case.xb)
        shards.add(case.xb)
    ours, theirs = both
    assert ours.ntotal == case.n
    k = data.draw(ks(case.n), label="k")
    assert_same(ours.search(case.xq, k), theirs.search(case.xq, k))


@given(case=small_cases(), data=st.data())
@pytest.mark.parametrize("threaded", [False, True])
def test_shards_of_id_maps(threaded: bool, case: Case, data: st.DataObject) -> None:
    both = [
        make_shards(lambda d, make=make: faiss.IndexBinaryIDMap(make(d)), case.d, threaded, False)
        for make in MAKES
    ]
    for shards in both:
        shards.add_with_ids(case.xb, ids_of(case))
    k = data.draw(ks(case.n), label="k")
    chosen = faiss.SearchParameters(sel=faiss.IDSelectorBatch(ids_of(case)[::2]))
    ours, theirs = both
    assert_same(ours.search(case.xq, k), theirs.search(case.xq, k))
    if not threaded:  # an IDMap changes the parameters for the time of its search
        found = ours.search(case.xq, k, params=chosen)
        assert_same(found, theirs.search(case.xq, k, params=chosen))


@given(case=small_cases(), data=st.data())
@pytest.mark.parametrize("threaded", [False, True])
def test_replicas(threaded: bool, case: Case, data: st.DataObject) -> None:
    both = []
    for make in MAKES:
        replicas = faiss.IndexBinaryReplicas(case.d, threaded)
        for _ in range(3):
            replicas.addIndex(make(case.d))
        replicas.train(case.xb)
        replicas.add(case.xb)
        both.append(replicas)
    ours, theirs = both
    k = data.draw(ks(case.n), label="k")
    assert ours.ntotal == case.n
    assert_same(ours.search(case.xq, k), theirs.search(case.xq, k))
    if case.n:
        assert_same([ours.reconstruct(case.n - 1)], [theirs.reconstruct(case.n - 1)])


@pytest.mark.parametrize("threaded", [False, True])
def test_an_id_map_of_shards(threaded: bool) -> None:
    ours, theirs = (
        faiss.IndexBinaryIDMap2(make_shards(make, CASE.d, threaded, successive=True))
        for make in MAKES
    )
    for map_ in (ours, theirs):
        map_.add_with_ids(CASE.xb, ids_of(CASE))
    assert ours.ntotal == CASE.n
    assert_same(ours.search(CASE.xq, 20), theirs.search(CASE.xq, 20))


@pytest.mark.parametrize("threaded", [False, True])
def test_shards_of_several_kinds(threaded: bool) -> None:
    kinds = iter([Brute, IndexDMIH, faiss.IndexBinaryFlat])
    ours = make_shards(lambda d: next(kinds)(d), CASE.d, threaded, successive=True)
    theirs = make_shards(faiss.IndexBinaryFlat, CASE.d, threaded, successive=True)
    for shards in (ours, theirs):
        shards.add(CASE.xb)
    assert_same(ours.search(CASE.xq, 20), theirs.search(CASE.xq, 20))


def test_quantizer_of_ivf() -> None:
    both = []
    for make in MAKES:
        ivf = faiss.IndexBinaryIVF(make(CASE.d), CASE.d, 8)
        ivf.cp.seed = 5
        ivf.nprobe = 3
        ivf.train(CASE.xb)
        ivf.add(CASE.xb)
        both.append(ivf)
    ours, theirs = both
    assert_same(ours.search(CASE.xq, 20), theirs.search(CASE.xq, 20))
    assert_same(ours.range_search(CASE.xq, 20), theirs.range_search(CASE.xq, 20))


def test_search_and_reconstruct() -> None:
    """FAISS's default, which asks for every code that it found."""
    answers = []
    for make in MAKES:
        map_ = faiss.IndexBinaryIDMap(make(CASE.d))
        map_.add_with_ids(CASE.xb, ids_of(CASE))
        D, I = np.empty((CASE.nq, 3), np.int32), np.empty((CASE.nq, 3), np.int64)
        codes = np.empty((CASE.nq, 3, CASE.code_size), np.uint8)
        pointers = [faiss.swig_ptr(array) for array in (D, I, codes)]
        map_.index.search_and_reconstruct(CASE.nq, faiss.swig_ptr(CASE.xq), 3, *pointers)
        answers.append((D, I, codes))
    assert_same(*answers)


def test_many_threads_search_one_index() -> None:
    map_ = faiss.IndexBinaryIDMap(Brute(CASE.d))
    map_.add_with_ids(CASE.xb, np.arange(CASE.n))
    expected = reference.knn(CASE.xb, CASE.xq, 9)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: map_.search(CASE.xq, 9), range(50)):
            assert_same(found, expected)


# ---- the index itself


def test_it_is_an_index_of_faiss() -> None:
    index = Brute(72)
    assert isinstance(index, faiss.IndexBinary)
    assert (index.d, index.code_size, index.ntotal, index.is_trained) == (72, 9, 0, True)
    seen = as_faiss_sees(index)
    assert (seen.d, seen.code_size, seen.ntotal, seen.is_trained) == (72, 9, 0, True)
    with pytest.raises(ValueError, match="expected a multiple of 8"):
        Brute(12)


def test_python_s_own_calls_go_to_python() -> None:
    index = filled()
    assert_same(index.search(CASE.xq, 3), reference.knn(CASE.xb, CASE.xq, 3))
    index.fail = KeyError("x")
    with pytest.raises(KeyError) as caught:
        index.search(CASE.xq, 3)
    assert [entry.name for entry in caught.traceback][1:] == ["search", "_check"]


def test_changes_made_in_python_are_seen() -> None:
    """A composite counts what its parts hold when it is made of them."""
    index = filled()
    assert make_shards(lambda d: index, CASE.d, False, successive=True, count=1).ntotal == CASE.n
    index.remove_ids(np.arange(10))
    assert make_shards(lambda d: index, CASE.d, False, successive=True, count=1).ntotal == 290
    index.reset()
    assert as_faiss_sees(index).ntotal == 0


def test_changes_that_fail_half_way_are_seen() -> None:
    class Half(Brute):
        def add(self, x: Any) -> None:
            super().add(x[: len(x) // 2])
            raise OSError

    index = Half(CASE.d)
    seen = as_faiss_sees(index)
    with pytest.raises(OSError, match=r"^$"):
        seen.add(CASE.xb)
    assert seen.ntotal == index.ntotal == CASE.n // 2


def test_every_method_through_faiss() -> None:
    index = Brute(CASE.d)
    ours, theirs = as_faiss_sees(index), faiss.IndexBinaryFlat(CASE.d)
    for seen in (ours, theirs):
        seen.train(CASE.xb)
        seen.add(CASE.xb)
    np.testing.assert_array_equal(index.xb, CASE.xb)
    assert_same(ours.search(CASE.xq, 7), theirs.search(CASE.xq, 7))
    assert_same(ours.range_search(CASE.xq, 9), theirs.range_search(CASE.xq, 9))
    assert_same([ours.assign(CASE.xq, 2)], [theirs.assign(CASE.xq, 2)])
    assert_same([ours.reconstruct(5)], [theirs.reconstruct(5)])
    assert_same([ours.reconstruct_n(5, 9)], [theirs.reconstruct_n(5, 9)])
    assert_same([ours.reconstruct_n(5, 0)], [theirs.reconstruct_n(5, 0)])
    chosen = faiss.IDSelectorRange(10, 30)
    assert ours.remove_ids(chosen) == theirs.remove_ids(chosen) == 20
    assert ours.ntotal == theirs.ntotal == index.ntotal == 280
    assert_same([ours.reconstruct_n()], [theirs.reconstruct_n()])
    ours.reset()
    assert ours.ntotal == index.ntotal == 0


def test_codes_are_views_of_the_caller_s() -> None:
    seen_by_python = []

    class Watch(Brute):
        def search(self, x: Any, k: int, *, mask: Any = None) -> Any:
            seen_by_python.append((x.ctypes.data, x.flags.writeable, x.flags.owndata, mask))
            return super().search(x, k, mask=mask)

    as_faiss_sees(Watch(CASE.d)).search(CASE.xq, 1)
    assert seen_by_python == [(CASE.xq.ctypes.data, False, False, None)]


def test_ids_of_one_s_own() -> None:
    """FAISS says that there are none, unless there are."""

    class Named(Brute):
        names = np.empty(0, np.int64)

        def add_with_ids(self, x: Any, ids: Any) -> None:
            if (ids < 0).any():
                raise ValueError("negative")
            self.add(x)
            self.names = np.concatenate([self.names, ids])

    with pytest.raises(RuntimeError, match="add_with_ids not implemented"):
        as_faiss_sees(Brute(CASE.d)).add_with_ids(CASE.xb, np.arange(CASE.n))
    with pytest.raises(RuntimeError, match="add_with_ids not implemented"):
        Brute(CASE.d).add_with_ids(CASE.xb, np.arange(CASE.n))
    named = [Named(CASE.d) for _ in range(3)]
    parts = iter(named)
    shards = make_shards(lambda d: next(parts), CASE.d, True, successive=False)
    shards.add_with_ids(CASE.xb, ids_of(CASE) + CASE.n)
    assert [index.ntotal for index in named] == [100, 100, 100]
    assert_same([np.concatenate([index.names for index in named])], [ids_of(CASE) + CASE.n])
    with pytest.raises(ValueError, match="negative"):
        as_faiss_sees(Named(CASE.d)).add_with_ids(CASE.xb, np.arange(CASE.n) - 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda index: index.ntotal,
        lambda index: index.add(CASE.xb),
        lambda index: index.search(CASE.xq, 1),
        lambda index: index.range_search(CASE.xq, 1),
        lambda index: index.reset(),
        lambda index: index.remove_ids(np.arange(1)),
        lambda index: index.reconstruct_n(0, 1),
        lambda index: index.reconstruct(0),
    ],
)
def test_what_a_subclass_does_not_define(call: Callable[[Any], Any]) -> None:
    with pytest.raises(NotImplementedError):
        call(PythonIndexBinary(64))


# ---- selectors


@given(
    case=small_cases(),
    kind=st.sampled_from(sorted(SELECTORS)),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    data=st.data(),
)
def test_selected_ids(case: Case, kind: str, share: float, data: st.DataObject) -> None:
    mask = np.random.default_rng(case.seed).random(case.n) < share
    selector = SELECTORS[kind](mask)
    assert_same([_engine.selector_mask(selector, case.n)], [mask])
    params = faiss.SearchParameters(sel=selector)
    # Ids that the selector can hold, too.
    ids = np.random.default_rng(case.seed).permutation(case.n)
    ours, theirs = maps = [faiss.IndexBinaryIDMap(make(case.d)) for make in MAKES]
    for map_ in maps:
        map_.add_with_ids(case.xb, ids)
    k, radius = data.draw(ks(case.n), label="k"), data.draw(radii(case.d), label="radius")
    assert_same(ours.search(case.xq, k, params=params), theirs.search(case.xq, k, params=params))
    assert_same(
        ours.range_search(case.xq, radius, params=params),
        theirs.range_search(case.xq, radius, params=params),
    )
    assert ours.remove_ids(selector) == theirs.remove_ids(selector) == mask.sum()
    assert_same(ours.search(case.xq, k), theirs.search(case.xq, k))


def _xor() -> Any:
    return faiss.IDSelectorXOr(faiss.IDSelectorRange(0, 200), faiss.IDSelectorRange(100, 300))


def _and() -> Any:
    return faiss.IDSelectorAnd(faiss.IDSelectorRange(0, 200), faiss.IDSelectorRange(100, 300))


MORE_SELECTORS: dict[str, Callable[[], Any]] = {
    "all": faiss.IDSelectorAll,
    "and": _and,
    "xor": _xor,
    "range": lambda: faiss.IDSelectorRange(50, 5000),
    "python": lambda: faiss.PyCallbackIDSelector(lambda i: i % 3 == 0),
}


@pytest.mark.parametrize("kind", MORE_SELECTORS)
@pytest.mark.parametrize("threaded", [False, True])
def test_more_selectors(threaded: bool, kind: str) -> None:
    selector = MORE_SELECTORS[kind]()
    params = faiss.SearchParameters(sel=selector)
    mask = _engine.selector_mask(selector, CASE.n)
    assert mask.tolist() == [selector.is_member(i) for i in range(CASE.n)]
    expected = reference.knn(CASE.xb, CASE.xq, 5, mask=mask)
    map_ = faiss.IndexBinaryIDMap(Brute(CASE.d))
    map_.add_with_ids(CASE.xb, np.arange(CASE.n))
    assert_same(map_.search(CASE.xq, 5, params=params), expected)
    ours, theirs = (make_shards(make, CASE.d, threaded, successive=True) for make in MAKES)
    for shards in (ours, theirs):
        shards.add(CASE.xb)
    assert_same(ours.search(CASE.xq, 5, params=params), theirs.search(CASE.xq, 5, params=params))


def test_masks_of_parameters() -> None:
    params = faiss.SearchParameters(sel=faiss.IDSelectorRange(1, 3))
    assert _engine.params_mask(params, 4).tolist() == [False, True, True, False]
    ivf = faiss.SearchParametersIVF(sel=faiss.IDSelectorRange(1, 3))
    assert _engine.params_mask(ivf, 2).tolist() == [False, True]
    assert _engine.params_mask(params, 0).tolist() == []
    assert _engine.params_mask(faiss.SearchParameters(), 4) is None
    assert _engine.params_mask(None, 4) is None


@pytest.mark.parametrize("wrong", [None, 3, "sel", faiss.SearchParameters(), CASE.xb])
def test_what_is_no_selector(wrong: Any) -> None:
    expected = rf"expected a faiss.IDSelector, got a \S*{type(wrong).__name__}"
    with pytest.raises(TypeError, match=expected):
        _engine.selector_mask(wrong, 4)


def test_what_are_no_parameters() -> None:
    with pytest.raises(TypeError, match=r"expected a faiss.SearchParameters, got a \S*IDSelector"):
        _engine.params_mask(faiss.IDSelectorAll(), 4)
    with pytest.raises(ValueError, match="expected n >= 0 ids, got -1"):
        _engine.params_mask(None, -1)
    with pytest.raises(TypeError):
        _engine.selector_mask(faiss.IDSelectorAll())  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="expected an index of make_python_index"):
        _engine.set_ntotal(faiss.IndexBinaryFlat(64), 3)


def refuse(i: int) -> bool:
    raise Refusal(i)


def test_a_selector_that_raises() -> None:
    selector = faiss.PyCallbackIDSelector(refuse)
    params = faiss.SearchParameters(sel=selector)
    with pytest.raises(Refusal):
        _engine.selector_mask(selector, 4)
    map_ = faiss.IndexBinaryIDMap(Brute(CASE.d))
    map_.add_with_ids(CASE.xb, np.arange(CASE.n))
    for call in (
        lambda: map_.search(CASE.xq, 3, params=params),
        lambda: map_.range_search(CASE.xq, 3, params=params),
        lambda: map_.remove_ids(selector),
    ):
        with pytest.raises(Refusal):
            call()
    shards = make_shards(lambda d: filled(), CASE.d, True, successive=True, count=1)
    with pytest.raises(RuntimeError, match=r"^Refusal: 0$"):
        shards.search(CASE.xq, 3, params=params)

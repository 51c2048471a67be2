"""An index written in Python does in FAISS's composites what IndexBinaryFlat does."""

from __future__ import annotations

import gc
import resource
import textwrap
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import scripts
from brute import Brute
from checks import assert_same
from hypothesis import given
from hypothesis import strategies as st
from strategies import Case, batches, cases, ks, radii
from test_selectors import SELECTORS

from faiss_dmih import IndexDMIH, _engine, python_index, reference
from faiss_dmih.python_index import PythonIndexBinary

SIZES = (0, 1, 2, 65, 300)
CASE = Case(d=64, n=300, nq=20, kind="duplicates", seed=1)

Make = Callable[[int], Any]
MAKES: tuple[Make, ...] = (Brute, faiss.IndexBinaryFlat)


def small_cases() -> st.SearchStrategy[Case]:
    return cases(biggest_d=512, sizes=SIZES)


def ids_of(case: Case) -> np.ndarray:
    return np.random.default_rng(case.seed).permutation(10 * case.n)[: case.n] - case.n


def as_faiss_sees(index: Any) -> Any:
    """The C++ object of an empty index: calls of it come in through FAISS."""
    seen = faiss.IndexBinaryIDMap(index).index
    seen.referenced_objects = [index]
    return seen


def filled(d: int = CASE.d, xb: np.ndarray = CASE.xb) -> Brute:
    index = Brute(d)
    index.add(xb)
    return index


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


def make_shards(make: Make, d: int, threaded: bool, successive: bool, count: int = 3) -> Any:
    shards = faiss.IndexBinaryShards(d, threaded, successive)
    for _ in range(count):
        shards.add_shard(make(d))
    return shards


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


class Refusal(Exception):
    pass


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


# ---- errors

CALLS: dict[str, Callable[[Any], Any]] = {
    "train": lambda index: index.train(CASE.xb),
    "add": lambda index: index.add(CASE.xb),
    "search": lambda index: index.search(CASE.xq, 3),
    "range_search": lambda index: index.range_search(CASE.xq, 3),
    "reset": lambda index: index.reset(),
    "remove_ids": lambda index: index.remove_ids(np.arange(3)),
    "reconstruct": lambda index: index.reconstruct(3),
    "reconstruct_n": lambda index: index.reconstruct_n(3, 4),
}
ERRORS: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("so"),
    "MemoryError": MemoryError,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": lambda: SystemExit(3),
    "another": lambda: Refusal("ü", 1),
}


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("method", CALLS)
def test_an_error_arrives_as_it_is(method: str, kind: str) -> None:
    error = ERRORS[kind]()
    index = Brute(CASE.d)
    seen = as_faiss_sees(index)
    seen.add(CASE.xb)
    index.fail = error
    with pytest.raises(type(error)) as caught:
        CALLS[method](seen)
    assert caught.value is error
    index.fail = None
    assert seen.ntotal == CASE.n
    assert_same(seen.search(CASE.xq, 3), reference.knn(CASE.xb, CASE.xq, 3))


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("method", ["train", "add", "search", "reset"])
def test_an_error_on_a_thread_of_faiss(method: str, kind: str) -> None:
    error = ERRORS[kind]()
    index = Brute(CASE.d)
    replicas = faiss.IndexBinaryReplicas(CASE.d, True)
    replicas.addIndex(index)
    replicas.add(CASE.xb)
    index.fail = error
    text = type(error).__name__ + (f": {error}" if str(error) else "")
    with pytest.raises(RuntimeError) as caught:
        CALLS[method](replicas)
    assert str(caught.value) == text
    index.fail = None
    assert_same(replicas.search(CASE.xq, 3), reference.knn(CASE.xb, CASE.xq, 3))


def parts_of_shards(threaded: bool) -> tuple[list[Brute], Any]:
    parts = [Brute(CASE.d) for _ in range(3)]
    rest = iter(parts)
    return parts, make_shards(lambda d: next(rest), CASE.d, threaded, successive=True)


@pytest.mark.parametrize("method", ["train", "add", "search", "reset"])
@pytest.mark.parametrize("failing", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_errors_of_several_parts(failing: tuple[int, ...], method: str) -> None:
    """FAISS goes on with the other parts; the first error is the one that is raised."""
    parts, shards = parts_of_shards(threaded=False)
    if method != "add":  # shards take one add only
        shards.add(CASE.xb)
    for i in failing:
        parts[i].fail = Refusal(i)
    params = faiss.SearchParameters(sel=faiss.PyCallbackIDSelector(lambda i: i % 2 == 0))
    calls = CALLS | {"search": lambda index: index.search(CASE.xq, 3, params=params)}
    with pytest.raises(Refusal) as caught:
        calls[method](shards)
    assert caught.value is parts[failing[0]].fail
    failed, done = {"add": (0, 100), "reset": (100, 0)}.get(method, (100, 100))
    assert [part.ntotal for part in parts] == [failed if i in failing else done for i in range(3)]


@pytest.mark.parametrize("method", ["train", "add", "search", "reset"])
def test_errors_of_several_parts_on_threads_of_faiss(method: str) -> None:
    parts, shards = parts_of_shards(threaded=True)
    if method != "add":
        shards.add(CASE.xb)
    for i in (0, 2):
        parts[i].fail = Refusal(f"part {i}")
    with pytest.raises(RuntimeError, match=r"(?s)Refusal: part 0.*Refusal: part 2"):
        CALLS[method](shards)


def test_an_error_without_text() -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise ValueError

    replicas = faiss.IndexBinaryReplicas(CASE.d, True)
    index = Brute(CASE.d)
    replicas.addIndex(index)
    index.fail = Silent()
    with pytest.raises(RuntimeError, match=r"^Silent$"):
        replicas.add(CASE.xb)


class Faulty(Brute):
    """Returns `answer` from its method `method`."""

    def __init__(self, method: str, answer: Any) -> None:
        super().__init__(CASE.d)
        super().add(CASE.xb[:10])
        setattr(self, method, lambda *args, **options: answer)


def _d(*shape: int, dtype: Any = np.int32) -> np.ndarray:
    return np.zeros(shape, dtype)


def _i(*shape: int, dtype: Any = np.int64) -> np.ndarray:
    return np.zeros(shape, dtype)


def _lims(*limits: int, dtype: Any = np.uint64) -> np.ndarray:
    return np.array(limits, dtype)


FAULTS: dict[str, tuple[str, Any, str]] = {
    "no tuple": ("search", None, r"got a NoneType, expected \(D, I\)"),
    "a list": ("search", [_d(2, 3), _i(2, 3)], r"got a list, expected \(D, I\)"),
    "three arrays": ("search", (_d(2, 3),) * 3, r"got a tuple of 3, expected \(D, I\)"),
    "dtype of D": (
        "search",
        (_d(2, 3, dtype=np.int64), _i(2, 3)),
        r"D of search: got int64 \(2, 3\), expected int32 \(2, 3\)",
    ),
    "dtype of I": (
        "search",
        (_d(2, 3), _i(2, 3, dtype=np.int32)),
        r"I of search: got int32 \(2, 3\), expected int64 \(2, 3\)",
    ),
    "byte order": ("search", (_d(2, 3, dtype=">i4"), _i(2, 3)), r"got >i4 \(2, 3\), expected"),
    "shape of D": ("search", (_d(3, 2), _i(2, 3)), r"D of search: got int32 \(3, 2\)"),
    "shape of I": ("search", (_d(2, 3), _i(6)), r"I of search: got int64 \(6,\)"),
    "no array": ("search", ([[0] * 3] * 2, _i(2, 3)), "D of search: got a list"),
    "two arrays": ("range_search", (_d(0), _i(0)), r"got a tuple of 2, expected \(lims, D, I\)"),
    "dtype of lims": (
        "range_search",
        (_lims(0, 0, 0, dtype=np.int64), _d(0, dtype=np.float32), _i(0)),
        r"lims of range_search: got int64 \(3,\), expected uint64 \(3,\)",
    ),
    "too few limits": (
        "range_search",
        (_lims(0, 0), _d(0, dtype=np.float32), _i(0)),
        r"lims of range_search: got uint64 \(2,\), expected uint64 \(3,\)",
    ),
    "limits that fall": (
        "range_search",
        (_lims(0, 2, 1), _d(1, dtype=np.float32), _i(1)),
        "limits that are not ascending",
    ),
    "limits that do not start": (
        "range_search",
        (_lims(1, 1, 1), _d(1, dtype=np.float32), _i(1)),
        "not ascending from 0",
    ),
    "distances of range_search": (
        "range_search",
        (_lims(0, 1, 1), _d(1), _i(1)),
        r"D of range_search: got int32 \(1,\), expected float32 \(1,\)",
    ),
    "too few ids": (
        "range_search",
        (_lims(0, 1, 2), _d(2, dtype=np.float32), _i(1)),
        r"I of range_search: got int64 \(1,\), expected int64 \(2,\)",
    ),
    "codes": (
        "reconstruct_n",
        np.zeros((2, 7), np.uint8),
        r"reconstruct_n: got uint8 \(2, 7\), expected uint8 \(2, 8\)",
    ),
    "no number": ("remove_ids", None, "NoneType"),
    "nothing removed": ("remove_ids", 2, r"got 2, and ntotal went from 10 to 10; expected 2"),
    "another number": ("remove_ids", 3, r"got 3, and ntotal"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_index(fault: str) -> None:
    method, answer, message = FAULTS[fault]
    index = Faulty(method, answer)
    # Removing everything would end the process in FAISS's id maps, so not through one of these.
    replicas = faiss.IndexBinaryReplicas(CASE.d, False)
    replicas.addIndex(index)
    seen = replicas.at(0)
    call = {
        "search": lambda: seen.search(CASE.xq[:2], 3),
        "range_search": lambda: seen.range_search(CASE.xq[:2], 3),
        "reconstruct_n": lambda: seen.reconstruct_n(0, 2),
        "remove_ids": lambda: seen.remove_ids(np.arange(2)),
    }[method]
    with pytest.raises((TypeError, ValueError, RuntimeError), match=message) as caught:
        call()
    assert method == "remove_ids" or str(caught.value).startswith("Faulty: ")


def test_answers_of_other_strides() -> None:
    class Strided(Brute):
        def search(self, x: Any, k: int, *, mask: Any = None) -> Any:
            D, I = super().search(x, k, mask=mask)
            return np.asfortranarray(D), np.repeat(I, 2, axis=1)[:, ::2]

        def reconstruct_n(self, i0: int, ni: int) -> Any:
            return self.xb[i0 : i0 + ni][::-1][::-1]

    seen = as_faiss_sees(Strided(CASE.d))
    seen.add(CASE.xb)
    assert_same(seen.search(CASE.xq, 4), reference.knn(CASE.xb, CASE.xq, 4))
    assert_same([seen.reconstruct_n(3, 5)], [CASE.xb[3:8]])


# ---- lifetime


def composite_of(kind: str, d: int) -> Any:
    if kind == "shards":
        composite = faiss.IndexBinaryShards(d, True, True)
        composite.add_shard(Brute(d))
    elif kind == "replicas":
        composite = faiss.IndexBinaryReplicas(d, True)
        composite.addIndex(Brute(d))
    elif kind == "nested":
        inner = make_shards(Brute, d, True, successive=True)
        composite = faiss.IndexBinaryIDMap2(inner)
    else:
        composite = getattr(faiss, kind)(Brute(d))
    return composite


COMPOSITES = ("IndexBinaryIDMap", "IndexBinaryIDMap2", "shards", "replicas", "nested")


def registered() -> int:
    return len(python_index._indexes)


@pytest.mark.parametrize("kind", COMPOSITES)
def test_a_composite_keeps_its_index_for_as_long_as_it_is(kind: str) -> None:
    gc.collect()
    gc.disable()  # nothing here is a cycle
    try:
        before = registered()
        composite = composite_of(kind, CASE.d)
        if "IDMap" in kind or kind == "nested":
            composite.add_with_ids(CASE.xb, np.arange(CASE.n))
        else:
            composite.add(CASE.xb)
        found = composite.search(CASE.xq, 5)[0]
        np.testing.assert_array_equal(found, reference.knn(CASE.xb, CASE.xq, 5)[0])
        del composite
        assert registered() == before
    finally:
        gc.enable()


def test_an_index_is_freed_with_its_last_reference() -> None:
    index = filled()
    gone = weakref.ref(index)
    map_ = faiss.IndexBinaryReplicas(CASE.d)
    map_.addIndex(index)
    del map_
    assert gone() is index
    del index
    assert gone() is None


def orphan() -> Any:
    """A composite that owns the C++ object of an index whose Python object is gone."""
    index = Brute(CASE.d)
    map_ = faiss.IndexBinaryIDMap(index)
    map_.own_fields = True
    index.this.disown()
    del map_.referenced_objects
    return map_


def test_a_python_object_that_is_gone() -> None:
    map_ = orphan()
    with pytest.raises(ReferenceError, match="keep a reference to it"):
        map_.add_with_ids(CASE.xb, np.arange(CASE.n))
    with pytest.raises(ReferenceError, match="keep a reference to it"):
        map_.search(CASE.xq, 3)
    assert map_.ntotal == 0
    del map_


def test_an_index_given_away_while_its_python_object_is_kept() -> None:
    index = Brute(CASE.d)
    map_ = faiss.IndexBinaryIDMap(index)
    map_.own_fields = True
    index.this.disown()
    map_.add_with_ids(CASE.xb, np.arange(CASE.n))
    assert_same(map_.search(CASE.xq, 3), reference.knn(CASE.xb, CASE.xq, 3))
    del map_
    assert index.search(CASE.xq, 3)[0].shape == (CASE.nq, 3)


def test_the_last_reference_is_dropped_during_a_call() -> None:
    class Holder:
        index: Any

    class Fleeting(Brute):
        def search(self, x: Any, k: int, *, mask: Any = None) -> Any:
            del holder.index
            return super().search(x, k, mask=mask)

    holder = Holder()
    holder.index = Fleeting(CASE.d)
    gone = weakref.ref(holder.index)
    seen = faiss.IndexBinaryIDMap(holder.index).index
    assert (seen.search(CASE.xq, 2)[1] == -1).all()
    assert gone() is None


def memory() -> int:
    gc.collect()
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return resident_pages * resource.getpagesize()


@pytest.mark.parametrize("kind", ["plain", "orphan", *COMPOSITES[:3]])
def test_indexes_come_and_go_without_a_leak(kind: str) -> None:
    def cycle(times: int) -> None:
        for _ in range(times):
            if kind == "plain":
                Brute(CASE.d)
            elif kind == "orphan":
                orphan()
            else:
                composite_of(kind, CASE.d)

    cycle(500)
    before, objects = memory(), len(gc.get_objects())
    cycle(3000)
    assert memory() - before < 1 << 20
    assert len(gc.get_objects()) - objects < 100


def test_calls_leave_nothing_behind() -> None:
    """Arguments, answers and errors: each call has some 100 KB of one of them."""
    xb = np.random.default_rng(0).integers(0, 256, (2000, 64), dtype=np.uint8)

    class Big(Brute):
        def train(self, x: Any) -> None:
            raise ValueError("x" * 100_000)

    index = Big(512)
    seen = as_faiss_sees(index)
    params = faiss.SearchParameters(sel=faiss.IDSelectorAll())
    replicas = faiss.IndexBinaryReplicas(512, True)
    replicas.addIndex(index)

    def cycle() -> None:
        seen.add(xb)
        seen.search(xb[:4], 2000, params=params)
        seen.range_search(xb[:4], 513, params=params)
        seen.reconstruct_n(0, 2000)
        for composite in (seen, replicas):
            with pytest.raises((ValueError, RuntimeError)):
                composite.train(xb)
        seen.remove_ids(faiss.IDSelectorAll())

    for _ in range(5):
        cycle()
    before = memory()
    for _ in range(100):
        cycle()
    assert memory() - before < 4 << 20


# ---- processes

SETUP = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from brute import Brute
xb = codes(300)
"""


def run(script: str) -> list[str]:
    return scripts.run(SETUP + textwrap.dedent(script)).split()


COMPOSITE = {
    "plain": "index = Slow(64); composite = faiss.IndexBinaryIDMap(index).index",
    "map": "composite = faiss.IndexBinaryIDMap(Slow(64))",
    "shards": "composite = faiss.IndexBinaryShards(64, False, True)\n"
    "for _ in range(2): composite.add_shard(Slow(64))",
    "threaded shards": "composite = faiss.IndexBinaryShards(64, True, True)\n"
    "for _ in range(2): composite.add_shard(Slow(64))",
}
STAY = {
    "waiting": "time.sleep(0.05)",
    "running": "sum(range(1000))",
}


@pytest.mark.parametrize("stay", STAY)
@pytest.mark.parametrize("kind", COMPOSITE)
def test_exit_while_a_thread_is_inside(kind: str, stay: str) -> None:
    out = run(
        f"""
class Slow(Brute):
    def search(self, x, k, *, mask=None):
        inside.set()
        while True:
            {STAY[stay]}

inside = threading.Event()
{COMPOSITE[kind]}
threading.Thread(target=lambda: composite.search(xb, 5), daemon=True).start()
assert inside.wait(timeout=30)
time.sleep(0.1)
print("done")
"""
    )
    assert out == ["done"]


@pytest.mark.parametrize("kind", COMPOSITE)
def test_exit_while_threads_come_in(kind: str) -> None:
    """Many short calls: the end meets them anywhere."""
    out = run(
        f"""
class Slow(Brute):
    pass

{COMPOSITE[kind]}

def search():
    while True:
        composite.search(xb, 5)
        started.set()

started = threading.Event()
for _ in range(3):
    threading.Thread(target=search, daemon=True).start()
assert started.wait(timeout=30)
print("done")
"""
    )
    assert out == ["done"]


def test_exit_while_a_thread_drops_indexes() -> None:
    out = run("""
        def make():
            while True:
                map_ = faiss.IndexBinaryIDMap(Brute(64))
                started.set()

        started = threading.Event()
        for _ in range(3):
            threading.Thread(target=make, daemon=True).start()
        assert started.wait(timeout=30)
        print("done")
    """)
    assert out == ["done"]


def test_fork() -> None:
    out = run("""
        faiss.omp_set_num_threads(1)  # a child has none of the threads that FAISS's loops wait for
        index = faiss.IndexBinaryIDMap2(Brute(64))
        index.add_with_ids(xb, np.arange(300))
        assert_exact(index, xb, xb[:20])
        pid = os.fork()
        index.add_with_ids(xb, np.arange(300, 600))
        assert_exact(index, np.concatenate([xb, xb]), xb[:20])
        shards = faiss.IndexBinaryShards(64, True, True)
        for _ in range(2):
            shards.add_shard(Brute(64))
        shards.add(xb)
        assert (shards.search(xb, 1)[0] == 0).all()
        if pid == 0:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print("done")
    """)
    assert out == ["done"]


def test_ctrl_c() -> None:
    out = run("""
        class Slow(Brute):
            def search(self, x, k, *, mask=None):
                threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
                time.sleep(20)

        signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
        index = faiss.IndexBinaryIDMap(Slow(64))
        try:
            index.search(xb, 5)
        except KeyboardInterrupt:
            print("interrupted")
        index.add_with_ids(xb, np.arange(300))
        print(index.ntotal)
    """)
    assert out == ["interrupted", "300"]


def test_a_deleted_index_at_exit() -> None:
    """The interpreter takes its modules apart in any order."""
    out = run("""
        class Late:
            def __del__(self):
                try:
                    self.map.search(xb, 5)
                except BaseException as error:
                    print(type(error).__name__)

        late = Late()
        late.map = faiss.IndexBinaryIDMap(Brute(64))
        late.me = late
        sys.late = late
        print("done")
    """)
    assert out[:1] == ["done"]


def test_searches_of_python_s_threads_and_faiss_s() -> None:
    """Together, and Python's lock goes round."""
    shards = make_shards(Brute, CASE.d, True, successive=True)
    shards.add(CASE.xb)
    expected = reference.knn(CASE.xb, CASE.xq, 5)[0]
    together = threading.Barrier(4)

    def search(_: int) -> None:
        together.wait(timeout=30)
        for _ in range(20):
            np.testing.assert_array_equal(shards.search(CASE.xq, 5)[0], expected)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(search, range(4)))

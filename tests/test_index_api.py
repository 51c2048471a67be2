"""IndexDMIH behaves as FAISS's binary indexes do: results, shapes, and the exceptions raised."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import pytest
from checks import assert_exact, assert_same, flat, make_index
from strategies import Case

from faiss_dmih import IndexDMIH, reference

CASE = Case(d=64, n=700, nq=20, kind="clustered", seed=9)
XB, XQ = CASE.xb, CASE.xq
WIDE = np.zeros((3, 9), dtype=np.uint8)
FLOATS = XQ.astype(np.float32)
MODES = ("auto", "mih", "scan")


def filled(mode: str = "auto", **options: Any) -> Any:
    index = make_index(CASE.d, mode, **options)
    index.add(XB)
    return index


def outcome(call: Callable[[Any], Any], index: Any) -> tuple[str, Any]:
    try:
        return "returned", call(index)
    except Exception as error:
        return "raised", type(error)


# One call each, made of an IndexBinaryFlat and of an IndexDMIH that hold the same codes.
SAME_AS_FLAT: dict[str, Callable[[Any], Any]] = {
    "d": lambda index: index.d,
    "code_size": lambda index: index.code_size,
    "ntotal": lambda index: index.ntotal,
    "is_trained": lambda index: index.is_trained,
    "metric_type": lambda index: index.metric_type,
    "sa_code_size": lambda index: index.sa_code_size(),
    "train": lambda index: index.train(XB),
    "train on nothing": lambda index: index.train(XB[:0]),
    "train on floats": lambda index: index.train(FLOATS),
    "train on one row": lambda index: index.train(XB[0]),
    "train on wide codes": lambda index: index.train(WIDE),
    "add": lambda index: (index.add(XQ), index.ntotal),
    "add nothing": lambda index: (index.add(XQ[:0]), index.ntotal),
    "add out of order": lambda index: (index.add(XQ[::-2]), index.reconstruct_n()),
    "add floats": lambda index: index.add(FLOATS),
    "add signed bytes": lambda index: index.add(XQ.astype(np.int8)),
    "add one row": lambda index: index.add(XQ[0]),
    "add wide codes": lambda index: index.add(WIDE),
    "add_with_ids": lambda index: index.add_with_ids(XQ, np.arange(len(XQ))),
    "search": lambda index: index.search(XQ, 7),
    "search past ntotal": lambda index: index.search(XQ, CASE.n + 5),
    "search nothing": lambda index: index.search(XQ[:0], 7),
    "search out of order": lambda index: index.search(np.asfortranarray(XQ), 7),
    "search every other": lambda index: index.search(XQ[::2], 7),
    "search floats": lambda index: index.search(FLOATS, 7),
    "search bits": lambda index: index.search(XQ.astype(bool), 7),
    "search one row": lambda index: index.search(XQ[0], 7),
    "search three axes": lambda index: index.search(XQ[None], 7),
    "search wide codes": lambda index: index.search(WIDE, 7),
    "search for 0": lambda index: index.search(XQ, 0),
    "search for -1": lambda index: index.search(XQ, -1),
    "search for 1.5": lambda index: index.search(XQ, 1.5),
    "search for text": lambda index: index.search(XQ, "7"),
    "search with junk": lambda index: index.search(XQ, 7, params=3),
    "search with IVF's parameters": lambda index: index.search(
        XQ, 7, params=faiss.SearchParametersIVF(sel=faiss.IDSelectorRange(3, 90))
    ),
    "assign": lambda index: index.assign(XQ, 7),
    "assign into labels": lambda index: index.assign(XQ, 7, np.zeros((CASE.nq, 7), np.int64)),
    "assign into short labels": lambda index: index.assign(XQ, 7, np.zeros((CASE.nq, 6), np.int64)),
    "assign past ntotal": lambda index: index.assign(XQ, CASE.n + 5),
    "assign to 0": lambda index: index.assign(XQ, 0),
    "assign floats": lambda index: index.assign(FLOATS, 7),
    "assign one row": lambda index: index.assign(XQ[0], 7),
    "assign wide codes": lambda index: index.assign(WIDE, 7),
    "range_search": lambda index: index.range_search(XQ, 12),
    "range_search for nothing": lambda index: index.range_search(XQ[:0], 12),
    "range_search within 0": lambda index: index.range_search(XQ, 0),
    "range_search within 1": lambda index: index.range_search(XQ, 1),
    "range_search within -1": lambda index: index.range_search(XQ, -1),
    "range_search within -2^31": lambda index: index.range_search(XQ, -(2**31)),
    "range_search within d": lambda index: index.range_search(XQ, CASE.d),
    "range_search within d + 1": lambda index: index.range_search(XQ, CASE.d + 1),
    "range_search within 2^31 - 1": lambda index: index.range_search(XQ, 2**31 - 1),
    "range_search within 2^31": lambda index: index.range_search(XQ, 2**31),
    "range_search within 1.5": lambda index: index.range_search(XQ, 1.5),
    "range_search out of order": lambda index: index.range_search(np.asfortranarray(XQ), 12),
    "range_search floats": lambda index: index.range_search(FLOATS, 12),
    "range_search one row": lambda index: index.range_search(XQ[0], 12),
    "range_search wide codes": lambda index: index.range_search(WIDE, 12),
    "range_search with junk": lambda index: index.range_search(XQ, 12, params=3),
    "reset": lambda index: (index.reset(), index.ntotal, index.search(XQ, 3)),
    "reset, then add": lambda index: (index.reset(), index.add(XQ), index.search(XQ, 3)),
    "reconstruct": lambda index: index.reconstruct(CASE.n - 1),
    "reconstruct 1.0": lambda index: index.reconstruct(1.0),
    "reconstruct_n": lambda index: index.reconstruct_n(),
    "reconstruct_n from 5": lambda index: index.reconstruct_n(5),
    "reconstruct_n 7 from 5": lambda index: index.reconstruct_n(5, 7),
    "reconstruct_n into x": lambda index: index.reconstruct_n(5, 7, np.zeros((7, 8), np.uint8)),
    "reconstruct_n into short x": lambda index: index.reconstruct_n(
        5, 7, np.zeros((6, 8), np.uint8)
    ),
    "reconstruct_n 0 from the end": lambda index: index.reconstruct_n(CASE.n, 0),
    "reconstruct_n -2": lambda index: index.reconstruct_n(0, -2),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("call", SAME_AS_FLAT.values(), ids=SAME_AS_FLAT.keys())
def test_same_as_flat(call: Callable[[Any], Any], mode: str) -> None:
    index = filled(mode)
    expected, got = outcome(call, flat(XB)), outcome(call, index)
    assert got[0] == expected[0]
    np.testing.assert_equal(got[1], expected[1], strict=True)
    if got[0] == "raised":  # and nothing has happened
        assert_exact(index, XB, XQ, 5, 10)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("compacted", [False, True])
def test_an_empty_index(mode: str, compacted: bool) -> None:
    index = make_index(CASE.d, mode)
    if compacted:
        index.compact()
    assert_exact(index, XB[:0], XQ, 3, CASE.d + 1)
    assert_exact(index, XB[:0], XQ[:0], 3, CASE.d + 1)
    assert_same([index.assign(XQ, 2)], [np.full((CASE.nq, 2), -1)])
    assert index.reconstruct_n().shape == (0, CASE.code_size)
    index.reset()
    assert index.ntotal == 0


def test_it_is_a_binary_index_of_faiss() -> None:
    index = IndexDMIH(128)
    assert isinstance(index, faiss.IndexBinary)
    assert (index.d, index.code_size, index.ntotal, index.is_trained) == (128, 16, 0, True)
    assert (index.mode, index.memory_budget) == ("auto", None)


@pytest.mark.parametrize("mode", MODES)
def test_reset_gives_the_memory_back_and_starts_ids_anew(mode: str) -> None:
    index = filled(mode)
    index.compact()
    index.reset()
    assert_exact(index, XB[:0], XQ, 3, 20)
    index.add(XB[100:300])
    assert_exact(index, XB[100:300], XQ, 3, 20)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("key", [-1, CASE.n, CASE.n + 1, 2**40, -(2**40)])
def test_reconstruct_outside_of_the_index(mode: str, key: int) -> None:
    index = filled(mode)
    with pytest.raises(RuntimeError):
        index.reconstruct(key)
    with pytest.raises(RuntimeError):
        index.reconstruct_n(key, 2)
    with pytest.raises(RuntimeError):
        index.reconstruct_n(CASE.n - 1, 2)


@pytest.mark.parametrize("mode", MODES)
def test_codes_are_as_they_were_added(mode: str) -> None:
    """In the tail, in segments, and in one segment."""
    xb = Case(d=72, n=9500, nq=0, kind="duplicates", seed=1).xb
    index = make_index(72, mode)
    for batch in np.array_split(xb, 5):
        index.add(batch)
    for _ in range(2):
        assert_same([index.reconstruct_n()], [xb])
        assert_same([index.reconstruct_n(4000, 3000)], [xb[4000:7000]])
        for i in (0, 4095, 4096, 9499):
            assert_same([index.reconstruct(i)], [xb[i]])
        index.compact()


def test_the_caller_s_arrays_are_only_read() -> None:
    xb, xq = XB.copy(), XQ.copy()
    index = IndexDMIH(CASE.d)
    index.add(xb)
    assert_exact(index, XB, xq, 5, 20)
    np.testing.assert_array_equal(xq, XQ)
    np.testing.assert_array_equal(xb, XB)
    xb[:] = 0  # what was added is the index's own
    assert_exact(index, XB, XQ, 5, 20)


def test_read_only_arrays_are_taken() -> None:
    xb = XB.copy()
    xb.flags.writeable = False
    index = IndexDMIH(CASE.d)
    index.add(xb)
    assert_exact(index, XB, xb[:5], 5, 20)


GOOD_CUTS = [(22, 21, 21), (16, 16, 16, 16), (26, 26, 12), (1, 2, 3, 4, 20, 20, 14), (1,) * 64]


@pytest.mark.parametrize("cuts", GOOD_CUTS, ids=str)
@pytest.mark.parametrize("mode", ["auto", "scan"])
def test_cuts_are_kept(cuts: tuple[int, ...], mode: str) -> None:
    for given in (cuts, list(cuts), np.array(cuts)):
        index = IndexDMIH(64, cuts=given, mode=mode)
        index.add(XB)
        assert_exact(index, XB, XQ, 5, 20)
        assert index.cuts == cuts
        assert all(type(length) is int for length in index.cuts)


@pytest.mark.parametrize("mode", ["auto", "mih"])
def test_cuts_of_tables_add_up_to_d(mode: str) -> None:
    assert make_index(CASE.d, mode).cuts is None
    index = filled(mode)
    index.compact()
    assert sum(index.cuts) == CASE.d
    assert all(0 < length <= 26 for length in index.cuts)


# Errors name what was got.
@pytest.mark.parametrize("d", [0, -8, 7, 63, 100, 4104, 2**31])
def test_bad_d(d: int) -> None:
    with pytest.raises(ValueError, match=rf"got.*{d}.*expected"):
        IndexDMIH(d)


@pytest.mark.parametrize("d", ["64", 64.0, None, [64], True])
def test_d_of_another_type(d: Any) -> None:
    with pytest.raises(TypeError, match=r"got.*expected"):
        IndexDMIH(d)


BAD_CUTS = [(), (24,), (24, 24, 24), (22, 42), (26, 0, 26, 12), (-8, 26, 26, 20), (2**62,) * 4]


@pytest.mark.parametrize("cuts", BAD_CUTS, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_bad_cuts(cuts: tuple[int, ...], mode: str) -> None:
    with pytest.raises(ValueError, match=re.escape(str(cuts))):
        IndexDMIH(64, cuts=cuts, mode=mode)


@pytest.mark.parametrize("cuts", [64, "64", (26.0, 26.0, 12.0), ("32", "32"), (None,)], ids=str)
def test_cuts_of_another_type(cuts: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(repr(cuts))):
        IndexDMIH(64, cuts=cuts)


@pytest.mark.parametrize("mode", ["", "MIH", "flat", None, 3])
def test_unknown_mode(mode: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"{mode!r}.*auto.*mih.*scan"):
        IndexDMIH(64, mode=mode)


@pytest.mark.parametrize("budget", [-1, -(2**40)])
def test_bad_memory_budget(budget: int) -> None:
    with pytest.raises(ValueError, match=str(budget)):
        IndexDMIH(64, memory_budget=budget)


@pytest.mark.parametrize("budget", ["1GB", 1e9, [1]])
def test_memory_budget_of_another_type(budget: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(repr(budget))):
        IndexDMIH(64, memory_budget=budget)


@pytest.mark.parametrize("mode", ["mih", "scan"])
def test_a_memory_budget_where_none_applies(mode: str) -> None:
    with pytest.raises(ValueError, match=r"memory_budget applies to mode='auto'"):
        IndexDMIH(64, mode=mode, memory_budget=1 << 30)


@pytest.mark.parametrize("arguments", [{"nprobe": 3}, {"cut": (32, 32)}])
def test_unknown_options(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(arguments))):
        IndexDMIH(64, **arguments)


def test_options_are_named() -> None:
    with pytest.raises(TypeError, match="positional"):
        IndexDMIH(64, (32, 32))


@pytest.mark.parametrize("engine", ["", "mih", "fast", None])
def test_unknown_engine(engine: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"{engine!r}.*auto.*scan.*probe"):
        IndexDMIH(64).force_engine(engine)


@pytest.mark.parametrize("mode", MODES)
def test_memory_usage(mode: str) -> None:
    index = make_index(512, mode)
    totals = []
    xb = Case(d=512, n=12_000, nq=0, kind="uniform", seed=2).xb
    for batch in (xb[:0], xb[:1000], xb):
        index.add(batch)
        usage = index.memory_usage()
        assert all(isinstance(name, str) and type(size) is int for name, size in usage.items())
        assert min(usage.values()) >= 0
        assert usage["total"] >= index.ntotal * index.code_size
        totals.append(usage["total"])
    assert totals == sorted(set(totals))
    index.reset()
    assert index.memory_usage()["total"] < totals[1]


def test_results_of_a_large_k_are_whole() -> None:
    xb = Case(d=128, n=5000, nq=0, kind="uniform", seed=3).xb
    index = IndexDMIH(128)
    index.add(xb)
    D, I = index.search(xb[:4], 5000)
    assert_same((D, I), reference.knn(xb, xb[:4], 5000))
    assert np.sort(I, axis=1).tolist() == [list(range(5000))] * 4

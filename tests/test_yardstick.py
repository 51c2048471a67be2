"""Every method of faiss.IndexBinary: what IndexBinaryFlat does, IndexDMIH does.

`test_index_api.py` has more calls of the methods that take arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import pytest
from checks import flat, make_index
from strategies import Case
from test_index_api import SAME_AS_FLAT

CASE = Case(d=64, n=700, nq=20, kind="duplicates", seed=9)
XB, XQ = CASE.xb, CASE.xq
P = faiss.swig_ptr


def raw_search_and_reconstruct(index: Any, k: int) -> Any:
    D = np.zeros((CASE.nq, max(k, 0)), np.int32)
    I = np.zeros((CASE.nq, max(k, 0)), np.int64)
    R = np.zeros((CASE.nq, max(k, 0), 8), np.uint8)
    # Ours takes arrays; what FAISS's composites call is the method below it.
    faiss.IndexBinary.search_and_reconstruct(index, CASE.nq, P(XQ), k, P(D), P(I), P(R))
    return D, I, R


def ex(index: Any, method: str, kind: int) -> Any:
    getattr(index, method)(CASE.nq, P(XQ), kind)
    return index.reconstruct_n()


# By the method's name. What a call returns is compared, or its exception: the type, and FAISS's own
# message if it comes from there.
CALLS: dict[str, list[Callable[[Any], Any]]] = {
    "remove_ids": [
        lambda index: (index.remove_ids(np.arange(0, 700, 3)), index.reconstruct_n()),
        lambda index: (index.remove_ids(np.array([5, 5, -1, 10**9])), index.search(XQ, 9)),
        lambda index: (index.remove_ids(faiss.IDSelectorAll()), index.ntotal),
        lambda index: (index.remove_ids(faiss.IDSelectorRange(90, 80)), index.ntotal),
        lambda index: index.remove_ids(np.array([[1]])),
        lambda index: index.remove_ids(np.array(1)),
    ],
    "search_and_reconstruct": [
        lambda index: raw_search_and_reconstruct(index, 5),
        lambda index: raw_search_and_reconstruct(index, 705),
    ],
    "add_with_ids": [lambda index: index.add_with_ids(XQ, np.arange(20))],
    "add_with_ids_ex": [
        lambda index: index.add_with_ids_ex(20, P(XQ), faiss.UInt8, P(np.arange(20))),
    ],
    "add_ex": [lambda index: ex(index, "add_ex", faiss.UInt8)],
    "train_ex": [lambda index: ex(index, "train_ex", faiss.UInt8)],
    "display": [lambda index: index.display()],
    "sa_code_size": [lambda index: index.sa_code_size()],
}
# Tested elsewhere, since Flat has them not: IndexFlatCodes' semantics are those of merging.
OTHERWISE = {"merge_from", "check_compatible_for_merge", "add_sa_codes", "search_ex"}
ATTRIBUTES = {"verbose", "thisown"}


def outcome(call: Callable[[Any], Any], index: Any) -> Any:
    try:
        return "returned", call(index)
    except Exception as error:
        return "raised", type(error), str(error).rpartition(": ")[2]


@pytest.mark.parametrize("mode", ["auto", "mih", "scan"])
@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("method", CALLS)
def test_same_as_flat(method: str, compacted: bool, mode: str) -> None:
    for call in CALLS[method]:
        index = make_index(64, mode)
        index.add(XB)
        if compacted:
            index.compact()
        np.testing.assert_equal(outcome(call, index), outcome(call, flat(XB)), strict=True)


def test_no_method_is_missing() -> None:
    methods = {
        name
        for name in dir(faiss.IndexBinary)
        if not name.startswith("_") and not name.endswith("_c")
    }
    called = {label.partition(" ")[0].rstrip(",") for label in SAME_AS_FLAT}
    assert methods - called - set(CALLS) - OTHERWISE - ATTRIBUTES == set()

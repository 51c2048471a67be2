"""Indexes written in Python that FAISS takes for its own, as an engine on a GPU is.

FAISS's composites call the virtual functions of a C++ object. That of a `PythonIndexBinary`
forwards them to the Python object, by `_call`: it hands what it is given to the object's methods,
and hands back what these return, once dtypes and shapes are as they should be.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import DTypeLike, NDArray

from faiss_dmih.codes import check_d

try:
    import faiss
except ModuleNotFoundError:  # one that is there and cannot be used, faiss_dmih has refused already
    _Base: Any = object
else:
    from faiss_dmih import _engine

    _Base = faiss.IndexBinary

Codes = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class PythonIndexBinary(_Base):  # type: ignore[misc]
    """Base of an index of packed binary codes that is written in Python.

    Where FAISS is installed it is a ``faiss.IndexBinary``, and FAISS's composites
    (``IndexBinaryIDMap2``, ``IndexBinaryShards``, ``IndexBinaryReplicas``) hold it; otherwise it is
    an ordinary class. Calls from Python go to the methods of the subclass directly.

    A subclass defines ``ntotal`` and the methods below that raise NotImplementedError here, and
    calls ``_changed()`` whenever its ``ntotal`` may be another. Ids are 0 to ntotal - 1. Through
    FAISS, methods are called with codes in host memory, C-contiguous, read-only and valid only
    during the call: what is to be kept must be copied. FAISS calls them from threads of its own
    where a composite has such. What they raise reaches FAISS's caller as it is, or from another
    thread as RuntimeError ``"TypeName: text"``.

    If it also defines ``add_with_ids(x, ids)``, FAISS's composites may call that, too.

    Args:
        d: bits of a code, a multiple of 8 in [8, 4096].

    Raises:
        ValueError, TypeError: ``d`` is none of these.
    """

    def __init__(self, d: int) -> None:
        self._d = check_d(d)
        if _Base is not object:
            key = next(_keys)
            _indexes[key] = self
            self.this = _engine.make_python_index(self._d, key)

    @property
    def d(self) -> int:
        """Bits of a code."""
        return self._d

    @property
    def code_size(self) -> int:
        """Bytes of a code."""
        return self._d // 8

    @property
    def is_trained(self) -> bool:
        """True: there is nothing to learn."""
        return True

    @property
    def ntotal(self) -> int:
        """Number of codes held."""
        raise NotImplementedError

    def train(self, x: Any) -> None:
        """Learns from codes ``x`` (n, d/8) uint8; here, nothing."""

    def add(self, x: Any) -> None:
        """Adds codes ``x`` (n, d/8) uint8; their ids are ntotal, ntotal + 1, ..."""
        raise NotImplementedError

    def search(self, x: Any, k: int, *, mask: Any = None) -> Any:
        """The k nearest codes of each query.

        Args:
            x: queries (nq, d/8) uint8.
            k: neighbours per query, at least 1.
            mask: (ntotal,) bool, leaves out the codes for which it is false.

        Returns:
            D (nq, k) int32 and I (nq, k) int64; where there are fewer than k codes, 2147483647 and
            -1.
        """
        raise NotImplementedError

    def range_search(self, x: Any, radius: int, *, mask: Any = None) -> Any:
        """All codes at a distance below ``radius`` (strictly) of each query.

        ``x`` and ``mask`` are as for ``search``.

        Returns:
            ``(lims, D, I)``: the answers of query i are ``D[lims[i]:lims[i + 1]]`` float32 and
            ``I[lims[i]:lims[i + 1]]`` int64; lims is (nq + 1,) uint64.
        """
        raise NotImplementedError

    def reset(self) -> None:
        """Removes all codes."""
        raise NotImplementedError

    def remove_ids(self, ids: Any) -> int:
        """Removes the codes of ``ids`` (n,) int64 and returns how many there were.

        The ids of later codes move down. Through FAISS, ``ids`` are distinct, ascending and in
        [0, ntotal).
        """
        raise NotImplementedError

    def reconstruct_n(self, i0: int, ni: int) -> Any:
        """The codes (ni, d/8) uint8 of the ids i0 to i0 + ni - 1."""
        raise NotImplementedError

    def reconstruct(self, key: int) -> Any:
        """The code (d/8,) uint8 of the id ``key``."""
        return self.reconstruct_n(key, 1)[0]

    def _changed(self) -> None:
        """Tells FAISS's composites the present ``ntotal``."""
        if _Base is not object:
            _engine.set_ntotal(self.this, self.ntotal)


# The C++ objects know their Python objects by number. A reference would have to be a weak one, as
# the Python object owns the C++ object, and to be given up with Python's lock, which a destructor
# cannot wait for while the process exits.
_indexes: WeakValueDictionary[int, PythonIndexBinary] = WeakValueDictionary()
_keys = itertools.count()


def _call(key: int, method: str, arguments: tuple[Any, ...]) -> Any:
    """What a C++ object has FAISS's calls answered by. Codes and ids come and go as buffers."""
    index = _indexes.get(key)
    if index is None:
        raise ReferenceError(
            "the Python object of this index is gone; keep a reference to it for as long as FAISS "
            "uses the index"
        )
    return _METHODS[method](index, *arguments)


def _train(index: PythonIndexBinary, x: memoryview) -> None:
    index.train(_codes(index, x))


def _add(index: PythonIndexBinary, x: memoryview) -> None:
    try:
        index.add(_codes(index, x))
    finally:
        index._changed()


def _add_with_ids(index: PythonIndexBinary, x: memoryview, ids: memoryview) -> bool:
    """False: the index knows no such thing."""
    # FAISS's own method of that name would call us again.
    if type(index).add_with_ids is _Base.add_with_ids:
        return False
    codes = _codes(index, x)
    try:
        index.add_with_ids(codes, np.ndarray(len(codes), np.int64, buffer=ids))
    finally:
        index._changed()
    return True


def _search(
    index: PythonIndexBinary, x: memoryview, k: int, mask: bytearray | None
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    codes = _codes(index, x)
    D, I = _parts(index, "search", index.search(codes, k, mask=_mask(mask)), "(D, I)")
    shape = (len(codes), k)
    return (
        _checked(index, "D of search", D, np.int32, shape),
        _checked(index, "I of search", I, np.int64, shape),
    )


def _range_search(
    index: PythonIndexBinary, x: memoryview, radius: int, mask: bytearray | None
) -> tuple[NDArray[np.uint64], NDArray[np.float32], NDArray[np.int64]]:
    """Instead of limits, the number of answers of each query."""
    codes = _codes(index, x)
    found = index.range_search(codes, radius, mask=_mask(mask))
    lims, D, I = _parts(index, "range_search", found, "(lims, D, I)")
    lims = _checked(index, "lims of range_search", lims, np.uint64, (len(codes) + 1,))
    if lims[0] != 0 or (lims[1:] < lims[:-1]).any():
        raise ValueError(
            f"{type(index).__name__}: lims of range_search: got limits that are not ascending "
            "from 0, expected the number of answers before each query"
        )
    shape = (int(lims[-1]),)
    return (
        np.diff(lims),
        _checked(index, "D of range_search", D, np.float32, shape),
        _checked(index, "I of range_search", I, np.int64, shape),
    )


def _reset(index: PythonIndexBinary) -> None:
    try:
        index.reset()
    finally:
        index._changed()


def _remove_ids(index: PythonIndexBinary, mask: bytearray) -> int:
    ids = np.flatnonzero(np.frombuffer(mask, np.bool_))
    before = index.ntotal
    try:
        removed = operator.index(index.remove_ids(ids))
    finally:
        index._changed()
    # FAISS's id maps end the process where their number of codes is not that of the index.
    if not removed == len(ids) == before - index.ntotal:
        raise RuntimeError(
            f"{type(index).__name__}: remove_ids: got {removed}, and ntotal went from {before} to "
            f"{index.ntotal}; expected {len(ids)} codes to be removed"
        )
    return removed


def _reconstruct_n(index: PythonIndexBinary, i0: int, ni: int) -> Codes:
    codes = index.reconstruct_n(i0, ni)
    return _checked(index, "reconstruct_n", codes, np.uint8, (ni, index.code_size))


_METHODS: Mapping[str, Callable[..., Any]] = {
    "train": _train,
    "add": _add,
    "add_with_ids": _add_with_ids,
    "search": _search,
    "range_search": _range_search,
    "reset": _reset,
    "remove_ids": _remove_ids,
    "reconstruct_n": _reconstruct_n,
}


def _codes(index: PythonIndexBinary, x: memoryview) -> Codes:
    return np.ndarray((len(x) // index.code_size, index.code_size), np.uint8, buffer=x)


def _mask(mask: bytearray | None) -> Mask | None:
    return None if mask is None else np.frombuffer(mask, np.bool_)


def _parts(index: PythonIndexBinary, method: str, answer: Any, expected: str) -> Any:
    if not isinstance(answer, tuple) or len(answer) != expected.count(",") + 1:
        raise TypeError(
            f"{type(index).__name__}: {method}: got {_describe(answer)}, expected {expected}"
        )
    return answer


def _checked(
    index: PythonIndexBinary, name: str, array: Any, dtype: DTypeLike, shape: tuple[int, ...]
) -> NDArray[Any]:
    """The array, C-contiguous, if it is one of this dtype and shape."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
        raise TypeError(
            f"{type(index).__name__}: {name}: got {_describe(array)}, expected "
            f"{np.dtype(dtype)} {shape} in host memory"
        )
    return np.ascontiguousarray(array)


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"a {type(value).__name__}"

"""CuPy's array module over NumPy's memory: what CuPy 13 and 14 both have and do alike, no more.

Nothing goes to or from NumPy by itself. What makes the host wait for the device is counted.
Memory that nobody has written is full of garbage, indices are trusted by nobody, and types are as
they are by CuPy 13's rules and by 14's, or it is an error. `test_strict.py` compares the names and
parameters here with CuPy's own, where it is installed.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

waits = 0
"""How often the host has waited for the device."""
here = threading.local()
"""`stream`: the one on which a thread makes arrays, "caller" or "kept", by a device's contexts."""

_GARBAGE = 0xCB


class ndarray:
    """An array on the device. `made_on`: the stream that was the current one."""

    __array_ufunc__ = None  # NumPy's scalars leave operators to us
    __hash__ = None  # type: ignore[assignment]
    __iter__ = None

    def __init__(self, host: Any, made_on: str | None = None) -> None:
        self._host: np.ndarray[Any, Any] = np.asarray(host)
        self.made_on = made_on or stream()

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __array_function__(self, function: Any, *_: Any) -> Any:
        raise TypeError(f"NumPy's {function.__name__} of an array on the device")

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)

    def __len__(self) -> int:
        return len(self._host)

    def _view(self, host: Any) -> ndarray:
        same = np.may_share_memory(host, self._host)
        return ndarray(host, self.made_on if same else None)

    def view(self, dtype: Any) -> ndarray:
        return self._view(self._host.view(dtype))

    def reshape(self, *shape: Any) -> ndarray:
        return self._view(self._host.reshape(*shape))

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        return self._view(self._host.astype(dtype, copy=copy))

    def copy(self) -> ndarray:
        return ndarray(self._host.copy())

    def fill(self, value: Any) -> None:
        self._host.fill(_scalar(value))

    def any(self, axis: int | None = None) -> ndarray:
        return ndarray(self._host.any(axis))

    def sum(self, axis: int | None = None) -> ndarray:
        if self.dtype != np.float64:
            raise TypeError("sums of other types are of a type that depends on the platform")
        return ndarray(self._host.sum(axis))

    def sort(self) -> None:
        """CuPy 13 waits for it."""
        _wait()
        if not self._host.flags.c_contiguous:
            raise NotImplementedError("Sorting non-contiguous array is not supported.")
        self._host.sort()

    def get(self) -> np.ndarray[Any, Any]:
        _wait()
        return self._host.copy()

    def __int__(self) -> int:
        return int(self.get())

    def __index__(self) -> int:
        return operator.index(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __bool__(self) -> bool:
        return bool(self.get())

    def __getitem__(self, key: Any) -> ndarray:
        if _has(key, "b"):
            _wait()  # for how many there are
        # The ellipsis: one element is an array without dimensions, which shares its memory.
        return self._view(self._host[(*_key(key, self.shape), ...)])

    def __setitem__(self, key: Any, value: Any) -> None:
        host = value._host if isinstance(value, ndarray) else _scalar(value)
        if isinstance(key, ndarray) and key.ndim == 1 and key.dtype.kind in "iu":
            # Which of those that go to the same place is the last, nobody knows.
            (indices,) = _key(key, self.shape)
            self._host[indices[::-1]] = host[::-1] if np.ndim(host) else host
        else:
            self._host[(*_key(key, self.shape), ...)] = host

    def __invert__(self) -> ndarray:
        return ndarray(~self._host)


def _binary(name: str, function: Callable[[Any, Any], Any]) -> None:
    def forward(self: ndarray, other: Any) -> Any:
        return ndarray(function(*_operands(self, other)))

    def backward(self: ndarray, other: Any) -> Any:
        right, left = _operands(self, other)
        return ndarray(function(left, right))

    def in_place(self: ndarray, other: Any) -> ndarray:
        result = function(*_operands(self, other))
        np.copyto(self._host, result, casting="same_kind")
        return self

    setattr(ndarray, f"__{name}__", forward)
    if name not in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(ndarray, f"__r{name}__", backward)
        setattr(ndarray, f"__i{name}__", in_place)


for _name in ("add", "sub", "mul", "pow", "rshift", "lshift", "and", "or", "xor"):
    _binary(_name, getattr(operator, f"__{_name}__"))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    _binary(_name, getattr(operator, _name))


def empty(shape: Any, dtype: Any) -> ndarray:
    host = np.empty(shape, dtype)
    host.reshape(-1).view(np.uint8)[:] = _GARBAGE if host.dtype != np.bool_ else 1
    return ndarray(host)


def zeros(shape: Any, dtype: Any) -> ndarray:
    return ndarray(np.zeros(shape, dtype))


def ones(shape: Any, dtype: Any) -> ndarray:
    return ndarray(np.ones(shape, dtype))


def full(shape: Any, fill_value: Any, dtype: Any) -> ndarray:
    return ndarray(np.full(shape, _scalar(fill_value), dtype))


def arange(start: int, stop: int | None = None, step: int = 1, *, dtype: Any) -> ndarray:
    return ndarray(np.arange(start, stop, step, dtype))


def asarray(a: Any, *, blocking: bool = False) -> ndarray:
    """Of the device or the host. CuPy's copy comes later where it is not blocking: here, if the
    array is not the caller's, there is no difference."""
    if isinstance(a, ndarray):
        return a
    if not isinstance(a, np.ndarray):
        raise TypeError(f"got {type(a).__name__}, expected an array")
    if blocking:
        _wait()
    return ndarray(a.copy())


def ascontiguousarray(a: ndarray) -> ndarray:
    return a._view(np.ascontiguousarray(_array(a)))


def concatenate(tup: Sequence[ndarray]) -> ndarray:
    arrays = [_array(a) for a in tup]
    if len({a.dtype for a in arrays}) != 1:
        raise TypeError(f"of different types: {[a.dtype for a in arrays]}")
    return ndarray(np.concatenate(arrays))


def cumsum(a: ndarray, *, dtype: Any) -> ndarray:
    return ndarray(np.cumsum(_array(a), dtype=dtype))


def searchsorted(a: ndarray, v: ndarray, side: Any = "left") -> ndarray:
    if a.dtype != v.dtype:
        raise TypeError(f"CuPy compares them as C++ does: {a.dtype} and {v.dtype}")
    return ndarray(np.searchsorted(_array(a), _array(v), side).astype(np.int64))


def argsort(a: ndarray, *, kind: str) -> ndarray:
    """CuPy 13 waits for it."""
    _wait()
    if kind != "stable":
        raise ValueError("kind can only be None or 'stable'")
    return ndarray(np.argsort(_array(a), kind="stable").astype(np.int64))


def where(condition: ndarray, x: ndarray, y: Any) -> ndarray:
    left, right = _operands(x, y)
    return ndarray(np.where(_array(condition), left, right))


def flatnonzero(a: ndarray) -> ndarray:
    _wait()
    return ndarray(np.flatnonzero(_array(a)))


def asnumpy(a: ndarray) -> np.ndarray[Any, Any]:
    _array(a)
    return a.get()


def argument(x: Any) -> Any:
    """What a kernel is started with: of an array its memory, whatever the strides."""
    if isinstance(x, ndarray):
        if not x._host.flags.c_contiguous:
            raise ValueError("kernels know nothing of strides")
        return x._host
    if not isinstance(x, np.generic):
        raise TypeError(f"got {type(x).__name__}, expected an array of the device or a scalar")
    return x


def stream() -> str | None:
    return getattr(here, "stream", None)


def _wait() -> None:
    global waits
    waits += 1


def _array(x: Any) -> np.ndarray[Any, Any]:
    if not isinstance(x, ndarray):
        raise TypeError(f"Unsupported type {type(x)}")
    return x._host


def _scalar(x: Any) -> Any:
    if not isinstance(x, (bool, int, float, np.generic)):
        raise TypeError(f"Unsupported type {type(x)}")
    return x


def _has(key: Any, kind: str) -> bool:
    parts = key if isinstance(key, tuple) else (key,)
    return any(isinstance(part, ndarray) and part.dtype.kind in kind for part in parts)


def _key(key: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) > 1 and _has(key, "biu"):
        raise NotImplementedError("an array among several indices")
    for part in parts:
        if isinstance(part, ndarray):
            if part.dtype.kind == "b" and part.shape != shape[: part.ndim]:
                raise IndexError("boolean index did not match indexed array")
        elif not isinstance(part, (int, np.integer, slice)):
            raise TypeError(f"an index of type {type(part).__name__}")
    return tuple(part._host if isinstance(part, ndarray) else part for part in parts)


def _operands(x: ndarray, y: Any) -> tuple[Any, Any]:
    """Both as they are computed with: two arrays of a kind, or an array and a scalar that leaves it
    its type. CuPy 13 goes by the scalar's value, 14 by its type, which Python's numbers lack."""
    if isinstance(y, ndarray):
        if x.dtype.kind != y.dtype.kind:
            raise TypeError(f"of different kinds: {x.dtype} and {y.dtype}")
        return x._host, y._host
    if isinstance(_scalar(y), np.generic):
        fits = np.promote_types(x.dtype, y.dtype) == x.dtype
    elif isinstance(y, int) and x.dtype.kind in "iu":
        fits = np.iinfo(x.dtype).min <= y <= np.iinfo(x.dtype).max
    else:
        fits = x.dtype.kind == "f"
    if not fits:
        raise TypeError(f"a scalar {y!r} does not leave {x.dtype} as it is")
    return x._host, x.dtype.type(y)

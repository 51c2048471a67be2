"""Packed binary codes: packing, unpacking, and checking what callers pass as codes.

A set of n codes of d bits is a C-contiguous uint8 array `(n, d / 8)`, as in FAISS's binary indexes:
bit b of a code is bit `b % 8` of byte `b // 8`, the least significant bit first.

>>> import numpy as np
>>> bits = np.array([[1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]])
>>> pack(bits)
array([[1, 2]], dtype=uint8)
>>> unpack(pack(bits)).astype(int).tolist() == bits.tolist()
True
"""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_D = 4096
"""The longest code, in bits, that an index takes."""

# Device types of DLPack whose memory the host can read: CPU, and what CUDA or ROCm have pinned.
_DLPACK_HOST = (1, 3, 11)


def pack(bits: ArrayLike) -> NDArray[np.uint8]:
    """Pack `(n, d)` bits, bool or 0/1 of any numeric type, into codes uint8 `(n, d / 8)`.

    >>> pack(np.eye(2, 8, dtype=bool))
    array([[1],
           [2]], dtype=uint8)
    """
    array = np.asarray(bits)
    if array.ndim != 2:
        raise ValueError(f"bits: got shape {array.shape}, expected (n, d): one row per code")
    if array.shape[1] % 8:
        raise ValueError(
            f"bits: got {array.shape[1]} bits per code, expected a multiple of 8; "
            "add columns of zeros"
        )
    if array.dtype != np.bool_:
        if array.dtype.kind not in "iuf":
            raise TypeError(f"bits: got dtype {array.dtype}, expected bool or a number type")
        if not np.isin(array, (0, 1)).all():
            raise ValueError(
                "bits: got values other than 0 and 1, expected only these; "
                "pass `x > 0` to take the signs of real values"
            )
        array = array.astype(np.bool_)
    return np.packbits(array, axis=1, bitorder="little")


def unpack(codes: ArrayLike, d: int | None = None) -> NDArray[np.bool_]:
    """Unpack codes into bool `(n, d)`; `d` keeps the first d bits of each, all where it is None.

    >>> unpack(np.array([[5]], dtype=np.uint8), d=4)
    array([[ True, False,  True, False]])
    """
    packed = check_codes(codes, None, "codes")
    width = packed.shape[1] * 8
    if d is not None and not 0 <= d <= width:
        raise ValueError(f"got d = {d}, expected 0 to {width}: the codes have {width} bits")
    return np.unpackbits(packed, axis=1, count=d, bitorder="little").view(np.bool_)


def check_codes(x: Any, code_size: int | None, name: str = "x") -> NDArray[np.uint8]:
    """Return `x` as a C-contiguous uint8 array `(n, code_size)`, copying only where it must.

    `x` is a numpy array, a torch tensor on the CPU, or anything else that speaks numpy's or
    DLPack's protocol and lives in host memory. `code_size` None takes codes of any width. `name` is
    what errors call the argument.

    >>> x = np.zeros((3, 8), dtype=np.uint8)
    >>> check_codes(x, 8) is x
    True
    >>> check_codes(x, 16, "xq")
    Traceback (most recent call last):
    ValueError: xq: got codes of 8 bytes, expected 16 (d = 128 bits)
    >>> check_codes(x.astype(np.float32), 8)
    Traceback (most recent call last):
    TypeError: x: got dtype float32, expected uint8; faiss_dmih.codes.pack makes codes of bits
    """
    array = host_array(x, name)
    check_layout(array, code_size, name)
    return np.ascontiguousarray(array)


def check_layout(array: Any, code_size: int | None, name: str) -> None:
    """Raise TypeError or ValueError unless `array`, of any library, has codes' dtype and shape."""
    if array.dtype != np.uint8:
        raise TypeError(
            f"{name}: got dtype {array.dtype}, expected uint8; "
            "faiss_dmih.codes.pack makes codes of bits"
        )
    if array.ndim != 2:
        raise ValueError(
            f"{name}: got shape {array.shape}, expected (n, code_size): one row per code"
            + ("; for a single code pass x[None, :]" if array.ndim == 1 else "")
        )
    if code_size is not None and array.shape[1] != code_size:
        raise ValueError(
            f"{name}: got codes of {array.shape[1]} bytes, "
            f"expected {code_size} (d = {code_size * 8} bits)"
        )


def check_d(d: SupportsIndex) -> int:
    """Return the number of bits of a code as an int: a multiple of 8, from 8 to `MAX_D`.

    >>> check_d(256)
    256
    >>> check_d(100)
    Traceback (most recent call last):
    ValueError: got d = 100, expected a multiple of 8 from 8 to 4096; pad with zero bits to 104
    """
    if isinstance(d, (bool, np.bool_)) or not hasattr(d, "__index__"):
        raise TypeError(f"got d of type {type(d).__name__}, expected an int: bits per code")
    bits = operator.index(d)
    if bits % 8 or not 8 <= bits <= MAX_D:
        padded = -(-bits // 8) * 8
        advice = f"; pad with zero bits to {padded}" if 8 <= padded <= MAX_D else ""
        raise ValueError(f"got d = {bits}, expected a multiple of 8 from 8 to {MAX_D}{advice}")
    return bits


def host_array(x: Any, name: str) -> NDArray[Any]:
    """`x`, which speaks numpy's or DLPack's protocol, as an array of the same host memory.

    TypeError where it lies in a device's memory.
    """
    if isinstance(x, np.ndarray):
        return x
    device = getattr(x, "__dlpack_device__", None)
    if device is not None and device()[0] not in _DLPACK_HOST:
        raise TypeError(
            f"{name}: got a {type(x).__name__} in the memory of a device, expected host memory; "
            "copy it first: x.cpu() for torch, x.get() for CuPy"
        )
    if hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
        return np.from_dlpack(x)
    return np.asarray(x)

"""Filters and removals: selectors of FAISS, masks and lists of ids as bool arrays by id."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from faiss_dmih.gpu.device import Array, Device


def allowed(device: Device, params: Any, mask: Any, n: int) -> Array | None:
    """Which of n ids may be answered, on the device; None if all may."""
    if params is not None:
        if mask is not None:
            raise ValueError("got both params and mask, expected one: combine them into the mask")
        mask = _engine().params_mask(params, n)
    if mask is None:
        return None
    array = device.array_of(mask, "mask") if device.owns(mask) else np.asarray(mask)
    if array.dtype != np.bool_:
        raise TypeError(f"mask: got dtype {array.dtype}, expected bool")
    if array.shape != (n,):
        raise ValueError(f"mask: got shape {array.shape}, expected ({n},): one per code")
    # Blocking: CuPy would read pinned memory later, when the caller may have changed it.
    return device.xp.asarray(array, blocking=True)


def on_host(device: Device, params: Any, mask: Any, n: int) -> NDArray[np.bool_] | None:
    """The same in host memory."""
    with device.reading(mask):
        array = allowed(device, params, mask, n)
        return None if array is None else device.to_host(array)


def kept_on_host(device: Device, ids: Any, n: int) -> NDArray[np.bool_]:
    """As `kept`, in host memory."""
    with device.reading(ids):
        return device.to_host(kept(device, ids, n))


def kept(device: Device, ids: Any, n: int) -> Array:
    """Which of n ids remain when `ids`, an int array or a faiss.IDSelector, are removed."""
    xp = device.xp
    if is_selector(ids):
        return ~xp.asarray(_engine().selector_mask(ids, n))
    array = device.array_of(ids, "ids") if device.owns(ids) else np.asarray(ids)
    if array.dtype.kind not in "iu" and array.size > 0:
        raise TypeError(f"ids: got dtype {array.dtype}, expected integers or an IDSelector")
    # First of all: n may be none of their type's numbers. What is too large for int64 is below 0.
    array = xp.asarray(array).reshape(-1).astype(np.int64)
    keep = xp.ones(n, np.bool_)
    keep[array[(array >= 0) & (array < n)]] = False
    return keep


def is_selector(ids: Any) -> bool:
    return hasattr(ids, "is_member") and not hasattr(ids, "__array__")


def to_host(device: Device, x: Any, name: str) -> NDArray[Any]:
    """`x`, wherever it is, in host memory."""
    if not device.owns(x):
        return np.asarray(x)
    with device.reading(x):
        return device.to_host(device.array_of(x, name))


def _engine() -> Any:
    """The native module. Selectors are FAISS's, so it is there."""
    from faiss_dmih import _engine

    return _engine

"""Ids of the caller's own for an index on a device, without FAISS."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from faiss_dmih.gpu import masks
from faiss_dmih.gpu.index import GpuIndexDMIH
from faiss_dmih.python_index import PythonIndexBinary


class GpuIDMap(PythonIndexBinary):
    """What ``faiss.IndexBinaryIDMap2`` is, for answers that stay on the device.

    Ties are won by what was added first, whatever its id. An id may be given to several codes.

    Args:
        index: an empty GpuIndexDMIH.

    Raises:
        ValueError: the index holds codes already.
    """

    def __init__(self, index: GpuIndexDMIH) -> None:
        super().__init__(index.d)
        if index.ntotal > 0:
            raise ValueError(f"got an index of {index.ntotal} codes, expected an empty one")
        self.index = index
        self._ids: NDArray[np.int64] = np.empty(0, np.int64)
        self._there: Any = None  # the same on the device

    @property
    def ntotal(self) -> int:
        """Number of codes held."""
        return self.index.ntotal

    @property
    def ids(self) -> NDArray[np.int64]:
        """Of all codes, in the order in which they were added."""
        return self._ids.copy()

    def add(self, x: Any) -> None:
        """Raises RuntimeError, as FAISS's id maps do: there are no ids."""
        raise RuntimeError("add needs ids: use add_with_ids(x, ids)")

    def add_with_ids(self, x: Any, ids: Any) -> None:
        """Adds codes ``x`` (n, d/8) uint8 with ``ids`` (n,) int; all or none of them."""
        new = masks.to_host(self.index.on_device, ids, "ids")
        if new.dtype.kind not in "iu" or new.shape != (len(x),):
            raise ValueError(
                f"ids: got {new.dtype} {new.shape}, expected integers ({len(x)},): one per code"
            )
        longer = np.concatenate([self._ids, new.astype(np.int64)])
        self.index.add(x)
        self._set(longer)

    def search(self, x: Any, k: int, *, params: Any = None, mask: Any = None) -> tuple[Any, Any]:
        """As ``GpuIndexDMIH.search``.

        Selectors in ``params`` are asked for the caller's ids, one by one; a mask is by the order
        in which codes were added.
        """
        D, I = self.index.search(x, k, mask=self._mask(params, mask))
        return D, self._translated(x, I)

    def range_search(
        self, x: Any, thresh: int, *, params: Any = None, mask: Any = None
    ) -> tuple[Any, Any, Any]:
        """As ``GpuIndexDMIH.range_search``, in the order in which codes were added."""
        lims, D, I = self.index.range_search(x, thresh, mask=self._mask(params, mask))
        return lims, D, self._translated(x, I)

    def remove_ids(self, ids: Any) -> int:
        """Removes all codes with one of these ids (int array, or a ``faiss.IDSelector``)."""
        if masks.is_selector(ids):
            gone = _members(ids, self._ids)
        else:
            gone = np.isin(self._ids, masks.to_host(self.index.on_device, ids, "ids"))
        removed = self.index.remove_ids(np.flatnonzero(gone))
        self._set(self._ids[~gone])
        return removed

    def reset(self) -> None:
        """Removes all codes."""
        self.index.reset()
        self._set(self._ids[:0])

    def reconstruct(self, key: int) -> Any:
        """The code of the last one added with this id. Raises ValueError where there is none."""
        places = np.flatnonzero(self._ids == key)
        if len(places) == 0:
            raise ValueError(f"there is no code with the id {key}")
        return self.index.reconstruct(int(places[-1]))

    def _set(self, ids: NDArray[np.int64]) -> None:
        self._ids, self._there = ids, None
        self._changed()

    def _mask(self, params: Any, mask: Any) -> Any:
        if params is None or params.sel is None:
            return mask
        if mask is not None:
            raise ValueError("got both params and mask, expected one: combine them into the mask")
        return _members(params.sel, self._ids)

    def _translated(self, x: Any, I: Any) -> Any:
        device = self.index.on_device
        if isinstance(I, np.ndarray) and not device.owns(I):
            return np.append(self._ids, -1)[I]
        if self._there is None:
            with device.changing():
                self._there = device.xp.asarray(np.append(self._ids, -1))
        with device.reading(x):
            return device.like(x, self._there[device.array_of(I, "I")])


def _members(selector: Any, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.fromiter((selector.is_member(int(i)) for i in ids), np.bool_, len(ids))

"""Codes in ascending order of their ids, in one IndexDMIH, and which of them were removed."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from faiss_dmih.distributed import merging
from faiss_dmih.distributed.folder import Folder
from faiss_dmih.distributed.manifest import PartFiles
from faiss_dmih.distributed.merging import Keys, Ranges
from faiss_dmih.folders import atomic_file
from faiss_dmih.index import IndexDMIH, SearchParametersDMIH
from faiss_dmih.storage import read_index, write_index

_AT_ONCE = 1 << 20
Ids = NDArray[np.int64]


class Part:
    """Positions ascend with ids, so that the order of the index's answers is that of (distance,
    id). What is removed is left where it is, and kept out of searches by a selector.

    Args:
        index: of the codes.
        ids: (n,) of its codes, or the first of ids that count on.
        kept: bits, as ``faiss.IDSelectorBitmap`` takes them; None: nothing was removed.
        files: where it is stored; None: nowhere yet.
        copy: of the index, on a GPU, to be searched instead.
    """

    def __init__(
        self,
        index: IndexDMIH,
        ids: Ids | int,
        kept: NDArray[np.uint8] | None = None,
        files: PartFiles | None = None,
        copy: Any = None,
    ) -> None:
        self.index, self.files = index, files
        self._searched = index if copy is None else copy
        self._ids, self._kept = ids, kept
        self.n_removed = files.n_removed if files is not None else 0

    @classmethod
    def opened(cls, folder: Folder, files: PartFiles, gpu: bool, before: Part | None) -> Part:
        """Mapped from its files; `before`: the same codes, if they are open already."""
        if before is not None:
            index, ids, copy = before.index, before._ids, before._searched
        else:
            index = read_index(folder.local(files.codes), mmap=True)
            if not isinstance(index, IndexDMIH) or index.ntotal != files.n:
                raise ValueError(
                    f"{folder}/{files.codes.name} is not the index of {files.n} codes that the "
                    "manifest names"
                )
            copy = index.to_gpu() if gpu else None
            ids = files.first_id
            if files.ids is not None:
                ids = np.load(folder.local(files.ids), mmap_mode="r", allow_pickle=False)
        kept = None
        if files.removed is not None:
            kept = _all_kept(files.n)
            _clear(kept, np.load(folder.local(files.removed), allow_pickle=False))
        return cls(index, ids, kept, files, copy)

    @property
    def n(self) -> int:
        """Codes, those that were removed among them."""
        return int(self.index.ntotal)

    @property
    def ntotal(self) -> int:
        """Codes that are left."""
        return self.n - self.n_removed

    def search(self, xq: NDArray[np.uint8], k: int, max_codes: int = 0) -> Keys:
        D, at = self._searched.search(xq, k, params=self._params(max_codes))
        return merging.pack(D, np.where(at < 0, at, self._ids_at(at)))

    def range_search(self, xq: NDArray[np.uint8], radius: int) -> Ranges:
        lims, D, at = self._searched.range_search(xq, radius, params=self._params())
        return lims.astype(np.int64), D.astype(np.int16), self._ids_at(at)

    def find(self, ids: Ids) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which of the ids are here, and at which positions these are."""
        if self.n == 0:
            return np.zeros(len(ids), np.bool_), np.empty(0, np.int64)
        if isinstance(self._ids, int):
            at = ids - self._ids
            here = (at >= 0) & (at < self.n)
        else:
            at = np.searchsorted(self._ids[: self.n], ids)
            here = at < self.n
            here[here] = self._ids[at[here]] == ids[here]
        if self._kept is not None:
            found = at[here]
            here[here] = self._kept[found >> 3] >> (found & 7).astype(np.uint8) & 1
        return here, at[here]

    def remove(self, at: NDArray[np.int64]) -> None:
        """Removes what is at these positions, each of which was there."""
        kept = _all_kept(self.n) if self._kept is None else self._kept
        _clear(kept, at)
        self._kept = kept
        self.n_removed += len(at)

    def live(self) -> Iterator[tuple[NDArray[np.uint8], Ids]]:
        """Codes and ids of what is left, by blocks."""
        for first in range(0, self.n, _AT_ONCE):
            at = np.arange(first, min(first + _AT_ONCE, self.n))
            if self._kept is not None:
                bits = self._kept[first >> 3 : (at[-1] >> 3) + 1]
                at = at[np.unpackbits(bits, bitorder="little")[: len(at)] != 0]
            yield self.index.reconstruct_batch(at), self._ids_at(at)

    def with_removals(self, folder: Folder, number: int) -> PartFiles:
        """Its files once more, with a new one of what was removed, if more was."""
        assert self.files is not None
        if self.n_removed == self.files.n_removed:
            return self.files
        assert self._kept is not None
        gone = np.unpackbits(self._kept, bitorder="little")[: self.n] == 0
        array = np.flatnonzero(gone).astype(np.uint32)
        stored = folder.put(_name(number, "removed.npy"), lambda path: _save(path, array))
        said = {**vars(self.files), "removed": stored, "n_removed": self.n_removed}
        return PartFiles(**said)

    def _ids_at(self, at: NDArray[np.int64]) -> Ids:
        return at + self._ids if isinstance(self._ids, int) else np.asarray(self._ids[at])

    def _params(self, max_codes: int = 0) -> Any:
        selector = None if self._kept is None else faiss.IDSelectorBitmap(self._kept)
        if max_codes and isinstance(self._searched, IndexDMIH):
            return SearchParametersDMIH(selector, max_codes)
        return None if selector is None else faiss.SearchParameters(sel=selector)


class Delta(Part):
    """Codes since the last commit, in memory."""

    def __init__(self, d: int, options: dict[str, Any]) -> None:
        super().__init__(IndexDMIH(d, **options), np.empty(0, np.int64))

    def append(self, x: NDArray[np.uint8], new: Ids) -> None:
        """Adds codes and their ids, greater than those before: all or, on an exception, none."""
        n, m = self.n, self.n + len(x)
        ids, kept = self._ids, self._kept
        assert not isinstance(ids, int)
        if m > len(ids):  # twice the room, so that many small adds stay cheap
            ids = np.concatenate([ids[:n], np.empty(max(m, 2 * n) - n, np.int64)])
        if kept is not None and 8 * len(kept) < m:
            kept = np.concatenate([kept, np.full(max(m, 2 * n) // 8 + 1, 255, np.uint8)])
        ids[n:m] = new
        self.index.add(x)
        self._ids, self._kept = ids, kept


def write_part(
    folder: Folder, number: int, index: IndexDMIH, ids: Sequence[Ids] | int
) -> PartFiles:
    """Stores an index whose codes have these ids, ascending: pieces of them, or the first of ids
    that count on."""
    stored_ids = None
    if isinstance(ids, int):
        first, last = ids, ids + index.ntotal - 1
    else:
        array = np.concatenate(ids)
        first, last = int(array[0]), int(array[-1])
        if last - first + 1 != len(array):
            stored_ids = folder.put(_name(number, "ids.npy"), lambda path: _save(path, array))
    stored = folder.put(_name(number, "ibdm"), lambda path: write_index(index, path))
    return PartFiles(stored, index.ntotal, first, last, stored_ids)


def _name(number: int, suffix: str) -> str:
    return f"shard-{number:05d}-{secrets.token_hex(8)}.{suffix}"


def _save(path: Path, array: NDArray[Any]) -> None:
    with atomic_file(path) as file, open(file, "wb", closefd=False) as out:
        np.save(out, array)


def _all_kept(n: int) -> NDArray[np.uint8]:
    return np.full(n // 8 + 1, 255, np.uint8)


def _clear(bits: NDArray[np.uint8], at: NDArray[Any]) -> None:
    np.bitwise_and.at(bits, at >> 3, ~(1 << (at & 7)).astype(np.uint8))

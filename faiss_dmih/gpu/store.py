"""The codes of an index on a device: rows, and which ids each row stands for.

Rows are words of 64 bits, zeros beyond d. What was there at the last `compact` comes first, equal
codes stored once with the list of their ids if that saves rows; then the tail, a row for each id
added since. `cuda/lists.cuh` has the kernels' view of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from faiss_dmih.gpu.device import Array, Device

# CuPy's prefix sums and assignments by index count in 32 bits, signed.
MAX_CODES = 2**31 - 4096
# Lists pay when they save a tenth of the rows.
_WORTH_LISTS = 0.9


@dataclass(frozen=True)
class Lists:
    """Ids by slot. `begin` uint32 (slots + 1), `ids` uint32 (n), ascending within a slot, and back:
    `slot_of` uint32 (n). Without lists all three have one element that is not looked at."""

    begin: Array
    ids: Array
    slot_of: Array
    slots: int
    n: int

    @property
    def nbytes(self) -> int:
        return int(self.begin.nbytes + self.ids.nbytes + self.slot_of.nbytes)


class Store:
    """Codes of `code_size` bytes on `device`, which is the current one whenever this is used."""

    def __init__(self, device: Device, code_size: int) -> None:
        self.device = device
        self.code_size = code_size
        self.words = -(-code_size // 8)
        self.clear()

    def clear(self) -> None:
        self.ntotal = 0
        self.slots = 0
        self.main_slots = 0
        """Slots that were there at the last compact."""
        self.rows = self.device.xp.zeros((0, self.words), np.uint64)
        self._no_lists()

    def _no_lists(self) -> None:
        begin, ids, slot_of = (self.device.xp.zeros(1, np.uint32) for _ in range(3))
        self.lists = Lists(begin, ids, slot_of, 0, 0)

    @property
    def kernel_words(self) -> int:
        """The macro kWords of kernels for these rows."""
        return self.words if self.words in (1, 2, 4, 8) else 0

    @property
    def nbytes(self) -> int:
        return int(self.rows.nbytes) + self.lists.nbytes

    def to_rows(self, codes: Array) -> Array:
        """Codes uint8 (n, code_size) as rows uint64 (n, words)."""
        # A copy even where a view would do: kernels read aligned words, callers' slices may not be.
        rows = self.device.xp.zeros((len(codes), self.words), np.uint64)
        self._write(rows, codes)
        return rows

    def _write(self, rows: Array, codes: Array) -> None:
        bytes_ = rows.view(np.uint8).reshape(len(rows), self.words * 8)
        bytes_[:, : self.code_size] = codes

    def to_codes(self, rows: Array) -> Array:
        """The inverse of `to_rows`: a copy."""
        width = self.words * 8
        bytes_ = self.device.xp.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), width)
        return self.device.xp.ascontiguousarray(bytes_[:, : self.code_size])

    def append(self, codes: Array, *, spare: bool = True) -> None:
        """As the newest ids. All or nothing: room for all comes before any change."""
        needed = self.slots + len(codes)
        rows = self._rows_for(needed, spare)
        self._write(rows[self.slots : needed], codes)
        self._now(rows, needed)

    def append_rows(self, new: Array) -> None:
        """The same, of rows."""
        needed = self.slots + len(new)
        rows = self._rows_for(needed, spare=False)
        rows[self.slots : needed] = new
        self._now(rows, needed)

    def _rows_for(self, needed: int, spare: bool) -> Array:
        """The rows, with room for so many; themselves if they have it."""
        if needed <= len(self.rows):
            return self.rows
        grown = self.device.xp.zeros((self._capacity(needed, spare), self.words), np.uint64)
        grown[: self.slots] = self.rows[: self.slots]
        return grown

    def _now(self, rows: Array, slots: int) -> None:
        self.ntotal += slots - self.slots
        self.rows, self.slots = rows, slots

    def _capacity(self, needed: int, spare: bool) -> int:
        """With spare rows, by half as many again: added one by one, each is copied twice or so."""
        return max(needed, self.slots * 3 // 2) if spare else needed

    def growth_bytes(self, n: int, *, spare: bool) -> int:
        """What `append` of n codes will allocate."""
        needed = self.slots + n
        return 0 if needed <= len(self.rows) else self._capacity(needed, spare) * self.words * 8

    def compact(self, *, collapse: bool) -> None:
        """Takes the tail into the main part; `collapse`: equal codes are stored once, if that pays.

        Waits for the device, which alone knows how many codes are distinct.
        """
        xp = self.device.xp
        group, distinct = self._group() if collapse else (None, self.slots)
        if group is None or distinct > _WORTH_LISTS * self.ntotal:
            if self.lists.n > 0:
                rows = self.rows[self.slot_of_ids()]
                self._no_lists()
                self.rows, self.slots = rows, self.ntotal
        else:
            slot_of = group[self.slot_of_ids()]
            ids = self.device.argsort(slot_of).astype(np.uint32)
            begin = xp.searchsorted(slot_of[ids], xp.arange(distinct + 1, dtype=np.uint32))
            rows = self.rows[slot_representatives(xp, group, distinct)]
            self.lists = Lists(begin.astype(np.uint32), ids, slot_of, distinct, self.ntotal)
            self.rows, self.slots = rows, distinct
        self.main_slots = self.slots

    def _group(self) -> tuple[Array, int]:
        """Number of each slot's code among the distinct ones, uint32, and how many there are.

        Slots are sorted by a hash of their codes, neighbours compared. Equal codes between which
        the sort has put another of the same hash stay apart: that costs a row, no answer.
        """
        xp = self.device.xp
        rows = self.rows[: self.slots]
        key = rows[:, 0].copy()
        for word in range(1, self.words):
            key *= np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(29)
            key += rows[:, word]
        order = self.device.argsort(key)
        is_first = xp.ones(self.slots, np.bool_)
        in_order = rows[order]
        is_first[1:] = (in_order[1:] != in_order[:-1]).any(axis=1)
        number = xp.cumsum(is_first, dtype=np.uint32) - np.uint32(1)
        group = xp.empty(self.slots, np.uint32)
        group[order] = number
        distinct = int(number[-1]) + 1 if self.slots else 0
        return group, distinct

    def slot_of_ids(self) -> Array:
        """Of all ids, in order: int64 (ntotal)."""
        xp = self.device.xp
        tail = xp.arange(self.lists.slots, self.slots, dtype=np.int64)
        listed = self.lists.slot_of[: self.lists.n].astype(np.int64)
        return xp.concatenate([listed, tail])

    def rows_of(self, first: int, n: int) -> Array:
        """Rows of the ids [first, first + n): a copy."""
        listed = self.lists.slot_of[first : min(first + n, self.lists.n)]
        begin = max(first - self.lists.n, 0) + self.lists.slots
        tail = self.rows[begin : begin + n - len(listed)]
        return self.device.xp.concatenate([self.rows[listed], tail])

    def rank(self, mask: Array) -> Array:
        """Of a bool mask by id: how many of the places below each are allowed, uint32 (n + 1)."""
        xp = self.device.xp
        by_place = mask
        if self.lists.n > 0:
            by_place = xp.concatenate([mask[self.lists.ids], mask[self.lists.n :]])
        rank = xp.zeros(self.ntotal + 1, np.uint32)
        rank[1:] = xp.cumsum(by_place, dtype=np.uint32)
        return rank

    def list_arguments(self, rank: Array | None) -> tuple[Any, ...]:
        """LISTS_PARAMETERS of cuda/lists.cuh."""
        unused = self.device.xp.zeros(1, np.uint32) if rank is None else rank
        return (
            *(self.lists.begin, self.lists.ids, unused),
            *(np.uint32(self.lists.slots), np.uint32(self.lists.n), np.int32(rank is not None)),
        )


def slot_representatives(xp: Any, group: Array, distinct: int) -> Array:
    """For each group, one of the slots that are in it: int64 (distinct)."""
    one = xp.empty(distinct, np.int64)
    one[group] = xp.arange(len(group), dtype=np.int64)
    return one

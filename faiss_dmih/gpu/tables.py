"""The hash tables of multi-index hashing on a device, addressed directly by substring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from faiss_dmih.gpu.device import Array
from faiss_dmih.gpu.front import Front, make_front, rings
from faiss_dmih.gpu.store import Store


@dataclass(frozen=True)
class Tables:
    """Tables of the first `slots` slots, and the front by which they are probed."""

    cuts: tuple[int, ...]
    slots: int
    front: Front
    offsets: Array
    bucket_slots: Array
    _tables: tuple[Array, Array, Array]
    _steps: tuple[Array, ...]

    @property
    def nbytes(self) -> int:
        return int(self.offsets.nbytes + self.bucket_slots.nbytes)

    def arguments(self, rows: Array, words: int, n_steps: int) -> tuple[Any, ...]:
        """TABLES_PARAMETERS of cuda/probe.cuh."""
        return (
            *(rows, np.uint32(self.slots), np.int32(words), np.int32(len(self.cuts))),
            *(*self._tables, self.offsets, self.bucket_slots),
            *(np.int32(n_steps), *self._steps),
        )


def table_bytes(cuts: tuple[int, ...], slots: int) -> int:
    """What `build` will hold, its work space included."""
    offsets = [4 * ((1 << bits) + 1) for bits in cuts]
    # Beside a table its counts, their squares in float64, and what these are made from.
    return sum(offsets) + 5 * max(offsets) + 4 * slots * len(cuts)


def build(store: Store, cuts: tuple[int, ...], *, greedy: bool) -> Tables:
    """Of the slots that the store's last compact has made. Waits for the device: the order of the
    steps is found on the host, by how the buckets are filled."""
    xp, launcher, n = store.device.xp, store.device.launcher, store.main_slots
    begins = np.cumsum([0, *(2**bits + 1 for bits in cuts)])
    offsets = xp.zeros(int(begins[-1]), np.uint32)
    bucket_slots = xp.empty((len(cuts), n), np.uint32)
    squares = xp.zeros(len(cuts), np.float64)
    count = launcher.kernel("offsets", "bucket_counts", kWords=store.kernel_words)
    fill = launcher.kernel("offsets", "bucket_fill", kWords=store.kernel_words)
    grid = (max(1, min(-(-n // 256), 32 * store.device.multiprocessors)),)
    first = 0
    for j, bits in enumerate(cuts):
        table = offsets[int(begins[j]) : int(begins[j + 1])]
        code = (store.rows, np.int64(n), np.int32(store.words), np.int32(first), np.int32(bits))
        counts = xp.zeros(2**bits, np.uint32)
        count(grid, (256,), (*code, counts))
        squares[j] = (counts.astype(np.float64) ** 2).sum()
        table[1:] = xp.cumsum(counts, dtype=np.uint32)
        cursor = table[:-1].copy()
        fill(grid, (256,), (*code, cursor, bucket_slots[j]))
        first += bits
    # Where a stored code is, so many others are, on the mean.
    others = store.device.to_host(squares) / max(n, 1) - 1
    means = [n / 2.0**bits for bits in cuts]
    skew = [max(float(o) / mean, 1.0) if n else 1.0 for o, mean in zip(others, means, strict=True)]
    front = make_front(cuts, skew, n, greedy=greedy)
    return Tables(
        cuts=cuts,
        slots=n,
        front=front,
        offsets=offsets,
        bucket_slots=bucket_slots,
        _tables=(
            xp.asarray(np.cumsum([0, *cuts[:-1]]).astype(np.int32)),
            xp.asarray(np.array(cuts, np.int32)),
            xp.asarray(begins[:-1].astype(np.int64)),
        ),
        _steps=tuple(xp.asarray(array) for array in _steps(cuts, front)),
    )


def _steps(cuts: tuple[int, ...], front: Front) -> tuple[Any, ...]:
    """Of each step its table, the radii before it, and where its ring lies in the list of flips."""
    where = dict[int, list[int]]()
    flips, length = list[Any](), 0
    for bits in dict.fromkeys(cuts):
        kept = rings(bits)
        where[bits] = [length, *(length + np.cumsum([len(ring) for ring in kept]))]
        flips += kept
        length = where[bits][-1]
    radii = np.full((len(front.steps) + 1, len(cuts)), -1, np.int32)
    for s, (table, radius) in enumerate(front.steps):
        radii[s + 1] = radii[s]
        radii[s + 1, table] = radius
    begins = [where[cuts[table]][radius] for table, radius in front.steps]
    ends = [where[cuts[table]][radius + 1] for table, radius in front.steps]
    return (
        np.array([table for table, _ in front.steps], np.int32),
        radii[:-1],
        np.concatenate(flips).astype(np.uint32),
        np.array(begins, np.uint32),
        np.array(ends, np.uint32),
    )

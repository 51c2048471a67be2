"""Range search on a device.

Its answer has a size that only the device knows, so each batch waits for it: once, or twice after a
probe, and while CuPy 13 sorts. Answers go into a buffer as keys (`cuda/hits.cuh`); if there were
more of them than it holds, the buffer is made large enough and the search is run again, or the
batch is split where memory does not allow that.
"""

from __future__ import annotations

import numpy as np

from faiss_dmih.gpu.device import Array
from faiss_dmih.gpu.knn import THREADS, launch_scan
from faiss_dmih.gpu.planner import Probe
from faiss_dmih.gpu.store import Store
from faiss_dmih.gpu.tables import Tables
from faiss_dmih.gpu.tensor import POPC, Scanner

MAX_BATCH = 1 << 18
"""Numbers of queries are 18 bits of a key."""
# Of a key, sorted beside its copy: the buffer, CuPy's copy and work space, ids, distances.
BYTES_PER_ANSWER = 8 * 4 + 8 + 4
_FIRST_BUFFER = 1 << 20


class RangeSearch:
    """Batches of queries against a store, within `most` bits."""

    def __init__(
        self,
        store: Store,
        most: int,
        rank: Array | None,
        workspace: int,
        scanner: Scanner = POPC,
    ) -> None:
        self.scanner = scanner
        self.store, self.device, self.most = store, store.device, most
        self.lists = store.list_arguments(rank)
        self.allow(workspace)
        self.buffer = min(_FIRST_BUFFER, self.room)

    def allow(self, workspace: int) -> None:
        """So many bytes, from now on."""
        self.room = max(1, workspace // BYTES_PER_ANSWER)

    def run(
        self, queries: Array, tables: Tables | None, probe: Probe | None
    ) -> tuple[Array, Array, Array]:
        """Rows uint64 (nq, words), nq <= MAX_BATCH. Returns counts int64 (nq), D float32 and I
        int64, ids ascending within a query."""
        xp = self.device.xp
        while True:
            keys, total, given_up = self._keys(queries, tables, probe)
            if total <= len(keys):
                break
            if total > self.room:
                return self._halves(queries, tables, probe, total)
            # Batches to come are likely as rich.
            self.buffer = min(total + total // 8, self.room)
        keys = self.device.sort(keys[:total])
        query = (keys >> np.uint64(46)).astype(np.int64)
        if probe is not None:
            # What was found for those who were then scanned for is there twice.
            scanned = (keys & np.uint64(1)).astype(np.bool_)
            kept = xp.flatnonzero(scanned | ~given_up[query])
            keys, query = keys[kept], query[kept]
        limits = xp.searchsorted(query, xp.arange(len(queries) + 1, dtype=np.int64))
        ids = ((keys >> np.uint64(14)) & np.uint64(0xFFFFFFFF)).astype(np.int64)
        distances = ((keys >> np.uint64(1)) & np.uint64(0x1FFF)).astype(np.float32)
        return limits[1:] - limits[:-1], distances, ids

    def _halves(
        self, queries: Array, tables: Tables | None, probe: Probe | None, total: int
    ) -> tuple[Array, Array, Array]:
        if len(queries) == 1 and probe is not None:
            # What was found before probing was given up counts, too: it fits without, perhaps.
            return self.run(queries, None, None)
        if len(queries) == 1:
            raise MemoryError(
                f"a query has {total} codes within {self.most} bits, which takes "
                f"{total * BYTES_PER_ANSWER} bytes of work space, and there are "
                f"{self.room * BYTES_PER_ANSWER}: take a smaller radius, raise memory_budget, or "
                "spread the codes over several devices"
            )
        middle = len(queries) // 2
        parts = [self.run(half, tables, probe) for half in (queries[:middle], queries[middle:])]
        counts, distances, ids = (
            self.device.xp.concatenate(arrays) for arrays in zip(*parts, strict=True)
        )
        return counts, distances, ids

    def _keys(
        self, queries: Array, tables: Tables | None, probe: Probe | None
    ) -> tuple[Array, int, Array]:
        """Unsorted; how many there are, kept or not; and which queries were probed for in vain."""
        xp, nq, store = self.device.xp, len(queries), self.store
        keys = xp.empty(self.buffer, np.uint64)
        total = xp.zeros(1, np.uint64)
        todo = xp.arange(nq, dtype=np.uint32)
        n_todo = xp.full(1, nq, np.uint32)
        given_up = xp.zeros(nq + 1, np.bool_)
        out = (keys, total, np.uint64(len(keys)))

        def scan(first: int, last: int, source: int) -> None:
            rest = (np.int32(self.most), *out, np.uint32(source), *self.lists)
            where = (first, last, queries, todo, n_todo)
            launch_scan(store, self.scanner, "range", *where, rest)

        if tables is None or probe is None:
            scan(0, store.slots, 1)
            return keys, self._number(total), given_up
        # The tail's answers are kept only for those who are not scanned for.
        scan(tables.slots, store.slots, 0)
        n_todo.fill(0)
        kernel = self.device.launcher.kernel(
            "probe_range", "probe_range", kWords=store.kernel_words
        )
        kernel(
            (max(1, min(-(-nq // 8), 64 * self.device.multiprocessors)),),
            (THREADS,),
            (
                *tables.arguments(store.rows, store.words, probe.steps),
                *(queries, np.uint32(nq), np.int32(self.most), np.uint32(probe.items)),
                *(todo, n_todo, *out, np.uint32(0), *self.lists),
            ),
        )
        scan(0, store.slots, 1)
        # Only the device knows how many there are: what is no longer in todo goes to one beyond.
        there = xp.arange(nq, dtype=np.uint32) < n_todo
        given_up[xp.where(there, todo, np.uint32(nq))] = True
        return keys, self._number(total), given_up

    def _number(self, x: Array) -> int:
        return int(self.device.to_host(x)[0])

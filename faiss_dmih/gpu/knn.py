"""k-NN search on a device: which kernels run, on what, and how much at a time.

Nothing here waits for the device, but for CuPy 13's sort, of more answers than a block sorts. What
only the device knows (how many queries probing has left to be scanned for, how many were short of
room) stays there: kernels are started for the most there can be and read the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from faiss_dmih.gpu.device import Array, Device
from faiss_dmih.gpu.planner import Probe
from faiss_dmih.gpu.store import Store
from faiss_dmih.gpu.tables import Tables
from faiss_dmih.gpu.tensor import POPC, Scanner

THREADS = 256
QUERY_TILE = 32
# Entries kept per query: so many and so many for each neighbour asked for, more for small batches.
ROOM, ROOM_PER_K, ROOM_OF_BATCH = 4096, 32, 1 << 20
# The first bound comes from so many rows, a 64th of them if those are fewer.
SAMPLE = 4096
MAX_BATCH = 1 << 18
# Ids of the second look at those that were short of room: at least so many a chunk, in so many.
CHUNK, CHUNKS = 4096, 64


@dataclass(frozen=True)
class Shape:
    """Sizes of a k-NN search of a store. `k`: no more than there are ids."""

    d: int
    k: int
    columns: int
    slots: int
    ntotal: int

    def capacity(self, nq: int) -> int:
        """Entries kept per query: all there can be, or so many that more are rare."""
        return min(self.slots, max(ROOM, ROOM_PER_K * self.k, ROOM_OF_BATCH // nq))

    def sample(self, nq: int, rows_under_way: int) -> int:
        """Rows to be counted for the first bounds; 0: too few to tell.

        The rows that are under way at a time (of all blocks with the same queries) meet the first
        bound; they shall take a quarter of the room at most.
        """
        room = 4 * self.k * rows_under_way // self.capacity(nq)
        wanted = max(min(SAMPLE, self.slots // 64), 8 * self.k, room)
        sample = min(wanted, self.slots // 2) // THREADS * THREADS
        return sample if sample >= 2 * self.k else 0

    def chunks(self) -> int:
        return max(1, min(CHUNKS, self.ntotal // CHUNK))

    def bytes_per_query(self, nq: int, sorted_by_block: bool) -> int:
        """Work space, for batches of nq queries."""
        state = 4 * (self.d + 1) + 4 * 9 + 4 * self.chunks()
        # Keys, and what sorting them takes.
        keys = 0 if sorted_by_block else 3 * 8 * self.k
        return state + 8 * self.capacity(nq) + keys


def batch_size(device: Device, shape: Shape, nq: int, workspace: int) -> int:
    """Queries that are searched for at a time. Raises MemoryError where none fit."""
    sorted_by_block = shape.k <= device.unsorted_k
    batch = min(nq, MAX_BATCH)
    while batch > 1 and batch * shape.bytes_per_query(batch, sorted_by_block) > workspace:
        batch = batch // 2
    needed = batch * shape.bytes_per_query(batch, sorted_by_block)
    if batch == 1 and needed > workspace:
        raise MemoryError(
            f"k = {shape.k} of {shape.ntotal} codes needs {needed} bytes of work space for a "
            f"single query, and there are {workspace}: search for fewer, raise memory_budget, or "
            "spread the codes over several devices"
        )
    return batch


class KnnSearch:
    """One batch of queries, rows uint64 (nq, words), against a store."""

    def __init__(
        self,
        store: Store,
        shape: Shape,
        queries: Array,
        rank: Array | None,
        scanner: Scanner = POPC,
    ) -> None:
        self.device, self.store, self.shape, self.queries = store.device, store, shape, queries
        self.scanner = scanner
        xp, nq = self.device.xp, len(queries)
        self.nq = nq
        self.capacity = shape.capacity(nq)
        self.lists = store.list_arguments(rank)
        self.todo = xp.arange(nq, dtype=np.uint32)
        self.n_todo = xp.full(1, nq, np.uint32)
        self.found = (
            xp.empty((nq, shape.d + 1), np.uint32),
            xp.empty(nq, np.int32),
            xp.empty(nq, np.uint32),
            xp.empty((nq, self.capacity), np.uint64),
            np.int32(shape.d),
            np.uint32(self.capacity),
        )
        self.kth = xp.empty(nq, np.int32)
        self.below = xp.empty(nq, np.uint32)
        self.at = xp.empty(nq, np.uint32)
        self.is_short = xp.zeros(nq, np.uint32)
        self.short_of_room = xp.empty(nq, np.uint32)
        self.n_short = xp.zeros(1, np.uint32)

    def run(self, tables: Tables | None, probe: Probe | None, D: Array, I: Array) -> Array | None:
        """Into D int32 and I int64 (nq, columns). Returns how many queries were probed for in
        vain, uint32 (1) on the device; None if none were."""
        given_up = None
        if tables is not None and probe is not None:
            self._probe(tables, probe)
            given_up = self.n_todo
        self._scan()
        self._answer(D, I)
        return given_up

    def _per_query(self) -> tuple[int, ...]:
        """A grid of a warp per query."""
        return (max(1, min(-(-self.nq // 8), 16 * self.device.multiprocessors)),)

    def _begin(self, most: int) -> None:
        begin = self.device.launcher.kernel("knn", "knn_begin")
        begin(self._per_query(), (THREADS,), (self.todo, self.n_todo, np.int32(most), *self.found))

    def _scan_range(self, first: int, last: int) -> None:
        """The slots [first, last), by the bounds there are."""
        launch_scan(
            *(self.store, self.scanner, "knn"),
            *(first, last, self.queries, self.todo, self.n_todo),
            (np.uint32(self.shape.k), *self.found, *self.lists),
        )

    def _scan(self) -> None:
        device, shape = self.device, self.shape
        self._begin(shape.d)
        sample = shape.sample(self.nq, rows_under_way(self.store, self.scanner, self.nq))
        if sample:
            # As many queries at a time as have their counters in shared memory.
            counters = 4 * (shape.d + 1)
            tile = max(1, min(QUERY_TILE, 40 * 1024 // counters))
            tiles = -(-self.nq // tile)
            split = max(1, min(sample // THREADS, 4 * device.multiprocessors // tiles))
            kernel = device.launcher.kernel(
                "scan_knn", "scan_sample", kWords=self.store.kernel_words
            )
            kernel(
                (min(tiles, 8 * device.multiprocessors), split),
                (THREADS,),
                (
                    *work_arguments(
                        self.store, 0, self.store.slots, self.queries, self.todo, self.n_todo
                    ),
                    *(np.uint32(sample), np.int32(tile), self.found[0], np.int32(shape.d)),
                    *self.lists,
                ),
                shared=tile * counters,
            )
            bounds = device.launcher.kernel("knn", "knn_first_bounds")
            bounds(
                self._per_query(),
                (THREADS,),
                (self.todo, self.n_todo, np.uint32(shape.k), *self.found),
            )
        self._scan_range(0, self.store.slots)
        finish = device.launcher.kernel("knn", "knn_finish")
        finish(
            self._per_query(),
            (THREADS,),
            (
                *(self.todo, self.n_todo, np.uint32(shape.k), *self.found),
                *(self.kth, self.below, self.at),
                *(self.is_short, self.short_of_room, self.n_short),
            ),
        )
        if self.capacity < shape.slots:
            self._look_again()

    def _look_again(self) -> None:
        """For those that were short of room: cuda/exact.cu."""
        xp, store, shape = self.device.xp, self.store, self.shape
        chunks = shape.chunks()
        ids = (
            *(store.rows, store.lists.slot_of, np.int32(store.words), np.uint32(shape.ntotal)),
            *(np.uint32(-(-shape.ntotal // chunks)), self.queries),
            *(self.short_of_room, self.n_short),
        )
        ties = xp.empty((self.nq, chunks), np.uint32)
        taken = xp.zeros(self.nq, np.uint32)
        grid = (min(self.nq, 2 * self.device.multiprocessors), chunks)
        words = store.kernel_words
        count = self.device.launcher.kernel("exact", "exact_ties", kWords=words)
        count(grid, (THREADS,), (*ids, self.kth, ties, *self.lists))
        take = self.device.launcher.kernel("exact", "exact_entries", kWords=words)
        found = (np.uint32(shape.k), self.kth, self.below, self.at, ties, taken)
        take(grid, (THREADS,), (*ids, *found, *self.found, *self.lists))

    def _probe(self, tables: Tables, probe: Probe) -> None:
        """Leaves in todo those that are to be scanned for."""
        store, shape, device = self.store, self.shape, self.device
        counters = shape.d + 1 if probe.all_seen else min(probe.steps, shape.d + 1)
        # Codes farther than steps are seen can be part of no answer: the scan of the tail, too,
        # leaves them out.
        self._begin(counters - 1)
        self._scan_range(tables.slots, store.slots)
        self.n_todo.fill(0)
        warps = max(1, min(8, device.shared_memory // (4 * counters)))
        kernel = device.launcher.kernel("probe_knn", "probe_knn", kWords=store.kernel_words)
        kernel(
            (max(1, min(-(-self.nq // warps), 64 * device.multiprocessors)),),
            (32 * warps,),
            (
                *tables.arguments(store.rows, store.words, probe.steps),
                *(self.queries, np.uint32(self.nq), np.uint32(shape.k), np.int32(counters)),
                *(np.int32(probe.all_seen), np.uint32(probe.items)),
                *(self.kth, self.below, self.at, self.todo, self.n_todo),
                *(*self.found, *self.lists),
            ),
            shared=4 * counters * warps,
        )

    def _answer(self, D: Array, I: Array) -> None:
        device, shape = self.device, self.shape
        which = (self.kth, self.below, self.at, self.is_short, np.uint32(shape.k))
        if shape.k <= device.unsorted_k:
            places = 1 << (shape.k - 1).bit_length()
            kernel = device.launcher.kernel("answers", "answers_sorted")
            kernel(
                (self.nq,),
                (THREADS,),
                (
                    *(*which, np.uint32(places), np.int64(shape.columns), D, I),
                    *(*self.found, *self.lists),
                ),
                shared=8 * places,
            )
            return
        xp = device.xp
        put = xp.zeros(self.nq, np.uint32)
        keys = xp.empty((self.nq, shape.k), np.uint64)
        kernel = device.launcher.kernel("answers", "answers_keys")
        kernel((self.nq,), (THREADS,), (*which, put, keys, *self.found, *self.lists))
        ordered = device.sort(keys.reshape(-1))
        write = device.launcher.kernel("answers", "answers_write")
        blocks = max(1, min(-(-self.nq * shape.columns // THREADS), 32 * device.multiprocessors))
        sizes = (np.uint32(shape.k), np.int64(shape.columns), np.int64(self.nq))
        write((blocks,), (THREADS,), (ordered, *sizes, D, I))


def work_arguments(
    store: Store, first: int, last: int, queries: Array, todo: Array, n_todo: Array
) -> tuple[Any, ...]:
    """WORK_PARAMETERS of cuda/scan.cuh."""
    return (
        *(store.rows, np.uint32(first), np.uint32(last), np.int32(store.words)),
        *(queries, todo, n_todo),
    )


def rows_under_way(store: Store, scanner: Scanner, nq: int) -> int:
    """Of a scan, for each of nq queries."""
    blocks = -(-scanner.blocks * store.device.multiprocessors // -(-nq // scanner.queries))
    return blocks * scanner.rows(store.words)


def launch_scan(
    store: Store,
    scanner: Scanner,
    what: str,
    first: int,
    last: int,
    queries: Array,
    todo: Array,
    n_todo: Array,
    rest: tuple[Any, ...],
) -> None:
    """Of the slots [first, last); what: "knn" or "range". `rest`: the kernel's parameters after
    WORK_PARAMETERS."""
    if first == last:
        return
    device, rows = store.device, scanner.rows(store.words)
    blocks = -(-(last - first) // rows) * -(-len(queries) // scanner.queries)
    name = f"{scanner.name}_{what}"
    kernel = device.launcher.kernel(name, name, kWords=scanner.kernel_words(store.words))
    kernel(
        (max(1, min(blocks, scanner.blocks * device.multiprocessors)),),
        (scanner.threads,),
        (*work_arguments(store, first, last, queries, todo, n_todo), *rest),
        shared=scanner.shared_bytes(store.words),
    )

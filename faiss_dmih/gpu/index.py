"""GpuIndexDMIH, the index on a CUDA device."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from faiss_dmih import gpu_counters
from faiss_dmih.codes import check_codes, check_layout
from faiss_dmih.gpu import masks, tables
from faiss_dmih.gpu.device import Array, CudaDevice, Device
from faiss_dmih.gpu.front import cheapest_cuts
from faiss_dmih.gpu.knn import KnnSearch, Shape, batch_size
from faiss_dmih.gpu.planner import Planner, Probe
from faiss_dmih.gpu.range_search import MAX_BATCH, RangeSearch
from faiss_dmih.gpu.store import MAX_CODES, Store
from faiss_dmih.gpu.tensor import POPC, Scanner
from faiss_dmih.options import (
    GPU_ENGINES,
    check_budget,
    check_cuts,
    check_engine,
    check_mode,
    paper_cuts,
)
from faiss_dmih.python_index import PythonIndexBinary

if TYPE_CHECKING:
    from faiss_dmih.index import IndexDMIH

# Recent adds are scanned beside the tables, until there are so many, and so large a part of all.
_TAIL = 65536
_TAIL_SHARE = 4
# Fewer codes than this are cut as this many: tables of a bit or two are no use.
_FEW = 4096
# Work space of a search, where memory_budget does not say less.
_WORKSPACE = 1 << 30


def open_device(number: int) -> Device:
    return CudaDevice(number)


class GpuIndexDMIH(PythonIndexBinary):
    """IndexDMIH on a CUDA device: the same answers, bit for bit.

    Codes and queries are numpy arrays, torch tensors, CuPy arrays, or anything that speaks DLPack
    or ``__cuda_array_interface__``. What is in host memory is copied and answered by numpy arrays.
    What is on the device is answered on the device, by torch tensors to torch and otherwise by CuPy
    arrays, on the caller's current stream; ``search`` then returns without waiting for the device,
    up to k = 2048 with any CuPy and above with CuPy 14. ``range_search`` waits to learn the size of
    its answer, and ``add``, ``remove_ids`` and ``compact`` do where they rebuild. The first batch
    that is scanned on tensor cores waits, too: their kernels are compared with the others before
    they are used. Streams need no care but for the caller's own arrays: searches see all changes
    made before them.

    Where FAISS is installed this is a ``faiss.IndexBinary``, and FAISS's composites hold it. The
    engine is CuPy (``pip install 'faiss-dmih[cuda13]'``); codes of one index are on one device:
    ``GpuShards`` and ``GpuReplicas`` take several. Searches may run side by side; whatever changes
    the index must not run beside anything else.

    Args:
        d: bits of a code, a multiple of 8 in [8, 4096].
        device: number of the CUDA device.
        cuts: substring lengths, as for ``IndexDMIH``.
        mode: ``"auto"``: distinct codes stored once, hash tables, scan, and a planner. ``"mih"``:
            hash tables probed in the papers' order, equal codes kept apart. ``"scan"``: no tables.
        memory_budget: bytes of device memory that the index may hold and work in; by default all
            that is free. Tables that do not fit are left out, searches that do not are made in
            smaller batches.

    Raises:
        ValueError, TypeError: for arguments that are none of the above.
        ImportError: CuPy is not installed.
        RuntimeError: there is no GPU.
    """

    def __init__(
        self,
        d: int,
        *,
        device: int = 0,
        cuts: Sequence[int] | None = None,
        mode: str = "auto",
        memory_budget: int | None = None,
    ) -> None:
        super().__init__(d)
        self._cuts = check_cuts(cuts, self.d)
        self._mode = check_mode(mode)
        self._memory_budget = check_budget(memory_budget)
        self._device = open_device(operator.index(device))
        self._planner = Planner(self._device)
        self._tables: tables.Tables | None = None
        with self._device.changing():
            self._store = Store(self._device, self.code_size)

    @property
    def ntotal(self) -> int:
        """Number of codes held."""
        return self._store.ntotal

    @property
    def device(self) -> int:
        """Number of the CUDA device."""
        return self._device.number

    @property
    def on_device(self) -> Device:
        """Where the index is, for those who work on its answers there."""
        return self._device

    @property
    def mode(self) -> str:
        """``"auto"``, ``"mih"`` or ``"scan"``, as given."""
        return self._mode

    @property
    def memory_budget(self) -> int | None:
        """Bytes of device memory that the index may hold and work in, as given."""
        return self._memory_budget

    @property
    def cuts(self) -> tuple[int, ...] | None:
        """Substring lengths in bits: those given, otherwise those of the tables; None without."""
        if self._cuts is None and self._tables is not None:
            return self._tables.cuts
        return self._cuts

    def train(self, x: Any) -> None:
        """Does nothing but check ``x`` (n, d/8) uint8: the index is trained from the start."""
        with self._device.reading(x):
            self._codes(x, "x", copied=False)

    def add(self, x: Any) -> None:
        """Adds codes ``x`` (n, d/8) uint8; their ids are ntotal, ntotal + 1, ...

        Either all are added or, on an exception, none.

        Raises:
            TypeError, ValueError: ``x`` is not uint8 of that shape, or is on another device.
            MemoryError: the codes do not fit the device or ``memory_budget``.
            RuntimeError: there would be more than 2^31 - 4096 codes.
        """
        with self._device.changing(x):
            codes = self._codes(x, "x")
            if len(codes) > MAX_CODES - self.ntotal:
                raise RuntimeError(
                    f"an index holds at most {MAX_CODES} codes, got {self.ntotal} + {len(codes)}: "
                    "spread them over GpuShards"
                )
            self._append(codes)
            self._changed()
            tail = self._store.slots - self._store.main_slots
            if self._mode != "scan" and tail > max(_TAIL, self._store.main_slots // _TAIL_SHARE):
                self._rebuild()

    def compact(self) -> None:
        """Takes all codes into the hash tables, however few they are.

        Adds do this by themselves when enough codes have come; one call after the last of many adds
        gives the speed of a single one.
        """
        with self._device.changing():
            self._rebuild()

    def search(self, x: Any, k: int, *, params: Any = None, mask: Any = None) -> tuple[Any, Any]:
        """The k nearest codes of each query.

        Args:
            x: queries (nq, d/8) uint8.
            k: neighbours per query, at least 1; there is no upper limit.
            params: ``faiss.SearchParameters(sel=...)`` restricts the ids that may be answered.
            mask: the same as a bool array (ntotal,), in host or device memory.

        Returns:
            Distances D (nq, k) int32 and ids I (nq, k) int64, rows ordered by (distance, id); of
            codes tied at the k-th distance the smallest ids. Where there are fewer than k codes,
            2147483647 and -1. On the device if ``x`` is.

        Raises:
            TypeError, ValueError: ``x``, ``k`` or ``mask`` is none of the above.
            MemoryError: not even a single query fits.
        """
        k = check_k(k)
        with self._device.reading(x):
            xp, to_host = self._device.xp, self._device.to_host
            queries, rank = self._codes(x, "x", copied=False), self._rank(params, mask)
            on_host = isinstance(queries, np.ndarray) and not self._device.owns(x)
            out = np if on_host else xp
            D, I = out.empty((len(queries), k), np.int32), out.empty((len(queries), k), np.int64)
            for first, last, batch in self._batches(queries, k):
                here = (last - first, k)
                if not on_host:
                    self._knn(batch, rank, D[first:last], I[first:last])
                else:
                    d, i = xp.empty(here, np.int32), xp.empty(here, np.int64)
                    self._knn(batch, rank, d, i)
                    D[first:last], I[first:last] = to_host(d), to_host(i)
            return (D, I) if on_host else (self._device.like(x, D), self._device.like(x, I))

    def range_search(
        self, x: Any, thresh: int, *, params: Any = None, mask: Any = None
    ) -> tuple[Any, Any, Any]:
        """All codes at a distance below ``thresh`` of each query.

        Args:
            x: queries (nq, d/8) uint8.
            thresh: bits; distances are strictly below it.
            params, mask: as for ``search``.

        Returns:
            ``(lims, D, I)``: the answers of query i are ``D[lims[i]:lims[i + 1]]`` float32 and
            ``I[lims[i]:lims[i + 1]]`` int64, ids ascending; lims is (nq + 1,) uint64 (int64 for
            torch). On the device if ``x`` is.

        Raises:
            TypeError, ValueError: as ``search``.
            MemoryError: the answers of a single query do not fit.
        """
        thresh = min(operator.index(thresh), self.d + 1)
        with self._device.reading(x):
            xp, device = self._device.xp, self._device
            queries, rank = self._codes(x, "x", copied=False), self._rank(params, mask)
            on_host = isinstance(queries, np.ndarray) and not device.owns(x)
            out = np if on_host else xp
            parts: list[tuple[Any, Any, Any]] = [
                (out.empty(0, np.int64), out.empty(0, np.float32), out.empty(0, np.int64))
            ]
            if thresh > 0 and self.ntotal > 0:
                search = RangeSearch(self._store, thresh - 1, rank, self._workspace())
                for first in range(0, len(queries), MAX_BATCH):
                    batch = xp.asarray(queries[first : first + MAX_BATCH])
                    counts, D, I = self._range(search, batch, thresh)
                    if on_host:
                        counts, D, I = (device.to_host(array) for array in (counts, D, I))
                    parts.append((counts, D, I))
            else:
                parts.append((out.zeros(len(queries), np.int64), *parts[0][1:]))
            counts, D, I = (out.concatenate(arrays) for arrays in zip(*parts, strict=True))
            lims = out.zeros(len(queries) + 1, np.uint64)
            lims[1:] = out.cumsum(counts, dtype=np.uint64)
            if on_host:
                return lims, D, I
            return device.like(x, lims), device.like(x, D), device.like(x, I)

    def reset(self) -> None:
        """Removes all codes."""
        with self._device.changing():
            self._store.clear()
            self._tables = None
        self._changed()

    def remove_ids(self, ids: Any) -> int:
        """Removes codes by id; the ids of later codes move down, as in ``IndexBinaryFlat``.

        Args:
            ids: int array; ids that there are not are ignored. Or a ``faiss.IDSelector``.

        Returns:
            how many codes were removed.
        """
        with self._device.changing(ids):
            xp = self._device.xp
            keep = masks.kept(self._device, ids, self.ntotal)
            kept = xp.flatnonzero(keep)
            removed = self.ntotal - len(kept)
            if removed == 0:
                return 0
            smaller = Store(self._device, self.code_size)
            rows = self._store.rows[self._store.slot_of_ids()[kept]]
            smaller.append_rows(rows)
            had_tables = self._store.main_slots > 0
            self._store, self._tables = smaller, None
            self._changed()
            if had_tables:
                self._rebuild()
            return removed

    def reconstruct(self, key: int) -> Any:
        """The code of an id, numpy uint8 (d/8,). Raises ValueError where there is none."""
        return self.reconstruct_n(key, 1)[0]

    def reconstruct_n(self, i0: int = 0, ni: int = -1) -> Any:
        """The codes of the ids [i0, i0 + ni), numpy uint8 (ni, d/8); with ni = -1 up to the last.

        Raises:
            ValueError: some of these ids are not in [0, ntotal).
        """
        first = operator.index(i0)
        n = self.ntotal - first if ni == -1 else operator.index(ni)
        if first < 0 or n < 0 or first + n > self.ntotal:
            raise ValueError(
                f"ids [{first}, {first + n}) are not in [0, ntotal = {self.ntotal}): ask for ids "
                "that the index has"
            )
        with self._device.reading():
            return self._device.to_host(self._store.to_codes(self._store.rows_of(first, n)))

    def to_cpu(self) -> IndexDMIH:
        """A copy in host memory, with the same cuts and mode. Needs FAISS."""
        from faiss_dmih.index import IndexDMIH

        index = IndexDMIH(self.d, cuts=self._cuts, mode=self._mode)
        index.add(self.reconstruct_n())
        return index

    def memory_usage(self) -> dict[str, int]:
        """Bytes held on the device, by part: codes (distinct ones and room to grow), ids (which
        code is whose), tables, total.
        """
        parts = {
            "codes": int(self._store.rows.nbytes),
            "ids": self._store.lists.nbytes,
            "tables": self._tables.nbytes if self._tables is not None else 0,
        }
        return {**parts, "total": sum(parts.values())}

    def force_engine(self, engine: str) -> None:
        """For tests and ablations: one engine alone, or ``"auto"``, the planner.

        ``"probe"``: hash tables; ``"scan"``: population counts; ``"tensor"``: tensor cores, where
        searches raise RuntimeError if the device has none that fit, and say why.
        """
        self._planner = Planner(self._device, check_engine(engine, GPU_ENGINES))

    # What follows runs with the device active.

    def _codes(self, x: Any, name: str, *, copied: bool = True) -> Any:
        """Codes as an array of the device; those of the host as one of numpy unless `copied`."""
        if self._device.owns(x):
            codes = self._device.array_of(x, name)
            check_layout(codes, self.code_size, name)
            return codes
        codes = check_codes(x, self.code_size, name)
        # Blocking: CuPy would read pinned memory later, when the caller may have changed it.
        return self._device.xp.asarray(codes, blocking=True) if copied else codes

    def _rank(self, params: Any, mask: Any) -> Array | None:
        allowed = masks.allowed(self._device, params, mask, self.ntotal)
        return None if allowed is None else self._store.rank(allowed)

    def _held(self) -> int:
        return self.memory_usage()["total"]

    def _append(self, codes: Array) -> None:
        budget, store = self._memory_budget, self._store
        needed = store.growth_bytes(len(codes), spare=False)
        if budget is not None and needed + self._held() > budget and self._tables is not None:
            self._tables = None  # answers do without
        if budget is not None and needed + self._held() > budget:
            raise MemoryError(
                f"adding {len(codes)} codes to {self.ntotal} needs {needed} bytes beside the "
                f"{self._held()} held, and memory_budget is {budget}: raise it, or spread the "
                "codes over GpuShards"
            )
        with_spare = self._held() + store.growth_bytes(len(codes), spare=True)
        try:
            store.append(codes, spare=budget is None or with_spare <= budget)
        except MemoryError as error:
            raise MemoryError(
                f"adding {len(codes)} codes to {self.ntotal} needs {needed} bytes on device "
                f"{self.device}, of which {self._device.free_memory()} are free: free some, or "
                "spread the codes over GpuShards"
            ) from error

    def _rebuild(self) -> None:
        """Tables of all codes, as far as memory allows: answers do without."""
        if self.ntotal == 0:
            return
        self._tables = None
        try:
            self._store.compact(collapse=self._mode == "auto")
            if self._mode == "scan":
                return
            slots = self._store.main_slots
            choose = cheapest_cuts if self._mode == "auto" else paper_cuts
            cuts = self._cuts or choose(self.d, max(slots, _FEW))
            needed = tables.table_bytes(cuts, slots)
            if self._memory_budget is None or needed + self._held() <= self._memory_budget:
                self._tables = tables.build(self._store, cuts, greedy=self._mode == "auto")
        except MemoryError:
            # What there is stays, without tables.
            self._store.main_slots = self._store.slots

    def _workspace(self) -> int:
        if self._memory_budget is None:
            return _WORKSPACE
        return max(0, min(_WORKSPACE, self._memory_budget - self._held()))

    def _batches(self, queries: Any, k: int) -> Iterator[tuple[int, int, Any]]:
        """First and last query of each batch, and the batch on the device."""
        shape = self._shape(k)
        step = len(queries)
        if shape is not None and step > 0:
            step = self._batch_size(shape, step)
        for first in range(0, len(queries), max(step, 1)):
            last = min(first + step, len(queries))
            yield first, last, self._device.xp.asarray(queries[first:last])

    def _batch_size(self, shape: Shape, nq: int) -> int:
        try:
            return batch_size(self._device, shape, nq, self._workspace())
        except MemoryError:
            if self._memory_budget is not None:
                raise
            return batch_size(self._device, shape, nq, self._device.free_memory())

    def _shape(self, k: int) -> Shape | None:
        if self.ntotal == 0:
            return None
        return Shape(self.d, min(k, self.ntotal), k, self._store.slots, self.ntotal)

    def _knn(self, codes: Array, rank: Array | None, D: Array, I: Array) -> None:
        shape = self._shape(D.shape[1])
        if shape is None:
            D.fill(np.iinfo(np.int32).max)
            I.fill(-1)
            return
        store = self._store
        queries = store.to_rows(codes)
        scanner = self._planner.scanner(store, "knn", len(queries))
        sizes = (store.slots, store.words, len(queries))
        probe = self._planner.knn(self._tables, *sizes, scanner)
        given_up = KnnSearch(store, shape, queries, rank, scanner).run(self._tables, probe, D, I)
        _count(len(queries), scanner, probe)
        if given_up is not None:
            self._planner.tell(len(queries), given_up)

    def _range(self, search: RangeSearch, codes: Array, thresh: int) -> tuple[Array, Array, Array]:
        store = self._store
        queries = store.to_rows(codes)
        search.scanner = scanner = self._planner.scanner(store, "range", len(queries))
        sizes = (store.slots, store.words, len(queries))
        probe = self._planner.range(self._tables, *sizes, thresh, scanner)
        _count(len(queries), scanner, probe)
        try:
            return search.run(queries, self._tables, probe)
        except MemoryError:
            if self._memory_budget is not None:
                raise
            search.allow(self._device.free_memory())
            return search.run(queries, self._tables, probe)


def _count(nq: int, scanner: Scanner, probe: Probe | None) -> None:
    gpu_counters.scanned("popc" if scanner is POPC else scanner.name.removeprefix("scan_"), nq)
    if probe is not None:
        gpu_counters.scanned("probe", nq)


def check_k(k: int) -> int:
    """`k` as an int, if it is at least 1."""
    k = operator.index(k)
    if k < 1:
        raise ValueError(f"got k = {k}, expected at least 1")
    return k

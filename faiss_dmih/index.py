"""IndexDMIH, the Python face of the native index, and what is set or counted process-wide."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray

from faiss_dmih import _engine, gpu_counters
from faiss_dmih._index_binary import IndexBinary, SearchParameters
from faiss_dmih.codes import check_d, host_array
from faiss_dmih.options import check_budget, check_cuts, check_engine, check_mode
from faiss_dmih.partition import Partition, check_strategy, default_strategy, learned

if TYPE_CHECKING:
    from faiss_dmih.gpu import GpuIndexDMIH


class SearchParametersDMIH(SearchParameters):
    """How ``IndexDMIH.search`` and ``range_search`` are to search, also within FAISS's composites.

    Args:
        sel: a ``faiss.IDSelector`` of the ids that may be answered.
        max_codes: where it is positive, the search is approximate: at most so many codes are
            compared with a query, and the best found is answered, ordered as always. More codes
            never make an answer worse, and as many as such a search compares without a limit make
            it exact; ``stats()["visited"]`` counts them. The same index gives the same answer
            every time.

    Raises:
        TypeError: ``max_codes`` is no integer.

    >>> index = IndexDMIH(64)
    >>> index.add(np.zeros((9000, 8), dtype=np.uint8))
    >>> D, I = index.search(index.reconstruct_n(0, 1), 1, params=SearchParametersDMIH(max_codes=5))
    >>> D.tolist(), I.tolist()
    ([[0]], [[0]])
    """

    def __init__(self, sel: Any = None, max_codes: int = 0) -> None:
        self.this = _engine.make_search_parameters()
        if sel is not None:
            self.sel = sel
        self.max_codes = max_codes

    @property
    def max_codes(self) -> int:
        """Codes that may be compared with a query; not positive: all that are needed."""
        return _engine.max_codes(self)

    @max_codes.setter
    def max_codes(self, n: SupportsIndex) -> None:
        _engine.set_max_codes(self, min(operator.index(n), 2**63 - 1))


class IndexDMIH(IndexBinary):
    """Exact Hamming k-NN and range search over packed binary codes.

    A C++ class derived from ``faiss::IndexBinary``: everything in FAISS that holds a binary index
    (``IndexBinaryIDMap2``, ``IndexBinaryShards``, ``IndexBinaryReplicas``, ``IndexBinaryIVF`` as
    quantizer) holds this one. Answers are those of ``faiss.IndexBinaryFlat``, bit for bit: k-NN
    ordered by (distance, id), range results ascending by id within a query. The number of threads
    is that of ``faiss.omp_set_num_threads``.

    Codes are numpy arrays, torch CPU tensors or whatever else lies in host memory and speaks
    numpy's or DLPack's protocol. They are read where they lie, without a copy, if they are
    C-contiguous uint8. Results are numpy arrays in any case.

    Everything may be called from any thread. Searches run side by side; ``add``, ``remove_ids``,
    ``merge_from``, ``compact`` and ``reset`` wait until those under way have ended, and searches
    that come meanwhile wait for them: a search sees the index before a change or after it, never
    half-way. A change either happens or, on any exception, leaves the index as it was. Ctrl-C ends
    searches and changes (on the main thread) within some hundredths of a second; one that comes
    when a change is being put in place is raised after it.

    Args:
        d: bits of a code, a multiple of 8 in [8, 4096]. Or a ``faiss.IndexBinaryFlat``, whose codes
            the index then begins with.
        cuts: lengths in bits of the consecutive substrings that the hash tables are made of; they
            sum to d, each in [1, 26]. An encoder trained for certain substrings gives its own.
            By default floor(d / log2(n)) nearly equal ones for n codes, as in the papers, more
            where they would be too long to be addressed directly.
        mode: ``"auto"``: distinct codes stored once, hash tables, SIMD scan, and a planner that
            picks per query. ``"mih"``: plain multi-index hashing as in the papers (for comparison).
            ``"scan"``: the SIMD scan alone, nothing but the codes in memory.
        memory_budget: bytes that the hash tables may take (mode ``"auto"``); tables beyond it are
            not built. Answers stay exact, far neighbours are then found by scanning.

    Raises:
        ValueError, TypeError: for arguments that are none of the above.

    >>> import numpy as np
    >>> xb = np.array([[0b0000], [0b0001], [0b0011]], dtype=np.uint8)
    >>> index = IndexDMIH(8)
    >>> index.add(xb)
    >>> D, I = index.search(np.array([[0b0010]], dtype=np.uint8), k=3)
    >>> D.tolist(), I.tolist()
    ([[1, 1, 2]], [[0, 2, 1]])
    >>> lims, D, I = index.range_search(np.array([[0b0010]], dtype=np.uint8), 2)
    >>> I.tolist()
    [0, 2]
    """

    def __init__(
        self,
        d: int | faiss.IndexBinaryFlat,
        *,
        cuts: Sequence[int] | None = None,
        mode: str = "auto",
        memory_budget: int | None = None,
    ) -> None:
        flat = faiss.downcast_IndexBinary(d) if isinstance(d, faiss.IndexBinary) else None
        if flat is not None and not isinstance(flat, faiss.IndexBinaryFlat):
            raise TypeError(
                f"got a {type(flat).__name__}, expected a number of bits or a faiss.IndexBinaryFlat"
            )
        d = check_d(d if flat is None else flat.d)
        mode = check_mode(mode)
        checked_cuts = check_cuts(cuts, d)
        memory_budget = _check_budget(memory_budget, mode)
        self.this = _engine.make(d, mode, list(checked_cuts or ()), memory_budget)
        self._cuts = checked_cuts
        self._mode = mode
        self._memory_budget = memory_budget
        if flat is not None and flat.ntotal > 0:
            codes = faiss.rev_swig_ptr(flat.xb.data(), flat.ntotal * flat.code_size)
            self.add(codes.reshape(flat.ntotal, flat.code_size))

    @classmethod
    def _of(cls, this: Any) -> IndexDMIH:
        """The Python face of a native index that there is already."""
        index = cls.__new__(cls)
        index.this = this
        _, index._mode, cuts, index._memory_budget, _ = _engine.options(this)
        index._cuts = cuts or None
        return index

    @classmethod
    def _opened(cls, this: Any, faulty: int) -> IndexDMIH:
        """The same for one out of a file, of which so many segments were not whole."""
        index = cls._of(this)
        if faulty:
            what = (
                "are searched by a scan: read the file in full to build them anew"
                if index.mapped
                else "have been built anew: write the index again to be rid of it"
            )
            warnings.warn(
                f"{faulty} segments of the index were damaged or not whole, and {what}",
                RuntimeWarning,
                stacklevel=3,
            )
        return index

    @classmethod
    def from_flat(
        cls,
        flat: faiss.IndexBinaryFlat,
        *,
        cuts: Sequence[int] | None = None,
        mode: str = "auto",
        memory_budget: int | None = None,
    ) -> IndexDMIH:
        """An index of the same codes, the same as ``IndexDMIH(flat)``; TypeError for other
        indexes.

        >>> flat = faiss.IndexBinaryFlat(64)
        >>> flat.add(np.zeros((3, 8), np.uint8))
        >>> IndexDMIH.from_flat(flat).ntotal
        3
        """
        if not isinstance(flat, faiss.IndexBinary):
            raise TypeError(f"got a {type(flat).__name__}, expected a faiss.IndexBinaryFlat")
        return cls(flat, cuts=cuts, mode=mode, memory_budget=memory_budget)

    def to_flat(self) -> faiss.IndexBinaryFlat:
        """A ``faiss.IndexBinaryFlat`` of the same codes."""
        flat = faiss.IndexBinaryFlat(self.d)
        at_once = 1 << 20
        for first in range(0, self.ntotal, at_once):
            flat.add(self.reconstruct_n(first, min(at_once, self.ntotal - first)))
        return flat

    def copy(self) -> IndexDMIH:
        """A copy in memory, of the same codes and options.

        Of a mapped index (`faiss_dmih.read_index`) too: its file is then read in full.
        """
        return IndexDMIH._opened(*_engine.copy_index(self))

    def __copy__(self) -> IndexDMIH:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> IndexDMIH:
        return self.copy()

    def __reduce__(self) -> Any:
        from faiss_dmih.storage import deserialize, serialize

        return deserialize, (serialize(self),)

    @property
    def mapped(self) -> bool:
        """Whether the index is mapped from a file, and read-only."""
        return _engine.options(self)[4]

    @property
    def mode(self) -> str:
        """``"auto"``, ``"mih"`` or ``"scan"``, as given."""
        return self._mode

    @property
    def memory_budget(self) -> int | None:
        """Bytes that the hash tables may take, as given."""
        return self._memory_budget

    @property
    def cuts(self) -> tuple[int, ...] | None:
        """Substring lengths in bits: those given, otherwise those of the tables built so far, or
        None while there are none (up to 8,192 codes are only scanned).
        """
        if self._cuts is not None:
            return self._cuts
        return _engine.cuts(self) or None

    @property
    def partition(self) -> Partition | None:
        """Which bits go into which table, as ``train`` has learned it; None: as they come."""
        found = _engine.partition(self)
        return None if found is None else Partition(*found)

    def train(self, x: ArrayLike, *, strategy: str | None = None, n: int | None = None) -> None:
        """Learns which bits go into which table, so that near codes meet fewer others there.

        An index need not be trained: without, tables take the bits as they come, which is best for
        codes whose bits are alike, or that were made for such tables. Answers are the same in any
        case, and so are the codes that come back. Codes that the index already holds are arranged
        anew, as if they were added at once; meanwhile both arrangements are in memory, and on an
        exception nothing has changed. ``reset`` keeps what was learned. docs/algorithm.md says what
        it is worth: codes of an encoder that made them for tables of bits as they come (`DMIH`)
        gain least. In mode ``"scan"`` there are no tables, and nothing happens.

        Args:
            x: codes (n_train, d/8) uint8 like those the index is going to hold; of more than 20,000
                some are drawn.
            strategy: ``"cost"``: the least expected cost of probing, about a second to learn, the
                default; ``"data-driven"``: correlated bits apart, a tenth of a second, the default
                in mode ``"mih"``; ``"entropy"``: substrings that tell equally much, of slightly
                different lengths; ``"contiguous"``: bits as they come, which takes back what was
                learned, and the default beyond 1,024 bits, where learning takes up to minutes.
                FAISS's composites train by the default.
            n: how many codes the index is going to hold, on which the number of tables depends; by
                default as many as it holds, or as there are in ``x``, whichever is more.

        Raises:
            ValueError: an unknown strategy, or ``n`` is no number of codes that an index may hold.
            TypeError, AssertionError: as ``add``.
            RuntimeError: the index is mapped from a file.

        >>> index = IndexDMIH(64)
        >>> rng = np.random.default_rng(0)
        >>> x = np.repeat(rng.integers(0, 256, (1000, 4), dtype=np.uint8), 2, axis=1)
        >>> index.train(x, strategy="data-driven", n=1_000_000)  # each bit of x is there twice
        >>> any({bit, bit + 8} <= set(substring) for bit in range(8)
        ...     for substring in index.partition.substrings)
        False
        """
        codes = _as_array(x)
        if strategy is not None:
            check_strategy(strategy)
        if n is not None and not 0 <= n < 2**32:
            raise ValueError(f"got n = {n}, expected a number of codes, at most 2^32 - 1")
        if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != self.code_size:
            return super().train(codes)  # raises what FAISS does
        if self._mode == "scan" or len(codes) == 0:
            return None
        _engine.check_may_change(self)  # learning takes a while
        size = max(self.ntotal, len(codes)) if n is None else n
        cuts = self._cuts or _engine.cuts_for(self, size)
        strategy = default_strategy(self._mode, self.d) if strategy is None else strategy
        found = learned(codes, size, cuts, self._cuts is not None, strategy)
        order, lengths = ((), ()) if found is None else (found.order, found.cuts)
        _engine.repartition(self, np.array(order, np.int32), np.array(lengths, np.int32))
        return None

    def add(self, x: ArrayLike) -> None:
        """Adds codes ``x`` (n, d/8) uint8; their ids are ntotal, ntotal + 1, ...

        Either all are added or, on an exception (memory included), none.

        Raises:
            TypeError: ``x`` is not uint8.
            ValueError: ``x`` is not two-dimensional.
            AssertionError: its rows are not d/8 bytes wide.
            RuntimeError: there would be more than 2^32 - 1 codes.
        """
        super().add(_as_array(x))

    def search(
        self, x: ArrayLike, k: int, *, params: Any = None
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The k nearest codes of each query.

        Args:
            x: queries (nq, d/8) uint8.
            k: neighbours per query, at least 1.
            params: ``faiss.SearchParameters(sel=...)`` restricts the ids that may be answered;
                ``SearchParametersDMIH`` also the codes that may be visited.

        Returns:
            Distances D (nq, k) int32 and ids I (nq, k) int64, rows ordered by (distance, id); of
            codes tied at the k-th distance the smallest ids. Where there are fewer than k codes,
            2147483647 and -1.

        Raises:
            TypeError, ValueError, AssertionError: as ``add``; AssertionError for k < 1.
        """
        if params is None and type(x) is np.ndarray and type(k) is int and k > 0 and x.ndim == 2:
            D = np.empty((len(x), k), np.int32)
            I = np.empty((len(x), k), np.int64)
            if _engine.search(self.this, x, k, D, I):
                return D, I
        return super().search(_as_array(x), k, params=params)

    def assign(
        self, x: ArrayLike, k: int, labels: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """The ids I (nq, k) int64 of ``search`` alone, written to ``labels`` if that is given."""
        return super().assign(_as_array(x), k, labels)

    def search_and_reconstruct(
        self, x: ArrayLike, k: int, *, params: Any = None
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.uint8]]:
        """As ``search``, and the codes found, of the same state of the index.

        Returns:
            D and I as ``search`` has them, and R (nq, k, d/8) uint8, the codes of I; bytes 255
            where there are fewer than k codes, as FAISS's C++ has it. (Its Python layer does not
            wrap this for its own binary indexes.)

        Raises:
            TypeError, ValueError, AssertionError: as ``search``.
        """
        return search_and_reconstruct(faiss.IndexBinary, self, x, k, params)

    def range_search(
        self, x: ArrayLike, thresh: int, *, params: Any = None
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32], NDArray[np.int64]]:
        """All codes at a distance below ``thresh`` of each query.

        Args:
            x: queries (nq, d/8) uint8.
            thresh: bits; distances are strictly below it.
            params: ``faiss.SearchParameters(sel=...)`` restricts the ids that may be answered;
                ``SearchParametersDMIH`` also the codes that may be visited.

        Returns:
            ``(lims, D, I)``: the answers of query i are ``D[lims[i]:lims[i + 1]]`` float32 and
            ``I[lims[i]:lims[i + 1]]`` int64, ids ascending; lims is (nq + 1,) uint64.

        Raises:
            TypeError, ValueError, AssertionError: as ``add``.
        """
        out: tuple[NDArray[np.uint64], NDArray[np.float32], NDArray[np.int64]] = (
            super().range_search(_as_array(x), thresh, params=params)
        )
        return out

    def remove_ids(self, x: Any) -> int:
        """Removes codes; the ids of those after each move down, as in ``faiss.IndexBinaryFlat``.

        What is there is filtered, in one pass over the segments concerned; one that has lost half
        of what it was built of is built anew.

        Args:
            x: a ``faiss.IDSelector`` of any kind, or integer ids (n,); those that are not in
                [0, ntotal), and repetitions, are ignored.

        Returns:
            how many codes were removed.

        Raises:
            TypeError: ids of another type than integers.
            AssertionError: ids in another shape.
            What a selector raises that is written in Python.
        """
        if not isinstance(x, faiss.IDSelector):
            x = _as_array(x)
            if x.size and x.dtype.kind not in "iu":
                raise TypeError(
                    f"got ids of dtype {x.dtype}, expected integers; "
                    "np.flatnonzero(mask) are those of a mask"
                )
        return super().remove_ids(x)

    def merge_from(self, otherIndex: IndexDMIH, add_id: int = 0) -> None:
        """Takes over the codes of another IndexDMIH, which is empty afterwards.

        Its ids follow those of this index. The options of both may differ; this index keeps its
        own.

        Args:
            otherIndex: of the same d.
            add_id: 0; ids are consecutive. (An IndexBinaryIDMap has others.)

        Raises:
            RuntimeError: ``otherIndex`` is of another kind or d, or this very index; ``add_id`` is
                not 0; there would be more than 2^32 - 1 codes.
        """
        super().merge_from(otherIndex, add_id)

    def reset(self) -> None:
        """Removes all codes, and gives their memory back."""
        super().reset()

    def reconstruct(self, key: int) -> NDArray[np.uint8]:
        """The code (d/8,) uint8 of an id. RuntimeError: it is not in [0, ntotal)."""
        return super().reconstruct(key)

    def reconstruct_n(
        self, n0: int = 0, ni: int = -1, x: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """The codes of the ids n0, n0 + 1, ...

        Args:
            n0: first id.
            ni: how many; -1: all that follow.
            x: (ni, d/8) uint8 to write to, by default a new array.

        Raises:
            RuntimeError: not all of them are in [0, ntotal).
        """
        return super().reconstruct_n(n0, ni, x)

    def reconstruct_batch(
        self, keys: ArrayLike, x: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """The codes of some ids, as ``faiss.Index.reconstruct_batch`` for float indexes.

        Args:
            keys: integer ids (n,).
            x: (n, d/8) uint8, C-contiguous, to write to, by default a new array.

        Raises:
            TypeError: ids of another type than integers.
            ValueError: ``keys`` or ``x`` in another shape.
            RuntimeError: an id is not in [0, ntotal).

        >>> index = IndexDMIH(8)
        >>> index.add(np.array([[5], [6], [7]], dtype=np.uint8))
        >>> index.reconstruct_batch([2, 0, 2]).ravel().tolist()
        [7, 5, 7]
        """
        ids = np.asarray(keys)
        if ids.size and ids.dtype.kind not in "iu":
            raise TypeError(f"got keys of dtype {ids.dtype}, expected integers")
        if ids.ndim != 1:
            raise ValueError(f"got keys of shape {ids.shape}, expected (n,)")
        if x is None:
            x = np.empty((len(ids), self.code_size), np.uint8)
        elif x.shape != (len(ids), self.code_size) or x.dtype != np.uint8:
            expected = (len(ids), self.code_size)
            raise ValueError(f"got x {x.dtype} {x.shape}, expected uint8 {expected}")
        _engine.reconstruct_batch(self, np.ascontiguousarray(ids[:, None], np.int64), x)
        return x

    def compact(self) -> None:
        """Merges everything added so far into one segment with its hash tables.

        Adds do this by themselves, geometrically; one call after the last of many adds gives the
        speed of a single one.
        """
        _engine.compact(self)

    def memory_usage(self) -> dict[str, int]:
        """Bytes held, by part: codes (distinct ones), ids (which code is whose), clusters, tables,
        tail (recent adds), total.
        """
        return _engine.memory_usage(self)

    def force_engine(self, engine: str) -> None:
        """For tests and ablations: ``"scan"`` or ``"probe"`` alone, or ``"auto"``, the planner."""
        _engine.force_engine(self, check_engine(engine))

    def to_gpu(self, device: int = 0, *, memory_budget: int | None = None) -> GpuIndexDMIH:
        """A copy on a CUDA device, with the same cuts and mode. What ``train`` has learned stays
        behind: there, tables take the bits as they come.

        Args:
            device: number of the device.
            memory_budget: bytes of its memory that the copy may hold and work in, by default all
                that is free.

        Raises:
            ImportError: CuPy is not installed. RuntimeError: there is no GPU.
            MemoryError: the codes do not fit.
        """
        return copy_to_gpu(self, device, 0, self.ntotal, memory_budget=memory_budget)


def search_and_reconstruct(
    kind: Any, index: Any, x: ArrayLike, k: int, params: Any
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.uint8]]:
    """What SWIG's `kind.search_and_reconstruct` of an index finds, as arrays."""
    array = _as_array(x)
    n, code_size = array.shape
    if array.dtype != np.uint8:
        raise TypeError(f"got x of dtype {array.dtype}, expected uint8")
    assert code_size == index.code_size, f"got codes of {code_size} bytes, not {index.code_size}"
    assert k > 0, f"got k = {k}, expected at least 1"
    array = np.ascontiguousarray(array)
    D, I = np.empty((n, k), np.int32), np.empty((n, k), np.int64)
    R = np.empty((n, k, code_size), np.uint8)
    pointers = (faiss.swig_ptr(out) for out in (D, I, R))
    kind.search_and_reconstruct(index, n, faiss.swig_ptr(array), k, *pointers, params)
    return D, I, R


def copy_to_gpu(
    index: IndexDMIH, device: int, first: int, n: int, *, memory_budget: int | None = None
) -> GpuIndexDMIH:
    """The codes of the ids [first, first + n) on a device, with the cuts and mode of `index`."""
    from faiss_dmih.gpu import GpuIndexDMIH

    copy = GpuIndexDMIH(
        index.d, device=device, cuts=index._cuts, mode=index.mode, memory_budget=memory_budget
    )
    copy.add(index.reconstruct_n(first, n))
    return copy


def available_simd_levels() -> tuple[str, ...]:
    """Instruction sets of the scan kernels that this processor runs, slowest first."""
    return tuple(_engine.simd_levels())


def simd_level() -> str:
    """The instruction set in use: by default the last of ``available_simd_levels()``."""
    return _engine.simd_level()


def set_simd_level(level: str) -> None:
    """Makes all searches of the process use ``level``. Answers do not depend on it.

    Raises:
        ValueError: this processor has no such level.
    """
    if not _engine.set_simd_level(level):
        known = ", ".join(available_simd_levels())
        raise ValueError(f"no SIMD level {level!r} on this processor: expected one of {known}")


def stats() -> dict[str, Any]:
    """What searches have done since the start or ``reset_stats()``, over all indexes.

    Counted: queries; probes (buckets looked up); candidates (entries met in buckets); compared (of
    these, codes compared); scanned (codes compared by a scan); visited (compared or scanned);
    fallbacks (times a query was handed from probing to the scan).

    Nanoseconds that passed on the threads that called: select_ns (which ids a selector selects,
    gathering few codes), probe_ns, scan_ns, budget_ns (searches with ``max_codes``), answer_ns
    (ordering what was found, looking up ids).

    ``gpu``, once there were searches on a GPU: ``queries`` by engine (popc, mma, wgmma, probe), and
    ``not_on_tensor_cores``: why batches that were meant for tensor cores were not given to them.
    """
    on_gpu = gpu_counters.stats()
    return {**_engine.stats(), **({"gpu": on_gpu} if on_gpu else {})}


def reset_stats() -> None:
    """Sets the counters of ``stats()`` to zero."""
    _engine.reset_stats()
    gpu_counters.reset_stats()


def _as_array(x: Any) -> Any:
    """What FAISS's Python layer takes, which then checks dtype and shape its own way."""
    return x if isinstance(x, np.ndarray) else host_array(x, "x")


def _check_budget(memory_budget: int | None, mode: str) -> int | None:
    if memory_budget is not None and mode != "auto":
        raise ValueError(
            f"memory_budget applies to mode='auto'; mode={mode!r} has no tables to leave out"
            if mode == "scan"
            else "memory_budget applies to mode='auto'; plain multi-index hashing needs all tables"
        )
    return check_budget(memory_budget)

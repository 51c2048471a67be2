"""Competitors from other libraries: USearch, NumKong, pynear. All of them are optional.

`pip install 'faiss-dmih[competitors]'` installs them; one that is not there is left out, and the
result says so. Each is put behind `add`, `search` and, if it has it, `range_search` as FAISS has
them. How distances are asked for is whatever was found to be the fastest way to ask.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import faiss
import numpy as np

from faiss_dmih.bench.competitors import Competitor, Settings, register
from faiss_dmih.bench.questions import Answer, Codes

_NO_DISTANCE = 2**31 - 1
_BLOCK = 1 << 26
"""Bytes of distances that are made at a time: beyond the caches, small beside the codes."""


class Rival(Competitor):
    """A competitor out of `package`."""

    by_default = False
    own_order = True
    ranges = False
    package: ClassVar[str]

    @classmethod
    def missing(cls) -> str:
        if importlib.util.find_spec(cls.package) is not None:
            return ""
        return f"{cls.package} is not installed; pip install 'faiss-dmih[competitors]'"

    @classmethod
    def version(cls) -> str:
        return f"{cls.package} {importlib.metadata.version(cls.package)}"

    @abstractmethod
    def make(self, d: int) -> Any: ...


class _USearch:
    def __init__(self, d: int, exact: bool, **options: Any) -> None:
        usearch = importlib.import_module("usearch.index")
        self.index = usearch.Index(ndim=d, metric="hamming", dtype="b1", **options)
        self._exact = exact

    def add(self, xb: Codes) -> None:
        self.index.add(np.arange(len(xb)), xb, threads=faiss.omp_get_max_threads())

    def search(self, xq: Codes, k: int) -> Answer:
        threads = min(len(xq), faiss.omp_get_max_threads())
        found = self.index.search(xq, k, exact=self._exact, threads=threads)
        counts = np.reshape(found.counts if len(xq) > 1 else len(found), (-1, 1))
        D = np.full((len(xq), k), _NO_DISTANCE, np.int32)
        I = np.full((len(xq), k), -1, np.int64)
        width = found.keys.shape[-1]
        there = np.arange(width) < counts
        np.copyto(D[:, :width], found.distances, where=there, casting="unsafe")
        np.copyto(I[:, :width], found.keys, where=there, casting="unsafe")
        return D, I


@register
class USearch(Rival):
    """USearch's exact search of bits: all codes, one after the other.

    Its index is a graph even so, which is made as poor, and as quickly, as it can be. The function
    `usearch.index.search`, which needs none, was slower.
    """

    family = label = "usearch"
    package = "usearch"
    exact = True

    def make(self, d: int) -> Any:
        return _USearch(d, exact=True, connectivity=2, expansion_add=1)

    def memory(self, index: Any) -> tuple[int, str]:
        return int(index.index.memory_usage), "memory_usage"


@register
class USearchHnsw(Rival):
    """USearch's graph, as it comes. Building it takes twice as long as FAISS's, and more."""

    family = label = "usearch-hnsw"
    package = "usearch"
    exact = False

    def make(self, d: int) -> Any:
        return _USearch(d, exact=False)

    def settings(self) -> list[Settings]:
        return [{"index.expansion_search": ef} for ef in (16, 64, 256)]

    def memory(self, index: Any) -> tuple[int, str]:
        return int(index.index.memory_usage), "memory_usage"


class _NumKong:
    """Distances to all codes from NumKong, the k least of them by NumPy."""

    def __init__(self, d: int) -> None:
        self._numkong = importlib.import_module("numkong")
        self.n = 0

    def add(self, xb: Codes) -> None:
        self.n = len(xb)
        self.packed = self._numkong.hammings_pack(xb)

    def search(self, xq: Codes, k: int) -> Answer:
        D = np.full((len(xq), k), _NO_DISTANCE, np.int32)
        I = np.full((len(xq), k), -1, np.int64)
        some = min(k, self.n)

        def nearest(first: int, last: int) -> None:
            distances = self._distances(xq[first:last])
            kth = np.partition(distances, some - 1, axis=1)[:, some - 1]
            for q, row in enumerate(distances):
                ids = np.flatnonzero(row <= kth[q])
                ids = ids[np.argsort(row[ids], kind="stable")[:some]]
                D[first + q, :some], I[first + q, :some] = row[ids], ids

        self._in_blocks(nearest, len(xq))
        return D, I

    def range_search(self, xq: Codes, radius: int) -> Answer:
        D: list[Any] = [None] * len(xq)
        I: list[Any] = [None] * len(xq)

        def within(first: int, last: int) -> None:
            for q, row in enumerate(self._distances(xq[first:last]), first):
                I[q] = np.flatnonzero(row < radius)
                D[q] = row[I[q]].astype(np.float32)

        self._in_blocks(within, len(xq))
        lims = np.cumsum([0, *(len(ids) for ids in I)], dtype=np.uint64)
        return lims, np.concatenate(D), np.concatenate(I)

    def _distances(self, xq: Codes) -> Any:
        return np.asarray(self._numkong.hammings_packed(xq, self.packed))

    def _in_blocks(self, work: Any, nq: int) -> None:
        """`work(first, last)` for blocks of queries, as many at a time as FAISS has threads."""
        threads = min(nq, faiss.omp_get_max_threads())
        size = max(1, min(-(-nq // threads), _BLOCK // (4 * self.n * threads)))
        firsts = range(0, nq, size)
        lasts = [min(first + size, nq) for first in firsts]
        if threads == 1:
            for first, last in zip(firsts, lasts, strict=True):
                work(first, last)
            return
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, firsts, lasts))


@register
class NumKong(Rival):
    """NumKong's batched Hamming distances (`hammings_packed`): its kernel, and a selection."""

    family = label = "numkong"
    package = "numkong"
    exact = True
    own_order = False
    ranges = True

    def make(self, d: int) -> Any:
        return _NumKong(d)

    def memory(self, index: Any) -> tuple[int, str]:
        return int(index.packed.nbytes), "nbytes"


class _PynearMih:
    def __init__(self, d: int, substrings: int) -> None:
        self.index = importlib.import_module("pynear").MIHBinaryIndex(substrings)
        self._substrings = substrings
        self.flips = 0
        self.n = 0

    def add(self, xb: Codes) -> None:
        self.n = len(xb)
        self.index.set(xb)

    def search(self, xq: Codes, k: int) -> Answer:
        I, D = self.index.searchKNN_arrays(xq, k, self.flips * self._substrings)
        return np.minimum(D, _NO_DISTANCE).astype(np.int32), I


@register
class PynearMih(Rival):
    """pynear's multi-index hashing: of the codes it meets within a radius, the k nearest.

    Exact where the k-th neighbour lies within that radius, which it does not find out: with recall,
    as the other approximate ones. It uses one thread.
    """

    family = "pynear-mih"
    package = "pynear"
    exact = False
    BITS = 16

    def __init__(self, d: int) -> None:
        self.d = d
        self.substrings = max(1, d // self.BITS)
        self.label = f"pynear-mih-{self.substrings}x{d // self.substrings}"

    @classmethod
    def configurations(cls, d: int, n: int) -> list[Competitor]:
        return [cls(d)]

    def make(self, d: int) -> Any:
        return _PynearMih(d, self.substrings)

    def settings(self) -> list[Settings]:
        """As many bits of each substring may differ: the radius is that times their number."""
        return [{"flips": flips} for flips in (0, 1, 2)]

    def threads(self, batch: int, threads: int) -> int:
        return 1

    def memory(self, index: Any) -> tuple[int, str]:
        ids = 4 * index.n * self.substrings
        return index.n * self.d // 8 + ids, "codes and ids of 4 bytes, lower bound"

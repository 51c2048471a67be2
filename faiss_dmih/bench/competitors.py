"""Who takes part. To add an index: one class with `@register`, and its family can be selected.

A competitor is one way to build one index; `settings` lists the run-time options it is searched
with, so that variants which differ in those only share the index. Competitors with one label share
an index too. Every competitor gets the same codes and queries, and the same threads unless fewer
make it faster. Those of other libraries, which need not be installed, are in `rivals`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import faiss
import numpy as np

import faiss_dmih
from faiss_dmih.bench.questions import Answer, Codes, Question, Within

Settings = dict[str, int | str]


class Competitor(ABC):
    """One way to build an index over codes of `d` bits."""

    family: ClassVar[str]
    """Name by which it is selected."""
    by_default: ClassVar[bool] = True
    exact: ClassVar[bool]
    """Whether its answers must equal IndexBinaryFlat's bit for bit, or but for `own_order`."""
    own_order: ClassVar[bool] = False
    """Whether it has an order, and a choice among ties, of its own: see `Question.equivalent`."""
    ranges: ClassVar[bool] = True
    """Whether it has range search."""
    by_query: ClassVar[bool] = False
    """Whether its threads share out the queries of a call: a single one is answered by one of them,
    but the others are woken and waited for, which is slow where cores are shared with others."""

    label: str
    """Name of this way to build. Competitors with the same label are given the same index."""

    @classmethod
    def configurations(cls, d: int, n: int) -> list[Competitor]:
        """The ways to build that are worth comparing for `n` codes of `d` bits."""
        return [cls()]

    @classmethod
    def missing(cls) -> str:
        """Why it cannot take part here, such as a package that is not installed; else empty."""
        return ""

    @classmethod
    def version(cls) -> str:
        """Of the package it comes from, where that is another than FAISS and ours."""
        return ""

    @abstractmethod
    def make(self, d: int) -> Any:
        """A new, empty faiss.IndexBinary, or what has its `add`, `search` and `range_search`."""

    def certain(self, settings: Settings, question: Question) -> bool:
        """Whether it must find everything that is asked for."""
        return self.exact

    def settings(self) -> list[Settings]:
        """Run-time options, one dictionary for each variant."""
        return [{}]

    def prepare(self, index: Any, settings: Settings) -> None:
        """Put the options into force. Called before every turn, so that it undoes others'."""
        apply(index, settings)

    def variant(self, settings: Settings) -> str:
        """Name of the competitor when it is searched with `settings`."""
        return variant_name(self.label, settings)

    def threads(self, batch: int, threads: int) -> int:
        """Threads it is given for calls of `batch` queries where `threads` are allowed."""
        return 1 if self.by_query and batch == 1 else threads

    @abstractmethod
    def memory(self, index: Any) -> tuple[int, str]:
        """Bytes the filled index holds, and how that is known."""


FAMILIES: dict[str, type[Competitor]] = {}


def register(cls: type[Competitor]) -> type[Competitor]:
    """Make the class known under its family's name."""
    FAMILIES[cls.family] = cls
    return cls


@register
class Flat(Competitor):
    """The baseline. Always takes part."""

    family = label = "flat"
    exact = True
    by_query = True

    def make(self, d: int) -> Any:
        return faiss.IndexBinaryFlat(d)

    def memory(self, index: Any) -> tuple[int, str]:
        return index.ntotal * index.code_size, "structure: the codes"


class Dmih(Competitor):
    """IndexDMIH in one of its modes."""

    exact = True
    mode: ClassVar[str]

    def __init__(self) -> None:
        self.label = self.family

    def make(self, d: int) -> Any:
        return faiss_dmih.IndexDMIH(d, mode=self.mode)

    def memory(self, index: Any) -> tuple[int, str]:
        return int(index.memory_usage()["total"]), "memory_usage()"


@register
class DmihAuto(Dmih):
    family = "dmih-auto"
    mode = "auto"

    def prepare(self, index: Any, settings: Settings) -> None:
        index.force_engine("auto")


@register
class DmihEngines(DmihAuto):
    """The engines that dmih-auto chooses from, each alone, on the very index of dmih-auto."""

    family = "dmih-engines"
    by_default = False

    def __init__(self) -> None:
        self.label = DmihAuto.family

    def settings(self) -> list[Settings]:
        return [{"engine": "scan"}, {"engine": "probe"}]

    def prepare(self, index: Any, settings: Settings) -> None:
        index.force_engine(settings["engine"])

    def variant(self, settings: Settings) -> str:
        return f"{self.label}+{settings['engine']}"


@register
class DmihScan(Dmih):
    family = "dmih-scan"
    mode = "scan"


@register
class DmihMih(Dmih):
    family = "dmih-mih"
    mode = "mih"


ENGINES = (DmihEngines.family, DmihMih.family)
"""What the planner of dmih-auto is held against: its engines, and hashing as in the papers."""


@register
class MultiHash(Competitor):
    """FAISS's multi-index hashing: fixed probing radius `nflip` in each of `nhash` substrings."""

    family = "multihash"
    exact = False
    own_order = True

    def __init__(self, nhash: int, b: int) -> None:
        self.nhash, self.b = nhash, b
        self.label = f"multihash-{nhash}x{b}"

    @classmethod
    def configurations(cls, d: int, n: int) -> list[Competitor]:
        """Substrings of log2 n bits, the classical choice, and of 4 bits less; as many as fit."""
        longest = min(d, max(5, round(math.log2(max(n, 2)))))
        return [cls(d // b, b) for b in dict.fromkeys((longest, max(4, longest - 4)))]

    def make(self, d: int) -> Any:
        return faiss.IndexBinaryMultiHash(d, self.nhash, self.b)

    def settings(self) -> list[Settings]:
        return [{"nflip": nflip} for nflip in (0, 1, 2)]

    def certain(self, settings: Settings, question: Question) -> bool:
        # Codes that differ in fewer than r bits differ in at most (r - 1) / nhash of them in one
        # of the substrings. About the k nearest there is no such certainty.
        if not isinstance(question, Within):
            return False
        return int(settings["nflip"]) >= (question.radius - 1) // self.nhash

    def memory(self, index: Any) -> tuple[int, str]:
        # Codes; in each table 8 bytes an id; for each bucket a hash node (next, key, vector: 40),
        # its slot in the array (8), and two malloc headers (16). Spare capacity is not counted.
        codes = index.ntotal * index.code_size
        ids = 8 * index.ntotal * self.nhash
        return codes + ids + 64 * index.hashtable_size(), "structure, lower bound"


@register
class Hash(Competitor):
    """FAISS's single hash table on the first b bits."""

    family = "hash"
    by_default = False
    exact = False
    by_query = True

    def __init__(self, b: int) -> None:
        self.b = b
        self.label = f"hash-{b}"

    @classmethod
    def configurations(cls, d: int, n: int) -> list[Competitor]:
        return [cls(min(d, max(4, round(math.log2(max(n, 2))) - 4)))]

    def make(self, d: int) -> Any:
        return faiss.IndexBinaryHash(d, self.b)

    def settings(self) -> list[Settings]:
        return [{"nflip": nflip} for nflip in (0, 1, 2)]

    def memory(self, index: Any) -> tuple[int, str]:
        # Codes and ids lie in the buckets; a bucket is a node (64), its slot (8) and three
        # malloc headers (24). Spare capacity is not counted.
        items = index.ntotal * (index.code_size + 8)
        return items + 96 * index.hashtable_size(), "structure, lower bound"


@register
class Hnsw(Competitor):
    """FAISS's graph index. Building it takes minutes at a million codes."""

    family = "hnsw"
    by_default = False
    exact = False
    by_query = True
    ranges = False
    M = 16

    def __init__(self) -> None:
        self.label = f"hnsw-{self.M}"

    def make(self, d: int) -> Any:
        return faiss.IndexBinaryHNSW(d, self.M)

    def settings(self) -> list[Settings]:
        return [{"hnsw.efSearch": ef} for ef in (16, 64, 256)]

    def memory(self, index: Any) -> tuple[int, str]:
        return len(faiss.serialize_index_binary(index)), "serialized size"


class _Ivf:
    """An IndexBinaryIVF that is made, and trained, when its codes are there."""

    def __init__(self, d: int, nlist: int) -> None:
        self._d, self._nlist = d, nlist
        self.nprobe = 1

    def add(self, xb: Codes) -> None:
        nlist = max(1, min(self._nlist, len(xb) // 39))  # fewer codes a list: k-means complains
        self.index = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(self._d), self._d, nlist)
        stride = max(1, len(xb) // (64 * nlist))
        self.index.train(np.ascontiguousarray(xb[::stride]))
        self.index.add(xb)

    def search(self, xq: Codes, k: int) -> Answer:
        self.index.nprobe = self.nprobe
        D, I = self.index.search(xq, k)
        return D, I


@register
class Ivf(Competitor):
    """FAISS's inverted file: codes by their nearest of `nlist` centres, `nprobe` of them looked at.

    Training on 64 codes a list is part of what its `add` takes.
    """

    family = "ivf"
    by_default = False
    exact = False
    by_query = True
    ranges = False

    def __init__(self, nlist: int) -> None:
        self.nlist = nlist
        self.label = f"ivf-{nlist}"

    @classmethod
    def configurations(cls, d: int, n: int) -> list[Competitor]:
        """About sqrt(n) lists, a power of two."""
        return [cls(2 ** round(math.log2(max(n, 2)) / 2))]

    def make(self, d: int) -> Any:
        return _Ivf(d, self.nlist)

    def settings(self) -> list[Settings]:
        return [{"nprobe": nprobe} for nprobe in (1, 8, 64)]

    def memory(self, index: Any) -> tuple[int, str]:
        return len(faiss.serialize_index_binary(index.index)), "serialized size"


def apply(index: Any, settings: Settings) -> None:
    """Set run-time options; a dotted name reaches into a member of the index."""
    for name, value in settings.items():
        *path, last = name.split(".")
        owner = index
        for member in path:
            owner = getattr(owner, member)
        setattr(owner, last, value)


def variant_name(label: str, settings: Settings) -> str:
    """Label and options in one word, such as multihash-3x20-nflip1."""
    return "-".join([label, *(f"{key.split('.')[-1]}{value}" for key, value in settings.items())])

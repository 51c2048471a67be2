"""Scans on tensor cores: which of them a device can run, and whether they are right there.

`cuda/tensor.cuh` says how they work. What a kernel of tensor cores computes is compared with what
the scan by population counts does before it is first used on a device: compilers were known to get
these instructions wrong. One that differs, or cannot be compiled, is never used; the next one is,
in the end the scan by population counts. `faiss_dmih.stats()` says why.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Container
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from faiss_dmih import gpu_counters

if TYPE_CHECKING:
    from faiss_dmih.gpu.device import Device
    from faiss_dmih.gpu.store import Store

_CHECKED_ROWS, _CHECKED_QUERIES = 1100, 150
"""More than a tile of each, and no multiple of it."""


@dataclass(frozen=True)
class Scanner:
    """A scan: kernels `<name>_knn` and `<name>_range`, in files of these names."""

    name: str
    threads: int
    queries: int
    """Of a block."""
    together: int
    """Queries that take as long as one of them."""
    blocks: int
    """On a multiprocessor at a time."""
    rows_by_words: dict[int, int]
    """Rows of a block, by kWords: the macros it is compiled with."""
    shared_bytes: Any
    """Dynamic shared memory of a block, by the words of a row."""
    pair_clocks: Any
    """Clocks of a multiprocessor that a pair takes, by the words of a row. Derived: docs/gpu.md."""
    capabilities: Container[int]
    """Of devices that have the instructions: 90 is 9.0."""
    which: str = ""
    """These, for people."""

    def kernel_words(self, words: int) -> int:
        """The macro kWords of its kernels for rows of so many words."""
        return words if words in self.rows_by_words else 0

    def rows(self, words: int) -> int:
        """Of a block."""
        return self.rows_by_words[self.kernel_words(words)]

    def clocks(self, words: int, nq: int) -> float:
        """Of a multiprocessor, for one row and nq queries."""
        return float(-(-nq // self.together) * self.together * self.pair_clocks(words))


def _steps(words: int) -> int:
    """Of 256 bits: two words and their complements."""
    return -(-words // 2)


def _mma_shared(words: int) -> int:
    steps = _steps(words)
    stage = steps if words in (1, 2, 4) else 4
    return 16 * (steps * 128 + 2 * stage * 128)


POPC = Scanner(
    name="scan",
    threads=256,
    queries=32,
    together=1,
    blocks=4,
    rows_by_words={0: 256, 1: 1024, 2: 1024, 4: 512, 8: 256},
    shared_bytes=lambda words: 8 * words * 32,
    pair_clocks=lambda words: words / 8,  # 16 popcounts a clock, 2 a word
    capabilities=range(1 << 10),
)
MMA = Scanner(
    name="scan_mma",
    threads=256,
    queries=128,
    together=128,
    blocks=2,
    rows_by_words=dict.fromkeys((0, 1, 2, 4), 128),
    shared_bytes=_mma_shared,
    pair_clocks=lambda words: _steps(words) / 64,  # four instructions of 16 x 8 in 8 clocks
    capabilities=range(80, 100),
    which="80 to 99",
)
WGMMA = Scanner(
    name="scan_wgmma",
    threads=384,
    queries=128,
    together=128,
    blocks=1,
    rows_by_words=dict.fromkeys((0, 1, 2, 4, 8), 256),
    shared_bytes=lambda words: 8192 * 4 + 4096 * _steps(words),
    pair_clocks=lambda words: _steps(words) / 79,  # 207 clocks for 64 x 256
    capabilities=range(90, 91),
    which="90",
)
IMMA = Scanner(
    name="scan_imma",
    threads=256,
    queries=128,
    together=128,
    blocks=2,
    rows_by_words=dict.fromkeys((0, 1, 2, 4), 128),
    shared_bytes=_mma_shared,
    # 1024 multiply-adds a clock, one a bit; a lone word is half a step.
    pair_clocks=lambda words: 1 / 16 if words == 1 else _steps(words) / 8,
    # The 10.3 (B300) has them at a fraction of the rate: less than population counts.
    capabilities={*range(100, 1 << 10)} - {103},
    which="100 or later, other than 103",
)
TENSOR = (WGMMA, MMA, IMMA)
"""The better ones first."""


class TensorCores:
    """What is known of a device's, by kernel."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wrong: dict[tuple[str, str, int], str] = {}
        """Empty: right."""

    def scanner(self, device: Device, store: Store, what: str) -> Scanner | None:
        """The best one that is right; what: "knn" or "range". The first time, this compiles,
        compares, and waits for the device."""
        said = []
        for scanner in TENSOR:
            why = self._refused(device, scanner, store, what)
            if not why:
                return scanner
            said.append(f"{scanner.name}: {why}")
        gpu_counters.refused(
            f"device {device.number}, rows of {store.words} words", "; ".join(said)
        )
        return None

    def _refused(self, device: Device, scanner: Scanner, store: Store, what: str) -> str:
        if device.compute_capability not in scanner.capabilities:
            here = device.compute_capability
            return f"needs compute capability {scanner.which}, and this is {here}"
        needed = scanner.shared_bytes(store.words)
        if needed > device.shared_memory:
            return f"needs {needed} bytes of shared memory, and there are {device.shared_memory}"
        key = (scanner.name, what, store.words)
        with self._lock:
            if key not in self._wrong:
                self._wrong[key] = why = _found_wrong(device, scanner, store.words, what)
                if why:
                    warnings.warn(
                        f"{scanner.name}_{what} is not used on device {device.number} for rows of "
                        f"{store.words} words: {why}. Searches are right, and slower",
                        RuntimeWarning,
                        stacklevel=2,
                    )
            return self._wrong[key]


def pays(scanner: Scanner, words: int, nq: int) -> bool:
    """Whether a batch is answered sooner than by population counts."""
    return scanner.clocks(words, nq) < POPC.clocks(words, nq)


def usable(device: Device) -> list[Scanner]:
    """Those that a device has the instructions for."""
    return [s for s in TENSOR if device.compute_capability in s.capabilities]


def _found_wrong(device: Device, scanner: Scanner, words: int, what: str) -> str:
    """Empty if it finds what the scan by population counts does, in a small problem."""
    try:
        found, expected = (_pairs(device, one, words, what) for one in (scanner, POPC))
    except MemoryError:
        raise
    except Exception as error:  # of CuPy, NVRTC or the driver, whatever its type
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {' / '.join(lines[:4])}"
    for got, true in zip(found, expected, strict=True):
        if not np.array_equal(got, true):
            return "its answers differ from those of the scan by population counts"
    return ""


def _pairs(device: Device, scanner: Scanner, words: int, what: str) -> list[Any]:
    """How many, and which, random codes a scan finds within half their bits of random queries."""
    from faiss_dmih.gpu.knn import launch_scan
    from faiss_dmih.gpu.store import Store

    xp, d = device.xp, 64 * words
    rng = np.random.default_rng(words)
    xb, xq = (
        rng.integers(0, 256, (n, 8 * words), dtype=np.uint8)
        for n in (_CHECKED_ROWS, _CHECKED_QUERIES)
    )
    store = Store(device, 8 * words)
    store.append(xp.asarray(xb), spare=False)
    queries, nq = store.to_rows(xp.asarray(xq)), len(xq)
    where = (0, store.slots, queries, xp.arange(nq, dtype=np.uint32), xp.full(1, nq, np.uint32))
    capacity = store.slots
    lists = store.list_arguments(None)
    if what == "range":
        keys, total = xp.zeros(nq * capacity, np.uint64), xp.zeros(1, np.uint64)
        out = (np.int32(d // 2), keys, total, np.uint64(len(keys)), np.uint32(1))
        launch_scan(store, scanner, what, *where, (*out, *lists))
        return [device.to_host(total), np.sort(device.to_host(keys))]
    # There are never as many as k, so that bounds stay.
    hist, count = xp.zeros((nq, d + 1), np.uint32), xp.zeros(nq, np.uint32)
    bound, entries = xp.full(nq, d // 2, np.int32), xp.zeros((nq, capacity), np.uint64)
    found = (hist, bound, count, entries, np.int32(d), np.uint32(capacity))
    launch_scan(store, scanner, what, *where, (np.uint32(2**31), *found, *lists))
    arrays = [device.to_host(array) for array in (hist, bound, count, entries)]
    return [*arrays[:3], np.sort(arrays[3], axis=1)]

"""The device's limits, measured in the same run as what is held against them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from faiss_dmih.bench.cuda.device import Array, Device, Gpu
from faiss_dmih.bench.results import Figure, Spread

_THREADS = 256
_BLOCKS_PER_MULTIPROCESSOR = 8
_SCRATCH_BYTES = 8 << 30
_LAUNCH_SECONDS = 0.01
"""A launch is made at least as long: the clock's ticks and the start of a launch are lost in it."""
_ROUNDS = 9

FLAT_BOUND = 2.5e11
"""Pairs/s of FAISS's GpuIndexBinaryFlat at most, for codes of up to 256 bits on an H200.

Derived, not measured: its compiled code takes 133 instructions a pair and lane.
"""


@dataclass(frozen=True)
class Limits:
    """What the device can do in a second."""

    popc: Spread
    """Words of 32 bits whose bits are counted."""
    memory: Spread
    """Bytes read in order."""
    sectors: Spread
    """Sectors of 32 bytes read at random addresses of the scratch memory."""
    scratch_bytes: int

    def figures(self) -> list[Figure]:
        """For people."""
        gib = self.scratch_bytes / 2**30
        return [
            Figure("POPC, 32 bits each", self.popc, "/s"),
            Figure("bytes of memory, read in order", self.memory, "/s"),
            Figure(f"random sectors of 32 bytes, of {gib:.3g} GiB", self.sectors, "/s"),
        ]


class Scratch:
    """Memory many times the size of the L2 cache, full of random words."""

    def __init__(self, device: Device, gpu: Gpu) -> None:
        self._device = device
        self._blocks = _BLOCKS_PER_MULTIPROCESSOR * gpu.multiprocessors
        self.bytes = min(_SCRATCH_BYTES, int(gpu.memory_gib * 2**30) // 8) // 32 * 32
        self._sum = device.empty(1)
        self._words = random_words(device, self.bytes // 8, seed=0)

    def read(self, times: int = 1) -> None:
        """Queue reading all of it.

        What was in the L2 cache is not there any more, and the device is busy for as long as the
        host takes to queue a search: 2 ms on an H200.
        """
        for _ in range(times):
            self._launch("read_memory", self._words, np.int64(self.bytes // 16))

    def limits(self) -> Limits:
        """Measure."""
        threads = self._blocks * _THREADS
        return Limits(
            popc=self._rate(
                lambda steps: self._launch("popc_rate", np.int32(steps)),
                lambda steps: 8.0 * threads * steps,
            ),
            memory=self._rate(self.read, lambda times: float(self.bytes) * times),
            sectors=self._rate(
                lambda rounds: self._launch(
                    "read_sectors", self._words, np.uint32(self.bytes // 32), np.int32(rounds)
                ),
                lambda rounds: 8.0 * threads * rounds,
            ),
            scratch_bytes=self.bytes,
        )

    def _launch(self, name: str, *args: Array) -> None:
        kernel = self._device.launcher.kernel("ceilings", name)
        kernel((self._blocks,), (_THREADS,), (*args, self._sum))

    def _rate(self, launch: Callable[[int], None], work: Callable[[int], float]) -> Spread:
        """`work(size)` a second by `launch(size)`, for a size that takes long enough."""

        def seconds(size: int) -> float:
            return self._device.timed(lambda: launch(size))[0]

        size = 1
        seconds(size)  # compiles it
        while seconds(size) < _LAUNCH_SECONDS:
            size *= 2
        return Spread.of([work(size) / seconds(size) for _ in range(_ROUNDS)])


def random_words(device: Device, count: int, seed: int) -> Array:
    """The first `count` numbers of SplitMix64, uint64."""
    words = device.empty(count)
    kernel = device.launcher.kernel("random_words", "random_words")
    blocks = max(1, min(count // _THREADS, 1 << 16))
    kernel((blocks,), (_THREADS,), (np.uint64(seed), np.int64(count), words))
    return words


def random_codes(device: Device, n: int, d: int, seed: int) -> Array:
    """(n, d/8) uint8 codes of fair bits, d a multiple of 64."""
    return random_words(device, n * d // 64, seed).view(np.uint8).reshape(n, d // 8)

"""The device's limits, measured in the same run as what is held against them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from faiss_dmih.bench.cuda.device import Array, Device, Gpu
from faiss_dmih.bench.results import Figure, Spread
from faiss_dmih.gpu.tensor import IMMA, MMA, WGMMA

_THREADS = 256
_BLOCKS_PER_MULTIPROCESSOR = 8
_SCRATCH_BYTES = 8 << 30
_LAUNCH_SECONDS = 0.01
"""A launch is made at least as long: the clock's ticks and the start of a launch are lost in it."""
_ROUNDS = 9
# Products of tensor cores: pairs of codes of 128 bits that a block compares in a step (bits beside
# their complements, or bytes), its shared memory.
_PRODUCTS = (
    ("wgmma", WGMMA, 2 * 64 * 256, 32 * (64 + 256)),
    ("mma", MMA, 8 * 8 * 16 * 8, 0),
    ("imma", IMMA, 8 * 8 * 16 * 8 // 4, 0),
)

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
    tensor: Spread | None = None
    """Pairs of codes of 128 bits that tensor cores compare; None where no scan uses them."""
    tensor_by: str = ""
    """By which instructions, or why by none."""

    def tensor_pairs(self, d: int) -> float:
        """Of codes of d bits, that tensor cores compare."""
        assert self.tensor is not None
        begun = 64 if self.tensor_by == "imma" else 128
        return self.tensor.median * 128 / (-(-d // begun) * begun)

    def figures(self) -> list[Figure]:
        """For people."""
        gib = self.scratch_bytes / 2**30
        tensor = (
            [Figure(f"pairs of 128 bits on tensor cores, by {self.tensor_by}", self.tensor, "/s")]
            if self.tensor is not None
            else []
        )
        return [
            Figure("POPC, 32 bits each", self.popc, "/s"),
            Figure("bytes of memory, read in order", self.memory, "/s"),
            Figure(f"random sectors of 32 bytes, of {gib:.3g} GiB", self.sectors, "/s"),
            *tensor,
        ]


class Scratch:
    """Memory many times the size of the L2 cache, full of random words."""

    def __init__(self, device: Device, gpu: Gpu) -> None:
        self._device = device
        self._blocks = _BLOCKS_PER_MULTIPROCESSOR * gpu.multiprocessors
        self.bytes = min(_SCRATCH_BYTES, int(gpu.memory_gib * 2**30) // 8) // 32 * 32
        self._capability = int(gpu.compute_capability.replace(".", ""))
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
        tensor, tensor_by = self._tensor()
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
            tensor=tensor,
            tensor_by=tensor_by,
        )

    def _tensor(self) -> tuple[Spread | None, str]:
        """The rate of bare loops of products, and of which; or why there is none."""
        said = []
        for by, scanner, pairs, shared in _PRODUCTS:
            if self._capability not in scanner.capabilities:
                said.append(f"{by}: not on compute capability {self._capability}")
                continue
            launch = partial(self._launch_product, f"ceiling_{by}", f"{by}_rate", shared)
            try:
                return self._rate(launch, partial(operator.mul, float(pairs * self._blocks))), by
            except Exception as error:  # of CuPy, NVRTC or the driver: a scan would not run either
                said.append(f"{by}: {type(error).__name__}: {error}")
        return None, "; ".join(said)

    def _launch_product(self, file: str, name: str, shared: int, steps: int) -> None:
        kernel = self._device.launcher.kernel(file, name)
        kernel((self._blocks,), (_THREADS,), (np.int32(steps), self._sum), shared=shared)

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

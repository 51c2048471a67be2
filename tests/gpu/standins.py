"""What stands in for a GPU and for the index on it where there is neither: arrays that behave as
CuPy's, and the oracle."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import strict
from numpy.typing import NDArray

from faiss_dmih import reference
from faiss_dmih.bench.cuda.device import Gpu, Result
from faiss_dmih.gpu.kernels import Launcher


class HostDevice:
    """A `Device` whose kernels run where `launcher` runs them, over the host's memory."""

    def __init__(self, launcher: Launcher, memory_gib: float = 2**-14) -> None:
        self.launcher = launcher
        self._gpu = Gpu("stand-in", "9.0", 1, 1000.0, memory_gib, 0.1, "1.2.3", "13.0", "13.0", "0")

    def describe(self) -> Gpu:
        return self._gpu

    def empty(self, count: int) -> strict.ndarray:
        return strict.empty(count, np.uint64)

    def upload(self, array: NDArray[Any]) -> strict.ndarray:
        return strict.asarray(array)

    def download(self, array: strict.ndarray) -> NDArray[Any]:
        return strict.asnumpy(array)

    def wait(self) -> None:
        pass

    def timed(self, action: Callable[[], Result]) -> tuple[float, Result]:
        start = time.perf_counter()
        result = action()
        return time.perf_counter() - start, result

    def trim(self) -> None:
        pass


class OracleIndex:
    """`GpuIndexDMIH` as the benchmark uses it."""

    def __init__(self, d: int) -> None:
        self.d = d
        self.engine = "auto"
        self.reset()

    def add(self, x: strict.ndarray) -> None:
        self.xb = np.concatenate([self.xb, x.get()])

    def reset(self) -> None:
        self.xb = np.empty((0, self.d // 8), np.uint8)

    def memory_usage(self) -> dict[str, int]:
        return {"codes": self.xb.nbytes, "total": 2 * self.xb.nbytes}

    def force_engine(self, name: str) -> None:
        assert name in ("auto", "scan", "tensor", "probe")
        self.engine = name

    def search(self, x: strict.ndarray, k: int) -> tuple[strict.ndarray, ...]:
        return tuple(map(strict.asarray, reference.knn(self.xb, x.get(), k)))

    def range_search(self, x: strict.ndarray, radius: int) -> tuple[strict.ndarray, ...]:
        lims, D, I = reference.range_search(self.xb, x.get(), radius)
        return tuple(map(strict.asarray, (lims.astype(np.int64), D.astype(np.int32), I)))

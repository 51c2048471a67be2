"""The device that is measured: what it is, its memory, its clock."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from faiss_dmih.data import DataUnavailable
from faiss_dmih.gpu.kernels import CudaLauncher, Launcher

Array = Any
"""An array in the device's memory."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Gpu:
    """Everything recorded about the GPU of a run."""

    name: str
    compute_capability: str
    multiprocessors: int
    clock_mhz: float
    """The highest that the driver names for multiprocessors; what it ran at is not known."""
    memory_gib: float
    l2_mib: float
    driver: str
    """As nvidia-smi has it; empty where there is none."""
    cuda_driver: str
    """The newest CUDA that the driver knows."""
    cuda_runtime: str
    cupy: str


class Device(Protocol):
    """What a run needs of a GPU. Work is queued; `download`, `timed` and `wait` wait for it."""

    launcher: Launcher

    def describe(self) -> Gpu: ...

    def empty(self, count: int) -> Array:
        """Space for `count` uint64. Raises `MemoryError` where there is not as much."""

    def upload(self, array: npt.NDArray[Any]) -> Array: ...

    def download(self, array: Array) -> npt.NDArray[Any]: ...

    def wait(self) -> None: ...

    def timed(self, action: Callable[[], Result]) -> tuple[float, Result]:
        """What `action` returns, and the seconds from before its first work to after its last.

        It is the device's clock: the time that the host takes to queue the work does not count
        where the device has other work to do meanwhile.
        """

    def trim(self) -> None:
        """Give memory back that is held for later, so that others see it as free."""


class CudaDevice:
    """The current CUDA device, by CuPy."""

    def __init__(self) -> None:
        """Raises `DataUnavailable` where there is no CuPy, or no GPU."""
        self.launcher: Launcher = CudaLauncher()
        try:
            self.launcher.kernel("random_words", "random_words")
        except (ImportError, RuntimeError) as error:
            raise DataUnavailable(str(error)) from error
        import cupy

        self._cupy = cupy

    def describe(self) -> Gpu:
        runtime, device = self._cupy.cuda.runtime, self._cupy.cuda.Device()
        attributes, capability = device.attributes, device.compute_capability
        return Gpu(
            name=runtime.getDeviceProperties(device.id)["name"].decode(),
            compute_capability=f"{capability[:-1]}.{capability[-1]}",
            multiprocessors=attributes["MultiProcessorCount"],
            clock_mhz=attributes["ClockRate"] / 1e3,
            memory_gib=round(device.mem_info[1] / 2**30, 1),
            l2_mib=round(attributes["L2CacheSize"] / 2**20, 1),
            driver=_driver(),
            cuda_driver=_version(runtime.driverGetVersion()),
            cuda_runtime=_version(runtime.runtimeGetVersion()),
            cupy=self._cupy.__version__,
        )

    def empty(self, count: int) -> Array:
        return self._cupy.empty(count, np.uint64)

    def upload(self, array: npt.NDArray[Any]) -> Array:
        return self._cupy.asarray(array)

    def download(self, array: Array) -> npt.NDArray[Any]:
        return np.asarray(self._cupy.asnumpy(array))

    def wait(self) -> None:
        self._cupy.cuda.Device().synchronize()

    def timed(self, action: Callable[[], Result]) -> tuple[float, Result]:
        stream = self._cupy.cuda.get_current_stream()
        start = stream.record()
        result = action()
        end = stream.record()
        end.synchronize()
        return self._cupy.cuda.get_elapsed_time(start, end) / 1e3, result

    def trim(self) -> None:
        self._cupy.get_default_memory_pool().free_all_blocks()


def _version(number: int) -> str:
    """CUDA's way to write 13.0 is 13000.

    >>> _version(12080)
    '12.8'
    """
    return f"{number // 1000}.{number % 1000 // 10}"


def _driver() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.split("\n", 1)[0].strip() if done.returncode == 0 else ""

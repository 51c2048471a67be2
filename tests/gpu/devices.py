"""A device of NumPy arrays, whose kernels run on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from faiss_dmih.gpu.kernels import Kernel, Launcher

# For random tests of the whole index: sanitized, each of a search's ten launches is a process.
UNSANITIZED = pytest.mark.parametrize(
    "launcher", ["seed 1", pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True
)


def examples(share: float) -> settings:
    """So many times the examples of the profile in force."""
    return settings(max_examples=max(1, round(share * settings.default.max_examples)))


class DeviceArray(np.ndarray):
    """What callers hold of the device's memory."""


def on_device(x: NDArray[Any]) -> DeviceArray:
    return x.view(DeviceArray)


class Recorder:
    """A launcher that keeps the names of what it has started."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self.started = list[str]()

    def kernel(self, file: str, name: str, **defines: int) -> Kernel:
        kernel = self._launcher.kernel(file, name, **defines)

        def start(
            grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared: int = 0
        ) -> None:
            self.started.append(name)
            kernel(grid, block, args, shared=shared)

        return start


class NumpyDevice:
    """`faiss_dmih.gpu.device.Device` in host memory. `waits` counts copies to the host."""

    number = 0
    multiprocessors = 1
    shared_memory = 48 * 1024
    unsorted_k = 8  # small, so that both ways to sort are taken

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = Recorder(launcher)
        self.xp = np
        self.free = 1 << 40
        self.waits = 0
        self.active_now = 0

    @contextmanager
    def active(self, *callers: Any) -> Iterator[None]:
        self.active_now += 1
        yield
        self.active_now -= 1

    def free_memory(self) -> int:
        return self.free

    def owns(self, x: Any) -> bool:
        return isinstance(x, DeviceArray)

    def array_of(self, x: Any, name: str) -> Any:
        return x.view(np.ndarray)

    def to_host(self, x: Any) -> NDArray[Any]:
        self.waits += 1
        return np.array(x)

    def like(self, x: Any, answer: Any) -> Any:
        return on_device(answer)

    def read_later(self, x: Any) -> Callable[[], NDArray[Any] | None]:
        copy = np.array(x)
        return lambda: copy

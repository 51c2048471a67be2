"""A device of arrays that behave as CuPy's, whose kernels run on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import strict
from hypothesis import settings
from numpy.typing import NDArray

from faiss_dmih.gpu.kernels import Kernel, Launcher
from faiss_dmih.gpu.tensor import TensorCores

# For random tests of the whole index: sanitized, each of a search's ten launches is a process.
UNSANITIZED = pytest.mark.parametrize(
    "launcher", ["seed 1", pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True
)


def examples(share: float) -> settings:
    """So many times the examples of the profile in force."""
    return settings(max_examples=max(1, round(share * settings.default.max_examples)))


def on_device(x: NDArray[Any]) -> strict.ndarray:
    """As a caller has it there, whose memory is its own."""
    return strict.ndarray(x, "caller")


def from_device(*arrays: strict.ndarray) -> tuple[NDArray[Any], ...]:
    return tuple(x._host for x in arrays)


class OverStrict:
    """A launcher of kernels that run on the CPU, for the device's arrays."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def kernel(self, file: str, name: str, **defines: int) -> Kernel:
        kernel = self._launcher.kernel(file, name, **defines)

        def start(
            grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared: int = 0
        ) -> None:
            kernel(grid, block, tuple(map(strict.argument, args)), shared=shared)

        return start


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
            assert strict.stream() is not None
            self.started.append(name)
            kernel(grid, block, args, shared=shared)

        return start


class StrictDevice:
    """`faiss_dmih.gpu.device.Device` in host memory, with CuPy's ways."""

    number = 0
    multiprocessors = 1
    compute_capability = 75  # without tensor cores, but in tests of theirs
    shared_memory = 48 * 1024
    unsorted_k = 8  # small, so that both ways to sort are taken
    xp = strict

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = Recorder(OverStrict(launcher))
        self.free = 1 << 40
        self.tensor_cores = TensorCores()
        strict.waits = 0

    def reading(self, *callers: Any) -> AbstractContextManager[None]:
        return _on("caller")

    def changing(self, *callers: Any) -> AbstractContextManager[None]:
        return _on("kept")

    def free_memory(self) -> int:
        return self.free

    def owns(self, x: Any) -> bool:
        return isinstance(x, strict.ndarray)

    def array_of(self, x: Any, name: str) -> strict.ndarray:
        assert isinstance(x, strict.ndarray)
        return x

    def to_host(self, x: strict.ndarray) -> NDArray[Any]:
        return strict.asnumpy(x)

    def sort(self, x: strict.ndarray) -> strict.ndarray:
        out = x.copy()
        out.sort()
        return out

    def argsort(self, x: strict.ndarray) -> strict.ndarray:
        return strict.argsort(x, kind="stable")

    def like(self, x: Any, answer: strict.ndarray) -> strict.ndarray:
        assert answer.made_on == "caller"
        return answer

    def read_later(self, x: strict.ndarray) -> Callable[[], NDArray[Any] | None]:
        copy = x._host.copy()
        return lambda: copy


@contextmanager
def _on(stream: str) -> Iterator[None]:
    before = strict.stream()
    strict.here.stream = stream
    try:
        yield
    finally:
        strict.here.stream = before

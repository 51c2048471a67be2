"""A device as the GPU engine sees it: arrays by an array module, kernels by a launcher.

The driver is written against this alone. `CudaDevice` is CuPy; the tests have one of NumPy and of
kernels that run on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from faiss_dmih.gpu.kernels import CudaLauncher, Launcher, cupy

Array = Any
"""An array of the device: of `Device.xp`."""


class Device(Protocol):
    """Where an index lives."""

    number: int
    launcher: Launcher
    multiprocessors: int
    shared_memory: int
    """Bytes of shared memory that a block may have."""
    unsorted_k: int
    """Up to this k, answers are sorted in shared memory."""

    @property
    def xp(self) -> Any:
        """The array module: numpy or cupy."""

    def active(self, *callers: Any) -> AbstractContextManager[None]:
        """Makes the device the current one, with the stream on which `callers` are in use. What is
        started there comes after all that was started before, on whatever stream."""

    def free_memory(self) -> int:
        """Bytes that can be had now."""

    def owns(self, x: Any) -> bool:
        """Whether `x` is in the memory of a device."""

    def array_of(self, x: Any, name: str) -> Array:
        """`x`, which it owns, as an array; its memory is shared. Raises ValueError where `x` is in
        the memory of another device."""

    def to_host(self, x: Array) -> NDArray[Any]:
        """A copy in the memory of the host; waits for it."""

    def like(self, x: Any, answer: Array) -> Any:
        """`answer` as the library of `x`, which the device owns, has it; its memory is shared."""

    def read_later(self, x: Array) -> Callable[[], NDArray[Any] | None]:
        """Starts a copy to the host. The function returns it once it is there, None before."""


class CudaDevice:
    """A CUDA device by its number. Raises ImportError without CuPy, RuntimeError without a GPU."""

    def __init__(self, number: int) -> None:
        self._cupy = cupy()
        count = self._cupy.cuda.runtime.getDeviceCount()
        if not 0 <= number < count:
            raise ValueError(f"got device {number}, expected 0 to {count - 1}: there are {count}")
        self.number = number
        self.launcher: Launcher = CudaLauncher()
        attributes = self._cupy.cuda.Device(number).attributes
        self.multiprocessors = int(attributes["MultiProcessorCount"])
        self.shared_memory = int(attributes["MaxSharedMemoryPerBlockOptin"])
        self.unsorted_k = 2048
        self._streams = dict[int, Any]()  # on which something may be under way, by their handles
        self._order = Lock()

    @property
    def xp(self) -> Any:
        return self._cupy

    @contextmanager
    def active(self, *callers: Any) -> Any:
        with ExitStack() as stack:
            stack.enter_context(self._cupy.cuda.Device(self.number))
            for x in callers:
                if _is_torch(x) and x.is_cuda:
                    import torch

                    # Torch has a current stream of its own.
                    stack.enter_context(self._stream(torch.cuda.current_stream(self.number)))
                    break
            stream = self._cupy.cuda.get_current_stream()
            self._wait_for_others(stream)
            try:
                yield
            finally:
                # Again: another thread may have waited for what was there half-way.
                with self._order:
                    self._streams[stream.ptr] = stream

    def _wait_for_others(self, stream: Any) -> None:
        """Streams know nothing of each other: a search on one would read what an add on another
        has not written yet. With one stream this is nothing."""
        with self._order:
            for ptr in [ptr for ptr in self._streams if ptr != stream.ptr]:
                stream.wait_event(self._streams.pop(ptr).record())
            self._streams[stream.ptr] = stream

    def _stream(self, torch_stream: Any) -> Any:
        if hasattr(self._cupy.cuda.Stream, "from_external") and hasattr(
            torch_stream, "__cuda_stream__"
        ):
            return self._cupy.cuda.Stream.from_external(torch_stream)
        return self._cupy.cuda.ExternalStream(torch_stream.cuda_stream, device_id=self.number)

    def free_memory(self) -> int:
        pool = self._cupy.get_default_memory_pool()
        return int(self._cupy.cuda.runtime.memGetInfo()[0]) + int(pool.free_bytes())

    def owns(self, x: Any) -> bool:
        if isinstance(x, self._cupy.ndarray) or hasattr(x, "__cuda_array_interface__"):
            return True
        device = getattr(x, "__dlpack_device__", None)
        return device is not None and device()[0] in (2, 13)  # CUDA, CUDA managed

    def array_of(self, x: Any, name: str) -> Array:
        if not isinstance(x, self._cupy.ndarray):
            # DLPack orders this stream after the producer's; so does CuPy for the other protocol.
            x = self._cupy.from_dlpack(x) if hasattr(x, "__dlpack__") else self._cupy.asarray(x)
        if x.device.id != self.number:
            raise ValueError(
                f"{name}: got an array on device {x.device.id}, expected device {self.number}, "
                "where the index is: copy it there first"
            )
        return x

    def to_host(self, x: Array) -> NDArray[Any]:
        out: NDArray[Any] = self._cupy.asnumpy(x)
        return out

    def like(self, x: Any, answer: Array) -> Any:
        if not _is_torch(x):
            return answer
        import torch

        if answer.dtype == np.uint64:  # torch hardly knows it
            answer = answer.view(np.int64)
        return torch.from_dlpack(answer)

    def read_later(self, x: Array) -> Callable[[], NDArray[Any] | None]:
        pinned = self._cupy.cuda.alloc_pinned_memory(x.nbytes)
        copy = np.frombuffer(pinned, x.dtype, x.size).reshape(x.shape)
        stream = self._cupy.cuda.get_current_stream()
        x.get(stream=stream, out=copy, blocking=False)
        event = stream.record()

        def read() -> NDArray[Any] | None:
            return copy if event.done else None

        return read


def _is_torch(x: Any) -> bool:
    return type(x).__module__.partition(".")[0] == "torch"

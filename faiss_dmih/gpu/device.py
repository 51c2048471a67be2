"""A device as the GPU engine sees it: arrays by an array module, kernels by a launcher.

The driver is written against this alone. `CudaDevice` is CuPy; the tests have one of NumPy and of
kernels that run on the CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from faiss_dmih.gpu.kernels import CudaLauncher, Launcher, cupy
from faiss_dmih.gpu.tensor import TensorCores

Array = Any
"""An array of the device: of `Device.xp`."""


class Device(Protocol):
    """Where an index lives."""

    number: int
    launcher: Launcher
    multiprocessors: int
    compute_capability: int
    """90 is 9.0."""
    tensor_cores: TensorCores
    shared_memory: int
    """Bytes of shared memory that a block may have."""
    unsorted_k: int
    """Up to this k, answers are sorted in shared memory."""

    @property
    def xp(self) -> Any:
        """The array module: numpy or cupy."""

    def reading(self, *callers: Any) -> AbstractContextManager[None]:
        """Makes the device the current one, with the stream on which `callers` are in use. What
        was changed before is seen, and nothing of it is overwritten before this has been read."""

    def changing(self, *callers: Any) -> AbstractContextManager[None]:
        """The same, to make or change what is kept. Its memory is never given to others while
        somebody reads it."""

    def free_memory(self) -> int:
        """Bytes that can be had now."""

    def owns(self, x: Any) -> bool:
        """Whether `x` is in the memory of a device."""

    def array_of(self, x: Any, name: str) -> Array:
        """`x`, which it owns, as an array; its memory is shared. Raises ValueError where `x` is in
        the memory of another device."""

    def to_host(self, x: Array) -> NDArray[Any]:
        """A copy in the memory of the host; waits for it."""

    def sort(self, x: Array) -> Array:
        """A sorted copy; may wait for the device. Raises MemoryError where it does not fit."""

    def argsort(self, x: Array) -> Array:
        """The indices int64 that sort x, equal values in order; likewise."""

    def like(self, x: Any, answer: Array) -> Any:
        """`answer` as the library of `x`, which the device owns, has it; its memory is shared."""

    def read_later(self, x: Array) -> Callable[[], NDArray[Any] | None]:
        """Starts a copy to the host. The function returns it once it is there, None before."""


class CudaDevice:
    """A CUDA device by its number. Raises ImportError without CuPy, RuntimeError without a GPU.

    Callers work on streams of their own, and CuPy's memory pool gives an array's memory to the next
    one of the stream that it was made on. What is kept is therefore made, changed and freed on one
    stream of ours: readers wait for the last change there, and that stream for the readers. Nobody
    else's stream waits, and neither does the host.
    """

    def __init__(self, number: int) -> None:
        self._cupy = cupy()
        count = self._cupy.cuda.runtime.getDeviceCount()
        if not 0 <= number < count:
            raise ValueError(f"got device {number}, expected 0 to {count - 1}: there are {count}")
        self.number = number
        self.launcher: Launcher = CudaLauncher()
        with self._cupy.cuda.Device(number) as device:
            attributes = device.attributes
            self.compute_capability = int(device.compute_capability)
            self._kept = _stream_of_what_is_kept(number)
            self._changed = self._cupy.cuda.Event(disable_timing=True)
        self.multiprocessors = int(attributes["MultiProcessorCount"])
        self.shared_memory = int(attributes["MaxSharedMemoryPerBlockOptin"])
        self.unsorted_k = 2048
        self.tensor_cores = _tensor_cores(number)

    @property
    def xp(self) -> Any:
        return self._cupy

    @contextmanager
    def reading(self, *callers: Any) -> Iterator[None]:
        with self._current(callers) as stream:
            stream.wait_event(self._changed)
            try:
                yield
            finally:
                self._follow(self._kept, stream)

    @contextmanager
    def changing(self, *callers: Any) -> Iterator[None]:
        with self._current(callers) as stream:
            self._follow(self._kept, stream)
            with self._kept:
                try:
                    yield
                finally:
                    self._kept.record(self._changed)
                    # The caller may now do with its arrays what it likes.
                    stream.wait_event(self._changed)

    @contextmanager
    def _current(self, callers: tuple[Any, ...]) -> Iterator[Any]:
        """The stream on which the callers' arrays are in use, made the current one."""
        with ExitStack() as stack:
            stack.enter_context(self._cupy.cuda.Device(self.number))
            if any(_is_torch(x) and x.is_cuda for x in callers):
                import torch

                # Torch has a current stream of its own.
                pointer = torch.cuda.current_stream(self.number).cuda_stream
                stack.enter_context(self._foreign_stream(pointer))
            yield self._cupy.cuda.get_current_stream()

    def _follow(self, behind: Any, ahead: Any) -> None:
        """What comes on one stream waits for what is on the other."""
        behind.wait_event(ahead.record(self._cupy.cuda.Event(disable_timing=True)))

    def _foreign_stream(self, pointer: int) -> Any:
        cuda = self._cupy.cuda
        if hasattr(cuda.Stream, "from_external"):  # CuPy 14, where the other way is deprecated
            return cuda.Stream.from_external(_ForeignStream(pointer))
        return cuda.ExternalStream(pointer, self.number)

    def free_memory(self) -> int:
        pool = self._cupy.get_default_memory_pool()
        return int(self._cupy.cuda.runtime.memGetInfo()[0]) + int(pool.free_bytes())

    def owns(self, x: Any) -> bool:
        if isinstance(x, self._cupy.ndarray):
            return True
        # First: torch's tensors speak both protocols, but some of them raise at the other.
        device = getattr(x, "__dlpack_device__", None)
        if device is not None:
            return device()[0] in (2, 13)  # CUDA, CUDA managed
        return hasattr(x, "__cuda_array_interface__")

    def array_of(self, x: Any, name: str) -> Array:
        if not isinstance(x, self._cupy.ndarray):
            if _is_torch(x):
                x = x.detach()
            # Both order this stream after the producer's, the second by waiting for it.
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

    def sort(self, x: Array) -> Array:
        out = x.copy()
        self._have_room(_work_space(out.nbytes))
        out.sort()
        return out

    def argsort(self, x: Array) -> Array:
        indices = 8 * x.size
        self._have_room(x.nbytes, indices, _work_space(x.nbytes + indices))
        return self._cupy.argsort(x, kind="stable")

    def _have_room(self, *sizes: int) -> None:
        """Raises MemoryError unless so much can be had. Up to version 14.0 CuPy's sorts give wrong
        answers, and no error, where there is no memory for their work space."""
        blocks = [self._cupy.empty(size, np.uint8) for size in sizes]
        blocks.clear()  # the pool has them for who asks next

    def like(self, x: Any, answer: Array) -> Any:
        if not _is_torch(x):
            return answer
        import torch

        if answer.dtype == np.uint64:  # torch hardly knows it
            answer = answer.view(np.int64)
        if answer.size == 0:  # at a null pointer CUDA cannot tell whose memory it is
            dtype = getattr(torch, answer.dtype.name)
            return torch.empty(answer.shape, dtype=dtype, device=x.device)
        return torch.from_dlpack(answer)

    def read_later(self, x: Array) -> Callable[[], NDArray[Any] | None]:
        pinned = self._cupy.cuda.alloc_pinned_memory(x.nbytes)
        copy = np.frombuffer(pinned, x.dtype, x.size).reshape(x.shape)
        stream = self._cupy.cuda.get_current_stream()
        x.get(stream=stream, out=copy, blocking=False)
        event = stream.record()
        for key, (done, _) in list(_under_way.items()):
            if done.done:
                _under_way.pop(key, None)
        _under_way[id(copy)] = event, copy

        def read() -> NDArray[Any] | None:
            return copy if event.done else None

        return read


_under_way: dict[int, tuple[Any, NDArray[Any]]] = {}
"""Copies to the host: until they are there, nobody else may be given their memory, even where
whoever has asked for them is gone."""


class _ForeignStream:
    """A stream of another library, by CUDA's protocol for them."""

    def __init__(self, pointer: int) -> None:
        self._pointer = pointer

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._pointer


@cache
def _tensor_cores(number: int) -> TensorCores:
    """What is known of them, to all indexes on the device."""
    return TensorCores()


@cache
def _stream_of_what_is_kept(number: int) -> Any:
    """One for all indexes on the device, which must be current: what one frees another can use."""
    return cupy().cuda.Stream(non_blocking=True)


def _work_space(nbytes: int) -> int:
    """What sorting takes beside the array: as much again, and counters."""
    return nbytes + nbytes // 8 + (1 << 20)


def _is_torch(x: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)

"""CudaDevice asks CuPy for the right things: over a CuPy of which only the calls are real.

On which stream something runs, who waits for whom, and what is answered to torch. What CuPy does
then, only a GPU tells: test_on_cuda.py.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import strict

from faiss_dmih.gpu import device as module
from faiss_dmih.gpu.device import CudaDevice

TORCHS = 77
"""The pointer of torch's current stream."""


class Cuda:
    """cupy.cuda: streams are their pointers, `log` has what was done on them."""

    def __init__(self) -> None:
        self.log = list[tuple[Any, ...]]()
        self.current = [self.stream(0)]
        self.done = True
        cuda = self

        class Stream:
            def __new__(cls, non_blocking: bool = False) -> Any:
                assert non_blocking
                return cuda.stream(5)

            @staticmethod
            def from_external(theirs: Any) -> Any:
                version, pointer = theirs.__cuda_stream__()
                assert version == 0
                return cuda.stream(pointer)

        self.Stream = Stream
        self.runtime = SimpleNamespace(getDeviceCount=lambda: 1, memGetInfo=lambda: (1000, 2000))

    def stream(self, pointer: int) -> Any:
        cuda = self

        class One:
            def __enter__(self) -> None:
                cuda.current.append(self)

            def __exit__(self, *_: Any) -> None:
                assert cuda.current.pop() is self

            def record(self, event: Any = None) -> Any:
                event = event or cuda.Event()
                event.at = pointer
                cuda.log.append(("record", pointer))
                return event

            def wait_event(self, event: Any) -> None:
                cuda.log.append(("wait", pointer, event.at))

        one = One()
        one.pointer = pointer  # type: ignore[attr-defined]
        return one

    def get_current_stream(self) -> Any:
        return self.current[-1]

    def Event(self, disable_timing: bool = False) -> Any:
        return SimpleNamespace(at=None, done=self.done)

    def alloc_pinned_memory(self, size: int) -> bytearray:
        return bytearray(512)

    def Device(self, number: int) -> Any:
        assert number == 0
        found = {"MultiProcessorCount": 4, "MaxSharedMemoryPerBlockOptin": 1 << 16}

        class One:
            attributes = found
            compute_capability = "90"

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: Any) -> None:
                pass

        return One()


class Array(strict.ndarray):
    device = SimpleNamespace(id=0)

    def get(self, stream: Any, out: Any, blocking: bool) -> None:
        assert not blocking
        out[...] = self._host


class Tensor:
    """torch's, on the GPU. Shares memory with what it was made of."""

    requires_grad = True
    is_cuda = True
    device = "cuda:0"

    def __init__(self, of: Any) -> None:
        self.of = of

    def detach(self) -> Any:
        self.requires_grad = False
        return self

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __dlpack__(self) -> Any:
        assert not self.requires_grad
        return self.of

    @property
    def __cuda_array_interface__(self) -> Any:
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    fake: Any = Cuda()
    free = SimpleNamespace(free_bytes=lambda: 24)
    cupy = SimpleNamespace(
        cuda=fake,
        ndarray=Array,
        from_dlpack=lambda x: x.__dlpack__(),
        get_default_memory_pool=lambda: free,
        **{name: getattr(strict, name) for name in ("empty", "argsort", "asnumpy")},
    )
    fake.cupy = cupy
    torch: Any = ModuleType("torch")
    torch.Tensor = Tensor
    torch.cuda = SimpleNamespace(current_stream=lambda _: SimpleNamespace(cuda_stream=TORCHS))
    torch.from_dlpack = Tensor
    torch.empty = lambda shape, dtype, device: Tensor((shape, dtype, device))
    torch.int64 = "torch.int64"
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(module, "cupy", lambda: cupy)
    monkeypatch.setattr(module, "CudaLauncher", SimpleNamespace)
    monkeypatch.setattr(module, "_under_way", {})
    module._stream_of_what_is_kept.cache_clear()
    yield fake
    module._stream_of_what_is_kept.cache_clear()


@pytest.mark.parametrize(("caller", "pointer"), [(None, 0), (Tensor(None), TORCHS)])
def test_who_waits_for_whom(cuda: Cuda, caller: Any, pointer: int) -> None:
    device, other = CudaDevice(0), CudaDevice(0)
    with device.changing(caller):
        assert cuda.get_current_stream().pointer == 5
    asked, first = (
        [("record", pointer), ("wait", 5, pointer)],
        [("record", 5), ("wait", pointer, 5)],
    )
    assert cuda.log == asked + first
    cuda.log.clear()
    with device.reading(caller):
        assert cuda.get_current_stream().pointer == pointer
        # What is read may be freed when this is over: on the other stream, after it.
        assert cuda.log == first[1:]
    assert cuda.log == first[1:] + asked
    assert cuda.get_current_stream().pointer == 0
    assert other._kept is device._kept


def test_order_is_kept_when_something_fails(cuda: Cuda) -> None:
    device = CudaDevice(0)
    for context, waits in ((device.changing, ("wait", 0, 5)), (device.reading, ("wait", 5, 0))):
        cuda.log.clear()
        with pytest.raises(KeyError), context():
            raise KeyError
        assert cuda.log[-1] == waits
        assert cuda.get_current_stream().pointer == 0


def test_whose_arrays(cuda: Cuda) -> None:
    device = CudaDevice(0)
    x = Array(np.arange(3))
    interface = SimpleNamespace(__cuda_array_interface__={})
    there = {"cupy": x, "torch": Tensor(x), "numba": interface}
    assert all(device.owns(one) for one in there.values())
    assert not any(device.owns(one) for one in (np.arange(3), [1, 2], None))
    assert device.array_of(x, "x") is device.array_of(Tensor(x), "x") is x
    elsewhere = Array(np.arange(3))
    elsewhere.device = SimpleNamespace(id=1)
    with pytest.raises(ValueError, match="x: got an array on device 1, expected device 0"):
        device.array_of(elsewhere, "x")


def test_answers_to_torch(cuda: Cuda) -> None:
    device, tensor = CudaDevice(0), Tensor(None)
    limits = Array(np.arange(3, dtype=np.uint64))
    assert device.like(None, limits) is limits
    answer = device.like(tensor, limits)
    assert type(answer) is Tensor
    assert answer.of.dtype == np.int64
    none = device.like(tensor, Array(np.empty((0, 3), np.int64)))
    assert none.of == ((0, 3), "torch.int64", "cuda:0")


def test_a_sort_without_memory_is_refused(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    device = CudaDevice(0)
    x = Array(np.array([3, 1, 2], np.uint64))
    assert device.sort(x).get().tolist() == [1, 2, 3]
    assert device.argsort(x).get().tolist() == [1, 2, 0]

    def full(size: int, dtype: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(cuda.cupy, "empty", full)
    for sort in (device.sort, device.argsort):
        with pytest.raises(MemoryError):
            sort(x)


def test_copies_keep_their_memory_until_they_are_there(cuda: Cuda) -> None:
    device = CudaDevice(0)
    cuda.done = False
    read = device.read_later(Array(np.array([3], np.uint32)))
    (event, _), *_ = module._under_way.values()
    assert read() is None
    del read
    device.read_later(Array(np.array([4], np.uint32)))
    assert len(module._under_way) == 2
    event.done = True
    device.read_later(Array(np.array([5], np.uint32)))
    assert [int(copy[0]) for _, copy in module._under_way.values()] == [4, 5]
    assert device.free_memory() == 1024

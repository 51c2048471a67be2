"""FAISS's functions for GPUs, as faiss-gpu has them, take the indexes of this package."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import faiss
import numpy as np
import pytest
from brute import Brute
from checks import assert_same
from strategies import Case

import faiss_dmih
from faiss_dmih import IndexDMIH, faiss_hooks, reference

CASE = Case(d=64, n=301, nq=20, kind="duplicates", seed=1)
NAMES = (
    "index_binary_cpu_to_gpu",
    "index_binary_cpu_to_gpu_multiple",
    "index_binary_gpu_to_cpu",
)


class Devices:
    """What faiss.Int32Vector has."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def size(self) -> int:
        return len(self.numbers)

    def at(self, i: int) -> int:
        return self.numbers[i]


class Options:
    def __init__(self, shard: bool) -> None:
        self.shard = shard


@pytest.fixture
def faiss_gpu() -> Any:
    """A namespace with the functions of faiss-gpu, which return what they were called with."""

    def index_binary_cpu_to_gpu(provider: Any, device: int, index: Any, options: Any = None) -> Any:
        """converts any CPU index that can be converted to GPU"""
        return "cpu_to_gpu", provider, device, index, options

    def index_binary_cpu_to_gpu_multiple(
        provider: Any, devices: Any, index: Any, options: Any = None
    ) -> Any:
        return "cpu_to_gpu_multiple", provider, devices, index, options

    def index_binary_gpu_to_cpu(gpu_index: Any) -> Any:
        return "gpu_to_cpu", gpu_index

    def index_cpu_to_gpu(*args: Any) -> Any:
        return args

    module: Any = ModuleType("faiss")
    module.gpu_wrappers = ModuleType("faiss.gpu_wrappers")
    for namespace in (module, module.gpu_wrappers):
        namespace.index_binary_cpu_to_gpu = index_binary_cpu_to_gpu
        namespace.index_binary_cpu_to_gpu_multiple = index_binary_cpu_to_gpu_multiple
        namespace.index_binary_gpu_to_cpu = index_binary_gpu_to_cpu
        namespace.index_cpu_to_gpu = index_cpu_to_gpu
    module.IndexBinaryReplicas = faiss.IndexBinaryReplicas
    module.IndexBinaryShards = faiss.IndexBinaryShards
    return module


class OnDevice(Brute):
    def __init__(self, index: Any, device: int, first: int, n: int) -> None:
        super().__init__(index.d)
        self.add(index.reconstruct_n(first, n))
        self.device = device

    def to_cpu(self) -> Any:
        index = IndexDMIH(self.d)
        index.add(self.xb)
        return index


@pytest.fixture
def to_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(index: Any, device: int = 0) -> OnDevice:
        return OnDevice(index, device, 0, index.ntotal)

    monkeypatch.setattr(IndexDMIH, "to_gpu", copy)
    monkeypatch.setattr(faiss_hooks.gpu, "copy_to_gpu", OnDevice)


def filled() -> Any:
    index = IndexDMIH(CASE.d)
    index.add(CASE.xb)
    return index


@pytest.mark.usefixtures("to_gpu")
def test_there_and_back(faiss_gpu: Any) -> None:
    faiss_hooks.install(faiss_gpu)
    index = filled()
    for there in (
        faiss_gpu.index_binary_cpu_to_gpu(object(), 3, index),
        faiss_gpu.index_binary_cpu_to_gpu(object(), 3, index, object()),
        faiss_gpu.index_binary_cpu_to_gpu(provider=None, device=3, index=index, options=None),
    ):
        assert isinstance(there, OnDevice)
        assert (there.device, there.ntotal) == (3, CASE.n)
        back = faiss_gpu.index_binary_gpu_to_cpu(there)
        assert isinstance(back, IndexDMIH)
        assert_same(back.search(CASE.xq, 4), index.search(CASE.xq, 4))


def test_other_indexes_are_faiss_s_matter(faiss_gpu: Any) -> None:
    faiss_hooks.install(faiss_gpu)
    index, provider, options = faiss.IndexBinaryFlat(64), object(), object()
    for namespace in (faiss_gpu, faiss_gpu.gpu_wrappers):
        one = namespace.index_binary_cpu_to_gpu(provider, 1, index, options)
        assert one == ("cpu_to_gpu", provider, 1, index, options)
        assert namespace.index_binary_cpu_to_gpu(provider, 1, index)[4] is None
        devices = Devices(0, 1)
        several = namespace.index_binary_cpu_to_gpu_multiple(provider, devices, index, options)
        assert several == ("cpu_to_gpu_multiple", provider, devices, index, options)
        assert namespace.index_binary_gpu_to_cpu(index) == ("gpu_to_cpu", index)


@pytest.mark.usefixtures("to_gpu")
@pytest.mark.parametrize("wrappers", [False, True])
def test_several_devices(faiss_gpu: Any, wrappers: bool) -> None:
    """FAISS's own wrappers, as index_cpu_to_all_gpus, find the function in gpu_wrappers."""
    faiss_hooks.install(faiss_gpu)
    namespace = faiss_gpu.gpu_wrappers if wrappers else faiss_gpu
    copy = namespace.index_binary_cpu_to_gpu_multiple
    index, expected = filled(), reference.knn(CASE.xb, CASE.xq, 4)

    one = copy(None, Devices(5), index, Options(shard=True))
    assert (one.device, one.ntotal) == (5, CASE.n)

    for options in (None, Options(shard=False)):
        replicas = copy(None, Devices(2, 0, 1), index, options)
        assert isinstance(replicas, faiss.IndexBinaryReplicas)
        parts = replicas.referenced_objects
        assert [(part.device, part.ntotal) for part in parts] == [(2, 301), (0, 301), (1, 301)]
        assert_same(replicas.search(CASE.xq, 4), expected)

    shards = copy(None, Devices(2, 0, 1), index, Options(shard=True))
    assert isinstance(shards, faiss.IndexBinaryShards)
    parts = shards.referenced_objects
    assert [(part.device, part.ntotal) for part in parts] == [(2, 100), (0, 100), (1, 101)]
    assert shards.ntotal == CASE.n
    np.testing.assert_array_equal(shards.search(CASE.xq, 4)[0], expected[0])


def test_once_is_enough(faiss_gpu: Any) -> None:
    originals = {name: getattr(faiss_gpu, name) for name in NAMES}
    other = faiss_gpu.index_cpu_to_gpu
    faiss_hooks.install(faiss_gpu)
    installed = {name: getattr(faiss_gpu, name) for name in NAMES}
    faiss_hooks.install(faiss_gpu)
    for name in NAMES:
        assert getattr(faiss_gpu, name) is installed[name]
        assert installed[name].__wrapped__ is originals[name]
        assert installed[name].__name__ == name
        assert installed[name].__doc__ == originals[name].__doc__
    assert faiss_gpu.index_cpu_to_gpu is other


def test_faiss_without_gpus() -> None:
    """faiss-cpu has none of these functions, and gets none."""
    module = ModuleType("faiss")
    faiss_hooks.install(module)
    assert not [name for name in NAMES if hasattr(module, name)]


@pytest.mark.skipif(hasattr(faiss, NAMES[0]), reason="this is faiss-gpu")
def test_faiss_cpu_is_left_alone() -> None:
    assert faiss_dmih.__version__
    assert not [name for name in NAMES if hasattr(faiss, name)]

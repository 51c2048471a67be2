"""FAISS's functions that copy binary indexes to GPUs and back, for the indexes of this package.

Only faiss-gpu has them. Its C++ knows its own kinds of index only, so that ours are answered for
before it is asked: `index_binary_cpu_to_gpu` and `index_binary_cpu_to_gpu_multiple` also take an
IndexDMIH, by its `to_gpu(device)`; `index_binary_gpu_to_cpu` any index with a method `to_cpu()`.
Of several devices each gets a replica or, if `options.shard`, a shard, in the composites that FAISS
puts its own indexes in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faiss_dmih.index import IndexDMIH, copy_to_gpu, search_and_reconstruct

Function = Callable[..., Any]


def _cpu_to_gpu(original: Function, faiss: Any) -> Function:
    def index_binary_cpu_to_gpu(provider: Any, device: int, index: Any, options: Any = None) -> Any:
        if isinstance(index, IndexDMIH):
            return index.to_gpu(device)
        return original(provider, device, index, options)

    return index_binary_cpu_to_gpu


def _gpu_to_cpu(original: Function, faiss: Any) -> Function:
    def index_binary_gpu_to_cpu(gpu_index: Any) -> Any:
        if hasattr(gpu_index, "to_cpu"):
            return gpu_index.to_cpu()
        return original(gpu_index)

    return index_binary_gpu_to_cpu


def _cpu_to_gpu_multiple(original: Function, faiss: Any) -> Function:
    def index_binary_cpu_to_gpu_multiple(
        provider: Any, devices: Any, index: Any, options: Any = None
    ) -> Any:
        if not isinstance(index, IndexDMIH):
            return original(provider, devices, index, options)
        count = devices.size()
        if count == 1:
            return index.to_gpu(devices.at(0))
        if options is None or not options.shard:
            replicas = faiss.IndexBinaryReplicas(index.d, True)
            for i in range(count):
                replicas.addIndex(index.to_gpu(devices.at(i)))
            return replicas
        shards = faiss.IndexBinaryShards(index.d, True, True)
        for i in range(count):
            first, last = (index.ntotal * end // count for end in (i, i + 1))
            shards.add_shard(copy_to_gpu(index, devices.at(i), first, last - first))
        return shards

    return index_binary_cpu_to_gpu_multiple


HOOKS: dict[str, Callable[[Function, Any], Function]] = {
    "index_binary_cpu_to_gpu": _cpu_to_gpu,
    "index_binary_cpu_to_gpu_multiple": _cpu_to_gpu_multiple,
    "index_binary_gpu_to_cpu": _gpu_to_cpu,
}


# FAISS's Python layer wraps this method for no binary index: it takes pointers.
def install_search_and_reconstruct(faiss: Any) -> None:
    """Let `IndexBinaryIDMap` and `IndexBinaryIDMap2` return arrays for `(x, k, *, params=None)`.

    Called with pointers, as SWIG has it, the method is as before.
    """
    for kind in (faiss.IndexBinaryIDMap, faiss.IndexBinaryIDMap2):
        original = kind.search_and_reconstruct
        if not hasattr(original, "_faiss_dmih"):
            method: Any = wraps(original)(_search_and_reconstruct(original))
            method._faiss_dmih = True
            kind.search_and_reconstruct = method


def _search_and_reconstruct(original: Function) -> Function:
    class Raw:
        search_and_reconstruct = staticmethod(original)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(args) > 2 or not hasattr(args[0] if args else kwargs.get("x"), "shape"):
            return original(self, *args, **kwargs)

        def arrays(x: Any, k: int, *, params: Any = None) -> Any:
            return search_and_reconstruct(Raw, self, x, k, params)

        return arrays(*args, **kwargs)

    return method

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

from faiss_dmih.index import IndexDMIH, copy_to_gpu

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

"""The index on CUDA devices, driven through CuPy; importing this takes neither CuPy nor a GPU."""

from faiss_dmih.gpu.id_map import GpuIDMap
from faiss_dmih.gpu.index import GpuIndexDMIH
from faiss_dmih.gpu.several import GpuReplicas, GpuShards

__all__ = ["GpuIDMap", "GpuIndexDMIH", "GpuReplicas", "GpuShards"]

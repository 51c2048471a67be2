"""The index on CUDA devices, driven through CuPy; importing this takes neither CuPy nor a GPU."""

from faiss_dmih.gpu.index import GpuIndexDMIH

__all__ = ["GpuIndexDMIH"]

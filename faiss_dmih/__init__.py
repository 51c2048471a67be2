"""Exact Hamming k-NN and range search for FAISS.

>>> import faiss_dmih, numpy as np
>>> xb = np.random.default_rng(0).integers(0, 256, (10_000, 8), dtype=np.uint8)
>>> index = faiss_dmih.IndexDMIH(64)  # a faiss.IndexBinary
>>> index.add(xb)
>>> D, I = index.search(xb[:2], k=1)
>>> D.ravel().tolist(), I.ravel().tolist()
([0, 0], [0, 1])

The CUDA engine's names, `GpuIndexDMIH`, `GpuIDMap`, `GpuShards` and `GpuReplicas`, are imported
when they are first used. They, `codes`, `reference` and `metrics` need no FAISS. Where there is
none, all else raises ImportError when it is first used.
"""

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING

from faiss_dmih import _abi_check, codes, reference

_no_faiss = ""
try:
    _abi_check.check()
except _abi_check.NoFaiss as _error:
    _no_faiss = str(_error)
else:  # the native module cannot even be loaded where FAISS differs
    import faiss as _faiss

    from faiss_dmih import faiss_hooks as _faiss_hooks
    from faiss_dmih.index import (
        IndexDMIH,
        SearchParametersDMIH,
        available_simd_levels,
        reset_stats,
        set_simd_level,
        simd_level,
        stats,
    )
    from faiss_dmih.storage import read_index, write_index

    _faiss_hooks.install(_faiss)

__version__ = _version("faiss-dmih")
__all__ = [
    "IndexDMIH",
    "SearchParametersDMIH",
    "__version__",
    "available_simd_levels",
    "codes",
    "read_index",
    "reference",
    "reset_stats",
    "set_simd_level",
    "simd_level",
    "stats",
    "write_index",
]
_CUDA = ("GpuIDMap", "GpuIndexDMIH", "GpuReplicas", "GpuShards")

if TYPE_CHECKING:
    from faiss_dmih.gpu import GpuIDMap as GpuIDMap
    from faiss_dmih.gpu import GpuIndexDMIH as GpuIndexDMIH
    from faiss_dmih.gpu import GpuReplicas as GpuReplicas
    from faiss_dmih.gpu import GpuShards as GpuShards
else:  # type checkers would take it that every name is there

    def __getattr__(name: str) -> object:
        if name in _CUDA:
            return getattr(_import_module("faiss_dmih.gpu"), name)
        if _no_faiss and name in __all__:
            raise ImportError(_no_faiss, name="faiss")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_CUDA})

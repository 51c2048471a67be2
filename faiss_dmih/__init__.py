"""Exact Hamming k-NN and range search for FAISS.

>>> import faiss_dmih, numpy as np
>>> xb = np.random.default_rng(0).integers(0, 256, (10_000, 8), dtype=np.uint8)
>>> index = faiss_dmih.IndexDMIH(64)  # a faiss.IndexBinary
>>> index.add(xb)
>>> D, I = index.search(xb[:2], k=1)
>>> D.ravel().tolist(), I.ravel().tolist()
([0, 0], [0, 1])
"""

from importlib.metadata import version as _version

from faiss_dmih import _abi_check

_abi_check.check()  # before the native module, which cannot even be loaded where FAISS differs

from faiss_dmih import codes, reference  # noqa: E402
from faiss_dmih.index import (  # noqa: E402
    IndexDMIH,
    available_simd_levels,
    reset_stats,
    set_simd_level,
    simd_level,
    stats,
)

__version__ = _version("faiss-dmih")
__all__ = [
    "IndexDMIH",
    "__version__",
    "available_simd_levels",
    "codes",
    "reference",
    "reset_stats",
    "set_simd_level",
    "simd_level",
    "stats",
]

"""What `import faiss_dmih` extends in FAISS: functions that know FAISS's own kinds of index only.

Each is replaced by one that looks whether an index of ours is in it (or ours are the bytes), and
otherwise calls the original with what it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from faiss_dmih.faiss_hooks import factory, gpu, io, pickling, reconstruct

_HOOKS: dict[str, Callable[..., Callable[..., Any]]] = {
    **factory.HOOKS,
    **gpu.HOOKS,
    **io.HOOKS,
}


def install(faiss: Any) -> None:
    """Replace those functions in the namespace of FAISS's module; nothing else, and only once.

    A function that this FAISS does not have is not added.
    """
    # FAISS's wrappers of these functions, such as index_cpu_to_all_gpus, look names up where they
    # are defined.
    for module in (faiss, getattr(faiss, "gpu_wrappers", None)):
        for name, hook in _HOOKS.items():
            original = getattr(module, name, None)
            if original is not None and not hasattr(original, "_faiss_dmih"):
                replacement: Any = wraps(original)(hook(original, faiss))
                replacement._faiss_dmih = True
                setattr(module, name, replacement)
    pickling.install()
    reconstruct.install(faiss)

"""`search_and_reconstruct` of id maps with arrays.

FAISS's Python layer wraps this method for no binary index: it takes pointers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from faiss_dmih.index import search_and_reconstruct

Function = Callable[..., Any]


def install(faiss: Any) -> None:
    """Let `IndexBinaryIDMap` and `IndexBinaryIDMap2` return arrays for `(x, k, *, params=None)`.

    Called with pointers, as SWIG has it, the method is as before.
    """
    for name in ("IndexBinaryIDMap", "IndexBinaryIDMap2"):
        kind = getattr(faiss, name, None)
        original = getattr(kind, "search_and_reconstruct", None)
        if kind is not None and original is not None and not hasattr(original, "_faiss_dmih"):
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

"""What searches on GPUs have done, over all indexes: part of `faiss_dmih.stats()`."""

from __future__ import annotations

import threading
from typing import Any

_lock = threading.Lock()
_queries: dict[str, int] = {}
_not_on_tensor_cores: dict[str, str] = {}


def scanned(engine: str, queries: int) -> None:
    """So many queries were given to this scan."""
    with _lock:
        _queries[engine] = _queries.get(engine, 0) + queries


def refused(where: str, why: str) -> None:
    """Tensor cores were wanted, and this is why there were others."""
    with _lock:
        _not_on_tensor_cores[where] = why


def stats() -> dict[str, Any]:
    """Since the start or ``reset_stats()``; empty if nothing was searched for.

    ``queries``: by engine (``popc``, ``mma``, ``wgmma`` and ``imma`` are scans, by population
    counts, by the tensor cores of a warp or of four, and by their products of bytes; ``probe`` is
    counted beside the scan that takes what it leaves). ``not_on_tensor_cores``: why scans were not
    given to them though it would have paid, by device and length of code; absent where there is
    nothing to say.
    """
    with _lock:
        found: dict[str, Any] = {"queries": dict(_queries)} if _queries else {}
        if _not_on_tensor_cores:
            found["not_on_tensor_cores"] = dict(_not_on_tensor_cores)
        return found


def reset_stats() -> None:
    """Forgets all that `stats` tells."""
    with _lock:
        _queries.clear()
        _not_on_tensor_cores.clear()

"""Ray, where it is needed; nothing in this package imports it before."""

from __future__ import annotations

from typing import Any


def ray() -> Any:
    """The module. Raises ImportError, saying what to install, where it is not there."""
    try:
        import ray as module
    except ImportError as error:
        raise ImportError(
            f"faiss_dmih.distributed needs Ray ({error}): pip install 'faiss-dmih[ray]'"
        ) from None
    return module

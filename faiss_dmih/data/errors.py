"""The two ways of going wrong that a caller can do something about."""

from __future__ import annotations

import importlib
from types import ModuleType


class InputError(ValueError):
    """An argument or a file given by the caller is not usable; the message says what to do."""


class DataUnavailable(RuntimeError):
    """A named data set is neither here nor to be had; the message says what was tried."""


class NotDownloaded(DataUnavailable):
    """It is not here, and would be downloaded if that were allowed (`files.no_downloads`)."""


def require(module: str, purpose: str) -> ModuleType:
    """Import `module`, or raise `DataUnavailable` naming the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataUnavailable(
            f"{purpose} needs {module.split('.')[0]}, which cannot be imported ({error}): "
            "pip install 'faiss-dmih[bench]'"
        ) from error

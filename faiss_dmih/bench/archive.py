"""Finished work in a folder, one JSON file each, to be taken up again by a later run.

A file holds, besides the result, its *key*: everything that the result depends on. A result is
taken from the folder only if its key is that of the work to be done, to the letter. That of a cell
names the cell, the data, the protocol and the competitors; to all of them belong the machine, the
versions, and the very bytes of the native module, so that a rebuilt index is measured anew.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faiss_dmih import _engine
from faiss_dmih.bench.machine import Machine
from faiss_dmih.bench.results import FORMAT, CellResult, TrialResult, write_json

Key = dict[str, Any]


def identity(machine: Machine) -> Key:
    """What every result depends on: where it is measured, and which build is."""
    names = ("cpu", "cores", "simd", "faiss", "faiss_dmih")
    return {name: getattr(machine, name) for name in names} | {"build": _BUILD}


def fingerprint(path: Path) -> str:
    """Tells one file's bytes from another's."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


# Taken at import: what is loaded stays loaded, even where the file is replaced by a new build.
_BUILD = fingerprint(Path(_engine.__file__))


@dataclass(frozen=True)
class Archive:
    """Results in `folder`; without `reuse` they are written, but none is taken."""

    folder: Path
    identity: Key
    reuse: bool = False

    def find(self, name: str, key: Key) -> dict[str, Any] | None:
        """What was saved under `name` and the same `key`, without these; None if nothing was."""
        if not self.reuse:
            return None
        try:
            raw = json.loads(self._path(name).read_text(encoding="utf-8"))
            same = raw.pop("format") == FORMAT and raw.pop("key") == self._full(key)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return raw if same else None

    def save(self, name: str, key: Key, result: CellResult | TrialResult) -> None:
        """Write `result`, whole or not at all, in place of what has that name."""
        write_json(self._path(name), {"format": FORMAT, "key": self._full(key), **asdict(result)})

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _full(self, key: Key) -> Key:
        """As it comes back from a file: tuples are lists there."""
        full: Key = json.loads(json.dumps({**key, **self.identity}))
        return full

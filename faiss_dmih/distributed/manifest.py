"""What a folder of shards holds: the newest `manifest-NNNNNNNNNN.json` whose checksum is right.

A manifest names all files of one state of the index. It is written last, under a number that was
never used, and whatever no manifest names is no part of the index: a writer that is killed leaves
the state before.
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import asdict, dataclass, field
from typing import Any

from faiss_dmih import _engine
from faiss_dmih.distributed.errors import CommitConflict
from faiss_dmih.distributed.folder import Folder, Stored

FORMAT, VERSION = "faiss_dmih shards", 1
_MANIFEST = re.compile(r"manifest-(\d{10})\.json")
_FILE = re.compile(r"shard-\d{5}-[0-9a-f]{16}\.(ibdm|ids\.npy|removed\.npy)")


@dataclass(frozen=True)
class PartFiles:
    """Codes of a shard, in ascending order of their ids: an `IBDM` of all n, their ids (none: they
    count on from the first), and positions of those that were removed since it was written."""

    codes: Stored
    n: int
    first_id: int
    last_id: int
    ids: Stored | None = None
    removed: Stored | None = None
    n_removed: int = 0

    def files(self) -> list[Stored]:
        return [file for file in (self.codes, self.ids, self.removed) if file is not None]


@dataclass(frozen=True)
class ShardFiles:
    """The parts of a shard, oldest first, after so many changes."""

    changes: int = 0
    parts: tuple[PartFiles, ...] = ()

    @property
    def ntotal(self) -> int:
        return sum(part.n - part.n_removed for part in self.parts)


@dataclass(frozen=True)
class Manifest:
    """One committed state. `options` are those of the IndexDMIH of each part."""

    generation: int
    d: int
    next_id: int
    shards: tuple[ShardFiles, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        body = {"format": FORMAT, "version": VERSION, **asdict(self)}
        return (json.dumps({**body, "checksum": _checksum(body)}, indent=1) + "\n").encode()


def decode(data: bytes, name: str) -> Manifest:
    """ValueError: these are not the bytes that encode() has made."""
    try:
        body = json.loads(data)
        checksum = body.pop("checksum")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ValueError(f"{name} is damaged or half written") from None
    if checksum != _checksum(body):
        raise ValueError(f"{name} is damaged: its checksum is wrong")
    if (body.pop("format"), version := body.pop("version")) != (FORMAT, VERSION):
        raise ValueError(f"{name} is of version {version}, expected {FORMAT!r} version {VERSION}")
    shards = tuple(
        ShardFiles(shard["changes"], tuple(_part(part) for part in shard["parts"]))
        for shard in body.pop("shards")
    )
    return Manifest(**body, shards=shards)


def newest(folder: Folder) -> Manifest:
    """The state of the folder. A damaged manifest is one that somebody was writing when he was
    killed: the one before it counts, and a RuntimeWarning says so.

    Raises:
        FileNotFoundError: there is none. ValueError: all are damaged.
    """
    damaged = None
    while True:
        numbers = _numbers(folder)
        if not numbers:
            raise FileNotFoundError(f"{folder} holds no shards: there is no manifest")
        for number in reversed(numbers):
            name = _name(number)
            try:
                manifest = decode(folder.read(name), f"{folder}/{name}")
            except FileNotFoundError:
                break  # a commit has removed it since: there is a newer one
            except ValueError as error:
                damaged = error
                continue
            if damaged is not None:
                warnings.warn(
                    f"{damaged}; the index is that of the commit before", RuntimeWarning, 2
                )
            return manifest
        else:
            assert damaged is not None
            raise damaged


def write(folder: Folder, manifest: Manifest, after: int) -> Manifest:
    """Makes `manifest` the state of the folder, under a number of its own; `after`: generation of
    the state it was made of, 0 for none. Then removes what it does not name.

    Raises:
        CommitConflict: there is another state by now.
    """
    conflict = CommitConflict(
        f"{folder} was changed by somebody else since generation {after} was opened: open it anew; "
        "one process at a time commits"
    )
    numbers = _numbers(folder)
    sound = 0
    if numbers:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            sound = newest(folder).generation
    if sound != after:
        raise conflict
    number = max(numbers, default=0) + 1
    written = Manifest(number, manifest.d, manifest.next_id, manifest.shards, manifest.options)
    try:
        folder.create(_name(number), written.encode())
    except FileExistsError:
        raise conflict from None
    return written


def remove_unnamed(folder: Folder, manifest: Manifest) -> None:
    """Removes the files of other states, and of commits that did not end."""
    named = {file.name for shard in manifest.shards for p in shard.parts for file in p.files()}
    for name in folder.names():
        old = _MANIFEST.fullmatch(name)
        if (old and int(old[1]) < manifest.generation) or (
            _FILE.fullmatch(name) and name not in named
        ):
            folder.remove(name)


def _numbers(folder: Folder) -> list[int]:
    return sorted(int(m[1]) for name in folder.names() if (m := _MANIFEST.fullmatch(name)))


def _name(number: int) -> str:
    return f"manifest-{number:010d}.json"


def _checksum(body: dict[str, Any]) -> int:
    return _engine.crc32c(json.dumps(body, sort_keys=True).encode(), 0, False)


def _stored(said: dict[str, Any] | None) -> Stored | None:
    return None if said is None else Stored(**said)


def _part(said: dict[str, Any]) -> PartFiles:
    files = {key: _stored(said[key]) for key in ("codes", "ids", "removed")}
    return PartFiles(**{**said, **files})

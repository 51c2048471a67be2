"""A folder of files that are written once: on a local disk, or wherever `fsspec` reaches.

Files are never changed, and a new state of the index is a new manifest beside the old one. So
nothing is asked of a file system but that a file which was written can be read: half a manifest is
told by its checksum, whatever else is half there is in no manifest.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faiss_dmih import _engine
from faiss_dmih.data.files import cache_dir
from faiss_dmih.folders import atomic_file

_CHUNK = 1 << 22
_LOCAL = ("file://", "local://")


@dataclass(frozen=True)
class Stored:
    """A file of the folder: its name, size in bytes and CRC-32C."""

    name: str
    size: int
    crc: int


class Folder:
    """Args:
    path: of a local folder, or an URL that `fsspec` knows.
    cache: local folder for copies of files that are elsewhere, named by their checksums; by
        default one in `$XDG_CACHE_HOME/faiss_dmih`.
    """

    def __init__(self, path: str | os.PathLike[str], cache: str | None = None) -> None:
        self.path = os.fspath(path)
        for scheme in _LOCAL:
            self.path = self.path.removeprefix(scheme)
        self.is_local = "://" not in self.path
        if self.is_local:
            self.path = os.path.abspath(self.path)
        self._cache = Path(cache) if cache else cache_dir() / "shards"

    def __str__(self) -> str:
        return self.path

    def make(self) -> None:
        """Makes the folder where there is none."""
        if self.is_local:
            os.makedirs(self.path, exist_ok=True)
        else:
            fs, root = self._fs()
            fs.makedirs(root, exist_ok=True)

    def names(self) -> list[str]:
        """Of its files; none where there is no folder."""
        if self.is_local:
            return os.listdir(self.path) if os.path.isdir(self.path) else []
        fs, root = self._fs()
        fs.invalidate_cache(root)
        if not fs.isdir(root):
            return []
        return [str(name).rstrip("/").rpartition("/")[2] for name in fs.ls(root, detail=False)]

    def read(self, name: str) -> bytes:
        """All of a file. Raises FileNotFoundError."""
        if self.is_local:
            return (Path(self.path) / name).read_bytes()
        fs, root = self._fs()
        data: bytes = fs.cat_file(f"{root}/{name}")
        return data

    def create(self, name: str, data: bytes) -> None:
        """Writes a small file, on disk when this returns. FileExistsError where there is one."""
        if not self.is_local:
            fs, root = self._fs()
            fs.pipe_file(f"{root}/{name}", data, mode="create")
            return
        target = Path(self.path) / name
        scratch = target.with_name(f".{name}.{secrets.token_hex(4)}")
        try:
            with atomic_file(scratch) as file:
                os.write(file, data)
            os.link(scratch, target)  # unlike a rename it fails where there is one
            _sync_folder(target.parent)
        finally:
            scratch.unlink(missing_ok=True)

    def put(self, name: str, write: Callable[[Path], None]) -> Stored:
        """The file that `write` writes to the path it is given, put into the folder."""
        if self.is_local:
            target = Path(self.path) / name
            write(target)
            return Stored(name, *_measured(target))
        self._cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._cache, prefix=".put-") as scratch:
            local = Path(scratch) / name
            write(local)
            stored = Stored(name, *_measured(local))
            fs, root = self._fs()
            fs.put_file(str(local), f"{root}/{name}")
            local.rename(self._cached(stored))
        return stored

    def local(self, stored: Stored) -> Path:
        """A path of the file on this machine, fetched and compared with its checksum if it is
        elsewhere.

        Raises:
            FileNotFoundError: there is none. ValueError: it is another one.
        """
        if self.is_local:
            path = Path(self.path) / stored.name
            _check_size(path, stored)
            return path
        cached = self._cached(stored)
        if not cached.exists():
            fs, root = self._fs()
            self._cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._cache, prefix=".get-") as scratch:
                local = Path(scratch) / stored.name
                fs.get_file(f"{root}/{stored.name}", str(local))
                _check_size(local, stored)
                if _measured(local)[1] != stored.crc:
                    raise ValueError(f"{self}/{stored.name} is damaged: its checksum is wrong")
                local.rename(cached)
        return cached

    def remove(self, name: str) -> None:
        """Removes a file if it is there."""
        if self.is_local:
            (Path(self.path) / name).unlink(missing_ok=True)
            return
        fs, root = self._fs()
        if fs.exists(f"{root}/{name}"):
            fs.rm_file(f"{root}/{name}")

    def forget(self, stored: Stored) -> None:
        """Removes this machine's copy of a file that is elsewhere."""
        if not self.is_local:
            self._cached(stored).unlink(missing_ok=True)

    def _cached(self, stored: Stored) -> Path:
        return self._cache / f"{stored.crc:08x}-{stored.size}-{stored.name}"

    def _fs(self) -> tuple[Any, str]:
        import fsspec

        fs, root = fsspec.core.url_to_fs(self.path)
        return fs, root.rstrip("/")


def _measured(path: Path) -> tuple[int, int]:
    """Size and CRC-32C of a file."""
    size = crc = 0
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            crc = _engine.crc32c(data, crc, False)
            size += len(data)
    return size, crc


def _check_size(path: Path, stored: Stored) -> None:
    size = path.stat().st_size
    if size != stored.size:
        raise ValueError(f"{path} has {size} bytes, expected {stored.size}, as the manifest says")


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

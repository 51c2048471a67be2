"""Where data files are looked for, and how a missing one is downloaded.

A file is searched in `$FAISS_DMIH_DATA`, then in the cache (`$XDG_CACHE_HOME/faiss_dmih`, else
`~/.cache/faiss_dmih`). Nothing is ever written to `$FAISS_DMIH_DATA`. Every write goes to a
temporary name beside its target and is renamed when it is complete, so that a reader sees a whole
file or none.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from faiss_dmih.data.errors import DataUnavailable, NotDownloaded

Progress = Callable[[str, int, int], None]
"""Called as progress(what, done, total), possibly many times a second; total 0 means unknown."""

DOWNLOAD_TIMEOUT_SECONDS = 5.0
_CHUNK = 1 << 18
_may_download = ContextVar("may_download", default=True)
_md5 = partial(hashlib.md5, usedforsecurity=False)


def no_progress(what: str, done: int, total: int) -> None:
    """The `Progress` of callers that show none."""


def cache_dir() -> Path:
    """The folder for downloads and computed codes; it need not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "faiss_dmih"


def search_dirs() -> list[Path]:
    """Folders in which data files are looked for, first one first."""
    given = os.environ.get("FAISS_DMIH_DATA")
    return ([Path(given)] if given else []) + [cache_dir() / "data"]


def find(name: str) -> Path | None:
    """The first file called `name` in `search_dirs()`, or None."""
    for folder in search_dirs():
        if (folder / name).is_file():
            return folder / name
    return None


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that becomes `path` when the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; what is written here is as public as any other file.
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def no_downloads() -> Iterator[None]:
    """Within it what would be downloaded raises `NotDownloaded`."""
    before = _may_download.set(False)
    try:
        yield
    finally:
        _may_download.reset(before)


@dataclass(frozen=True)
class Remote:
    """One official file: its name here, where it is published, and its MD5 checksum."""

    name: str
    url: str
    md5: str


def md5_of(path: Path) -> str:
    """Hexadecimal MD5 of a file (published data sets give MD5; it guards against damage)."""
    digest = _md5()
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def verified(remote: Remote, progress: Progress = no_progress) -> Path | None:
    """The path of a large file that is not downloaded, None if it is nowhere.

    Its checksum is compared once; that it was right is remembered in the cache, for this path, size
    and time of change. Raises `DataUnavailable` for a wrong one.
    """
    local = find(remote.name)
    if local is None:
        return None
    status = local.stat()
    seen = f"{local.resolve()} {status.st_size} {status.st_mtime_ns}"
    note = cache_dir() / "verified" / remote.md5
    if note.is_file() and note.read_text(encoding="utf-8") == seen:
        return local
    progress(f"checking {remote.name}, once", 0, 0)
    got = md5_of(local)
    if got != remote.md5:
        raise DataUnavailable(f"{local}: MD5 is {got}, expected {remote.md5}; get the file anew")
    with atomic_write(note) as out:
        out.write(seen.encode())
    return local


def fetch(remote: Remote, progress: Progress = no_progress) -> Path:
    """The path of `remote`, found locally or downloaded into the cache.

    A file found locally must have the right checksum too: the error names the file to delete.
    Raises `DataUnavailable`.
    """
    local = find(remote.name)
    if local is not None:
        got = md5_of(local)
        if got != remote.md5:
            raise DataUnavailable(
                f"{local}: MD5 is {got}, expected {remote.md5}; delete the file to download it anew"
            )
        return local
    if not _may_download.get():
        raise NotDownloaded(f"{remote.name}: not here, would be downloaded from {remote.url}")
    target = cache_dir() / "data" / remote.name
    try:
        with atomic_write(target) as out:
            _download(remote, out, progress)
    except OSError as error:  # urllib's URLError and the timeouts are OSErrors
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = getattr(error, "reason", error)
        looked = " and ".join(str(folder) for folder in search_dirs())
        raise DataUnavailable(
            f"{remote.name}: not in {looked}, and downloading {remote.url} failed ({reason}); "
            "put the file into the folder named by $FAISS_DMIH_DATA"
        ) from error
    return target


def _download(remote: Remote, out: BinaryIO, progress: Progress) -> None:
    digest = _md5()
    with urllib.request.urlopen(remote.url, timeout=DOWNLOAD_TIMEOUT_SECONDS) as response:
        total = int(response.headers.get("Content-Length") or 0)
        done = 0
        while block := response.read(_CHUNK):
            out.write(block)
            digest.update(block)
            done += len(block)
            progress(f"downloading {remote.name}", done, total)
    if digest.hexdigest() != remote.md5:
        raise DataUnavailable(
            f"{remote.url}: MD5 of the {done} bytes received is {digest.hexdigest()}, expected "
            f"{remote.md5}; nothing was kept. Try again, or get the file elsewhere"
        )

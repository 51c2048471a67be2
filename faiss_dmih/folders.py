"""Writing a whole folder, or a whole file, at once."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of `target` at the end.

    If anything is raised before, `target` is what it was. Whoever looks sees the old folder or the
    new one, at any time, where the file system can exchange two names (most of Linux's can).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir()
        yield new
        if target.exists():
            if _exchange(new, target):
                return
            target.rename(old)
        try:
            new.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Whether two names were exchanged in one step."""
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)  # glibc has it from 2.28 on
    return renameat2 is not None and not renameat2(
        here, os.fsencode(one), here, os.fsencode(other), exchange
    )


@contextmanager
def atomic_file(target: Path) -> Iterator[int]:
    """A file descriptor to write to; what was written is `target` at the end, on disk.

    If anything is raised before, or the process is killed, `target` is what it was. A process that
    is killed leaves its temporary file, which the next write to the same target removes. What is
    not a regular file, such as a pipe, is written to as it is.
    """
    target = Path(os.path.realpath(target))
    mode = target.stat().st_mode if target.exists() else None
    if mode is not None and not stat.S_ISREG(mode):
        with target.open("wb", buffering=0) as special:
            yield special.fileno()
        return
    _remove_abandoned(target)
    file, temporary = _temporary_for(target)
    try:
        if mode is not None:
            os.fchmod(file, stat.S_IMODE(mode))
        yield file
        os.fsync(file)
        temporary.rename(target)
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)


def _temporary_for(target: Path) -> tuple[int, Path]:
    """A new file beside the target, locked for as long as the process writes it."""
    while True:
        path = target.parent / f".{target.name[:200]}.{secrets.token_hex(4)}.part"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: then nothing is taken for abandoned there
            return file, path
        # Before it was locked, another writer may have taken it for abandoned.
        if os.fstat(file).st_nlink > 0:
            return file, path
        os.close(file)


def _remove_abandoned(target: Path) -> None:
    """Temporary files for this target that no process holds the lock of."""
    ours = re.compile(re.escape(f".{target.name[:200]}.") + r"[0-9a-f]{8}\.part")
    for path in [path for path in target.parent.iterdir() if ours.fullmatch(path.name)]:
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except OSError:
            pass
        finally:
            os.close(file)

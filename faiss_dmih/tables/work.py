"""Work that is done once: each piece a folder in a cache, named by all that it depends on.

A piece of work says what it needs; `Workshop.run` does what is missing, in that order. A folder
appears when its work is done, as a whole, so a run that was killed goes on where it was. Its name
ends in a hash of the work's key, of the keys of what it needs, and of the sources that do it:
whatever changes, the work is done anew, and what was done before stays for those who change back.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from faiss_dmih.data.errors import DataUnavailable, NotDownloaded
from faiss_dmih.data.files import Progress, no_progress
from faiss_dmih.folders import atomic_folder
from faiss_dmih.tables.sets import Sets

Key = dict[str, Any]
KEY = "key.json"
_PACKAGE = Path(__file__).parent.parent


class NotRun(Exception):
    """Why a piece of work was not done, where that is no fault."""


class Work(ABC):
    """One piece. Instances are frozen dataclasses: equal ones are one piece."""

    kind: ClassVar[str]
    sources: ClassVar[tuple[str, ...]] = ()
    """Files of the package, or folders of them, whose text the result depends on, besides the
    class's own."""

    @property
    @abstractmethod
    def title(self) -> str:
        """For people: what is being done."""

    @property
    def needs(self) -> Sequence[Work]:
        """What has to be done before."""
        return ()

    @property
    def data(self) -> str:
        """Name of the set that it is about; empty for none."""
        return ""

    @property
    def seconds(self) -> float:
        """An estimate."""
        return 1.0

    @abstractmethod
    def key(self, shop: Workshop) -> Key:
        """Everything that the result depends on, but for sources and needs; for JSON."""

    @abstractmethod
    def do(self, shop: Workshop, folder: Path) -> None:
        """Write the result into the folder, which is empty."""


@dataclass(frozen=True)
class Absent:
    """In the place of a result: why there is none."""

    why: str


class Workshop:
    """Does work and finds what was done, in the folder `root`."""

    def __init__(self, root: Path, sets: Sets, progress: Progress = no_progress) -> None:
        self.root, self.sets, self.progress = root, sets, progress
        self.failures: dict[Work, str] = {}
        self._fingerprints: dict[Work, str] = {}
        self._keys: dict[Work, Key] = {}
        sets.find_derived = lambda name: self.folder(sets.work_for(name))

    def fingerprint(self, work: Work) -> str:
        """Tells this piece from what differs in anything. Raises what reading its data does."""
        if work not in self._fingerprints:
            key = {
                "kind": work.kind,
                **work.key(self),
                "needs": [self.fingerprint(need) for need in work.needs],
                "sources": [_own_digest(type(work)), *map(_digest, work.sources)],
            }
            text = json.dumps(key, sort_keys=True)
            self._keys[work] = key
            self._fingerprints[work] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self._fingerprints[work]

    def folder(self, work: Work) -> Path:
        """Where its result is, or will be."""
        return self.root / work.kind / self.fingerprint(work)

    def unfinished(self, work: Work) -> Path:
        """Where it may keep what it goes on from when it was stopped."""
        return self.root / "unfinished" / f"{work.kind}-{self.fingerprint(work)}"

    def is_done(self, work: Work) -> bool:
        return (self.folder(work) / KEY).is_file()

    def find(self, work: Work) -> Path | Absent:
        """Its folder, or why there is none."""
        if work in self.failures:
            return Absent(self.failures[work])
        try:
            done = self.is_done(work)
        except (DataUnavailable, NotRun) as error:
            return Absent(str(error))
        return self.folder(work) if done else Absent("not done yet: run the command again")

    def missing(self, wanted: Sequence[Work]) -> list[Work]:
        """What is to be done for these, what others need first. What cannot be done, for want of
        its data or because something it needs has failed, goes into `failures`. What waits for
        data that would be downloaded is to be done."""
        out: dict[Work, None] = {}

        def visit(work: Work) -> bool:
            if work in out:
                return True
            try:
                if work not in self.failures and self.is_done(work):
                    return True
            except NotDownloaded:
                pass
            except (DataUnavailable, NotRun, ImportError, ValueError) as error:
                self.failures[work] = " ".join(str(error).split())
            if work in self.failures:
                return False
            for need in work.needs:
                if not visit(need):
                    self.failures[work] = self.failures[need]
                    return False
            out[work] = None
            return True

        for work in wanted:
            visit(work)
        return list(out)

    def run(self, wanted: Sequence[Work], done: Callable[[Work, float], None]) -> None:
        """Do what is missing. A piece that fails is noted in `failures`, with those that need it,
        and the others go on; `done` is told of each, with the share of the estimate that is done.

        Raises:
            KeyboardInterrupt: as it comes; what was done stays.
        """
        work_list = self.missing(wanted)
        total, spent = sum(work.seconds for work in work_list) or 1.0, 0.0
        for work in work_list:
            failed = next((n for n in work.needs if n in self.failures), None)
            if failed is not None:
                self.failures[work] = self.failures[failed]
            else:
                self._do(work)
            spent += work.seconds
            done(work, spent / total)

    def _do(self, work: Work) -> None:
        try:
            with atomic_folder(self.folder(work)) as scratch:
                work.do(self, scratch)
                text = json.dumps({"title": work.title, **self._keys[work]}, indent=1)
                (scratch / KEY).write_text(text + "\n", encoding="utf-8")
        except (DataUnavailable, NotRun) as error:
            self.failures[work] = str(error)
        except Exception as error:  # one cell of a night's run must not end it
            self.failures[work] = f"failed: {type(error).__name__}: {' '.join(str(error).split())}"


# Once: what runs is what was there when the run began, whatever has been edited since.
@cache
def _own_digest(kind: type[Work]) -> str:
    """Of the class that does the work."""
    return hashlib.sha256(inspect.getsource(kind).encode()).hexdigest()[:16]


@cache
def _digest(source: str) -> str:
    path = _PACKAGE / source
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(_PACKAGE)).encode())
        digest.update(file.read_bytes())
    return f"{source} {digest.hexdigest()[:16]}"

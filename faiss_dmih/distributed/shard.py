"""One shard: what its process does. It knows nothing of Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from faiss_dmih.distributed import manifest, merging
from faiss_dmih.distributed.folder import Folder
from faiss_dmih.distributed.manifest import ShardFiles
from faiss_dmih.distributed.merging import Keys, Ranges
from faiss_dmih.distributed.part import Delta, Ids, Part, write_part
from faiss_dmih.index import IndexDMIH

Codes = NDArray[np.uint8]

_SWALLOW = 5
"""A commit merges the new codes with older parts of at most so many times their number: sizes of
parts fall geometrically, as those of an index's segments do."""


@dataclass(frozen=True)
class Behind:
    """The answer of a shard that has seen fewer changes than it was asked to have: its process was
    restarted, and has what was committed."""

    changes: int


@dataclass(frozen=True)
class Uncommitted:
    """What a replica has beyond the last commit."""

    changes: int
    codes: Codes
    ids: Ids
    removed: Ids


class Shard:
    """Parts that are mapped from files, codes since the last commit, and what was removed.

    Changes are numbered by the caller. One that is sent again is done once; searches say which
    change they must see, and get `Behind` from a shard that has lost it.

    Args:
        path, cache: of the `Folder`.
        number: of the shard in its manifest.
        threads: of its searches.
        gpu: whether the mapped codes are copied to a GPU.
    """

    def __init__(
        self, path: str, cache: str | None, number: int, threads: int = 1, gpu: bool = False
    ) -> None:
        faiss.omp_set_num_threads(threads)
        self._folder, self._number, self._gpu = Folder(path, cache), number, gpu
        self._parts: list[Part] = []
        for left in reversed(range(5)):
            state = manifest.newest(self._folder)
            try:
                self._open(state.shards[number], state.d, state.options)
                break
            except FileNotFoundError:  # a commit has removed it since: there is a newer manifest
                if left == 0:
                    raise

    def _open(self, files: ShardFiles, d: int, options: dict[str, Any]) -> None:
        open_now = {part.files.codes: part for part in self._parts if part.files is not None}
        parts = [
            Part.opened(self._folder, part, self._gpu, open_now.get(part.codes))
            for part in files.parts
        ]
        before = {file for part in self._parts if part.files for file in part.files.files()}
        self._parts, self._delta = parts, Delta(d, options)
        self._d, self._options = d, options
        self._changes, self._removed = files.changes, list[Ids]()
        self._last: Any = None
        for file in before - {file for part in files.parts for file in part.files()}:
            self._folder.forget(file)

    def changes(self) -> int:
        """The number of the last change."""
        return self._changes

    def search(
        self,
        changes: int,
        xq: Codes,
        k: int,
        bound: NDArray[np.int32] | None = None,
        own: NDArray[np.int32] | None = None,
    ) -> Keys | Behind:
        """The k nearest of each query as `merging.Keys` (nq, k).

        With a bound (nq,), a distance within which k codes of all shards are known to be, farther
        codes need not be among them. `own`: the distance within which this shard alone has k. Where
        the bound is much the nearer one, few codes of this shard are within it, and tables find
        them sooner than its k nearest; otherwise that would only be a search without a limit.
        """
        if self._changes < changes:
            return Behind(self._changes)
        if bound is None or own is None:
            return self._nearest(xq, k)
        keys = np.full((len(xq), k), merging.NOBODY)
        far = (bound < own) & (1.5 * bound <= own)
        if not far.all():
            keys[~far] = self._nearest(xq[~far], k)
        for radius in np.unique(bound[far]):
            rows = np.flatnonzero(far & (bound == radius))
            lims, D, I = self._within(xq[rows], int(radius) + 1)
            found = D.astype(np.int64) << merging.ID_BITS | I
            of = np.repeat(np.arange(len(rows)), np.diff(lims))
            found = found[np.lexsort((found, of))]
            rank = np.arange(len(found)) - lims[of]
            keys[rows[of[rank < k]], rank[rank < k]] = found[rank < k]
        return keys

    def glance(self, changes: int, xq: Codes, k: int, max_codes: int) -> Keys | Behind:
        """k near codes of each query, those that are found by comparing with few."""
        if self._changes < changes:
            return Behind(self._changes)
        return self._nearest(xq, k, max_codes)

    def range_search(self, changes: int, xq: Codes, radius: int) -> Ranges | Behind:
        """All codes at a distance below the radius."""
        return Behind(self._changes) if self._changes < changes else self._within(xq, radius)

    def reconstruct(self, changes: int, ids: Ids) -> tuple[NDArray[np.bool_], Codes] | Behind:
        """Which of the ids are here, and the codes of these."""
        if self._changes < changes:
            return Behind(self._changes)
        here = np.zeros(len(ids), np.bool_)
        codes = np.zeros((len(ids), self._d // 8), np.uint8)
        for part in self._all():
            found, at = part.find(ids)
            if len(at):
                codes[found] = part.index.reconstruct_batch(at)
            here |= found
        return here, codes[here]

    def add(self, before: int, after: int, x: Codes, first_id: int) -> int | Behind:
        """Adds codes whose ids count on; how many. `before`: the change that this one follows."""
        if (done := self._done(before, after)) is not None:
            return done
        self._delta.append(x, np.arange(first_id, first_id + len(x)))
        self._changes, self._last = after, len(x)
        return len(x)

    def remove(self, before: int, after: int, ids: Ids) -> int | Behind:
        """Removes what is here of ascending ids without repetitions; how many that were. None is
        no change."""
        if (done := self._done(before, after)) is not None:
            return done
        found = [(part, *part.find(ids)) for part in self._all()]
        for part, here, at in found:
            if len(at):
                part.remove(at)
                self._removed.append(ids[here])
        removed = sum(len(at) for _, _, at in found)
        if removed:
            self._changes, self._last = after, removed
        return removed

    def _done(self, before: int, after: int) -> int | Behind | None:
        if self._changes == after:
            return int(self._last)
        return Behind(self._changes) if self._changes != before else None

    def prepare(self, changes: int) -> ShardFiles | Behind:
        """Writes files of the present state, which a manifest is then to name."""
        if self._changes < changes:
            return Behind(self._changes)
        kept = [part for part in self._parts if part.ntotal > 0]
        merged: list[Part] = [self._delta] if self._delta.ntotal else []
        while kept and merged and kept[-1].ntotal <= _SWALLOW * sum(p.ntotal for p in merged):
            merged.insert(0, kept.pop())
        files = [
            part.with_removals(self._folder, self._number)
            if 2 * part.n_removed < part.n
            else self._written([part])
            for part in kept
        ]
        files += [self._written(merged)] if merged else []
        return ShardFiles(self._changes, tuple(files))

    def _written(self, parts: list[Part]) -> Any:
        """The files of one part made of several."""
        pieces = [piece for part in parts for piece in part.live()]
        index = IndexDMIH(self._d, **self._options)
        index.add(np.concatenate([codes for codes, _ in pieces]))
        return write_part(self._folder, self._number, index, [ids for _, ids in pieces])

    def adopt(self, files: ShardFiles) -> None:
        """Goes over to files that a manifest names by now."""
        if files.changes >= self._changes:
            self._open(files, self._d, self._options)

    def uncommitted(self) -> Uncommitted:
        """For a replica that was restarted."""
        pieces = list(self._delta.live())
        width = self._d // 8
        return Uncommitted(
            self._changes,
            np.concatenate([np.empty((0, width), np.uint8), *(codes for codes, _ in pieces)]),
            np.concatenate([np.empty(0, np.int64), *(ids for _, ids in pieces)]),
            np.unique(np.concatenate([np.empty(0, np.int64), *self._removed])),
        )

    def catch_up(self, lacking: Uncommitted) -> None:
        """Takes over what a replica has, after a restart that has lost it."""
        if self._changes >= lacking.changes:
            return
        for part in self._parts:
            part.remove(part.find(lacking.removed)[1])
        self._removed = [lacking.removed]
        self._delta = Delta(self._d, self._options)
        self._delta.append(lacking.codes, lacking.ids)
        self._changes, self._last = lacking.changes, None

    def _all(self) -> list[Part]:
        return [*self._parts, self._delta]

    def _nearest(self, xq: Codes, k: int, max_codes: int = 0) -> Keys:
        parts = [part for part in self._all() if part.ntotal > 0]
        if not parts:
            return np.full((len(xq), k), merging.NOBODY)
        return merging.nearest([part.search(xq, k, max_codes) for part in parts], k)

    def _within(self, xq: Codes, radius: int) -> Ranges:
        parts = [part for part in self._all() if part.ntotal > 0]
        return merging.union([part.range_search(xq, radius) for part in parts], len(xq))

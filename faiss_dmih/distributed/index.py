"""An index whose shards are actors of Ray."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from faiss_dmih.codes import check_codes
from faiss_dmih.distributed import building, manifest, merging
from faiss_dmih.distributed.engine import ray
from faiss_dmih.distributed.errors import LostChanges, ShardsMissing
from faiss_dmih.distributed.folder import Folder
from faiss_dmih.distributed.manifest import Manifest
from faiss_dmih.distributed.replicas import FOREVER, Missing, Replicas, ask, reason, shared
from faiss_dmih.distributed.shard import Shard
from faiss_dmih.options import check_budget, check_mode

Neighbours = tuple[NDArray[np.int32], NDArray[np.int64]]
Found = tuple[NDArray[np.uint64], NDArray[np.float32], NDArray[np.int64]]

_TO_ONE_SHARD = 1 << 16
"""Codes of one add that go to the smallest shard; more are shared out."""
_GLANCE = 16
"""Codes that each shard compares with a query, for every neighbour that is asked for and one more,
to find a bound for the others."""


class ShardedIndexDMIH:
    """Exact Hamming k-NN and range search over the codes of many machines, by Ray.

    Each shard is an actor (or several, replicas) that maps files of the index's own format; Ray
    starts them, spreads them over the cluster, carries queries and answers, and restarts what was
    killed. Answers are those of ``faiss.IndexBinaryIDMap2(IndexDMIH(d))`` over all codes.

    Ids are int64, given in ascending order by ``build`` and ``add``, and never change or come
    back: what is removed leaves a hole. Changes are seen by the searches that begin after them.
    They are on disk, and survive processes and machines, when ``commit`` returns.

    Methods may be called from any thread. One process at a time may change a folder; any number
    may search it, each with actors of its own, and sees the commit that was the last when it
    opened it (or, after a restart of an actor, a later one).

    Made by ``open``; ``build`` writes what it opens. Ray connects or starts by its own rules:
    call ``ray.init`` first if it shall have arguments.
    """

    def __init__(self, folder: Folder, state: Manifest, actors: list[list[Any]], timeout: float):
        self._folder, self._state, self._timeout = folder, state, timeout
        self._lock = threading.RLock()  # of changes
        self._lost: LostChanges | None = None
        self._next_id = state.next_id
        self._last_change = max((files.changes for files in state.shards), default=0)
        self._shards = [
            Replicas(number, replicas, files)
            for number, (files, replicas) in enumerate(zip(state.shards, actors, strict=True))
        ]

    @classmethod
    def build(
        cls,
        source: Any,
        num_shards: int,
        path: str | os.PathLike[str],
        *,
        mode: str = "auto",
        cuts: Sequence[int] | None = None,
        memory_budget: int | None = None,
        column: str = "code",
        num_cpus: float = 1,
    ) -> None:
        """Writes shards of equally many codes; the ids are 0, 1, ... in their order.

        Args:
            source: codes (n, d/8) uint8; or a .npy file of such an array or several, by paths that
                all machines see, which are read where they are needed; or a ``ray.data.Dataset``.
            num_shards: each of at most 2^32 - 1 codes, and as large as one machine's memory is to
                hold and search.
            path: of a local folder (on a cluster: one that all machines see), or an URL that
                fsspec knows, such as ``s3://bucket/name``.
            mode, cuts, memory_budget: as for ``IndexDMIH``, of each shard.
            column: of the dataset, uint8 (d/8,).
            num_cpus: processors, and threads, of the task that builds a shard.

        Raises:
            FileExistsError: there are shards in the folder.
            TypeError, ValueError: what was got is none of the above.
            ImportError: Ray is not installed.
        """
        options = {
            "mode": check_mode(mode),
            "cuts": None if cuts is None else [int(cut) for cut in cuts],
            "memory_budget": check_budget(memory_budget),
        }
        building.build(source, num_shards, Folder(path), options, column, num_cpus)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        replicas: int = 1,
        num_cpus: float = 1,
        num_gpus: float | None = None,
        timeout: float = 60,
        cache: str | None = None,
    ) -> ShardedIndexDMIH:
        """Starts the actors of the shards in a folder.

        Args:
            path: where ``build`` or ``commit`` has written them.
            replicas: actors of each shard, for more queries at a time: each query goes to the one
                that has the fewest before it. They share pages where they are on one machine.
            num_cpus: processors that Ray keeps for each actor, and threads of its searches.
            num_gpus: of each actor, which then keeps a copy of its codes there; None: one where
                Ray sees enough for all, otherwise none.
            timeout: seconds within which shards must answer, restarts included.
            cache: local folder for files that are elsewhere, by default one in
                ``$XDG_CACHE_HOME/faiss_dmih``.

        Raises:
            FileNotFoundError: there are no shards. ValueError: they are damaged.
            ShardsMissing: not all actors could be started in time.
            ImportError: Ray is not installed.
        """
        if not isinstance(replicas, int) or replicas < 1:
            raise ValueError(f"got replicas = {replicas!r}, expected an integer of at least 1")
        engine = ray()
        folder = Folder(path, cache)
        state = manifest.newest(folder)
        wanted = replicas * len(state.shards)
        if num_gpus is None:
            if not engine.is_initialized():
                engine.init()
            num_gpus = 1 if engine.cluster_resources().get("GPU", 0) >= wanted else 0
        actor = engine.remote(Shard).options(
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy="SPREAD",
        )
        threads, gpu = max(1, int(num_cpus)), num_gpus > 0
        actors = [
            [actor.remote(folder.path, cache, number, threads, gpu) for _ in range(replicas)]
            for number in range(len(state.shards))
        ]
        index = cls(folder, state, actors, timeout)
        try:
            index._wait_until_open()
        except BaseException:
            index.close()
            raise
        return index

    def close(self) -> None:
        """Ends the actors. What was not committed is lost."""
        if not ray().is_initialized():
            return
        for shard in self._shards:
            for actor in shard.actors:
                ray().kill(actor)

    def __enter__(self) -> ShardedIndexDMIH:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def d(self) -> int:
        """Bits of a code."""
        return self._state.d

    @property
    def code_size(self) -> int:
        """Bytes of a code."""
        return self.d // 8

    @property
    def ntotal(self) -> int:
        """Codes in all shards."""
        return sum(shard.ntotal for shard in self._shards)

    @property
    def num_shards(self) -> int:
        """As ``build`` was told."""
        return len(self._shards)

    @property
    def generation(self) -> int:
        """Number of the last commit that this object knows."""
        return self._state.generation

    @overload
    def search(
        self, x: ArrayLike, k: int, *, rounds: int = ..., allow_partial: Literal[False] = ...
    ) -> Neighbours: ...

    @overload
    def search(
        self, x: ArrayLike, k: int, *, rounds: int = ..., allow_partial: Literal[True]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], Missing]: ...

    def search(self, x: ArrayLike, k: int, *, rounds: int = 1, allow_partial: bool = False) -> Any:
        """The k nearest codes of each query.

        Args:
            x: queries (nq, d/8) uint8.
            k: neighbours per query, at least 1.
            rounds: 1: all shards are asked at once for their k nearest. 2: all are asked for k
                near ones first, and then for nothing that is farther than the best of these. The
                answer is the same. It pays for batches of queries whose nearest code, in one of the
                shards, is very near (k = 1): docs/scale.md has measured it.
            allow_partial: whether shards that do not answer are named instead.

        Returns:
            D (nq, k) int32 and I (nq, k) int64 as ``IndexDMIH.search`` has them, rows ordered by
            (distance, id). With ``allow_partial`` also why which shards are not among them: a
            dict, empty if all are.

        Raises:
            TypeError, ValueError: x or k is none of the above.
            ShardsMissing: a shard did not answer in time. LostChanges: one has lost changes.
        """
        xq = check_codes(x, self.code_size)
        if not isinstance(k, (int, np.integer)) or k < 1:
            raise ValueError(f"got k = {k!r}, expected an integer of at least 1")
        if rounds not in (1, 2):
            raise ValueError(f"got rounds = {rounds!r}, expected 1 or 2")
        queries, nobody = shared(xq), np.full((len(xq), k), merging.NOBODY)
        bound = None
        bounds: list[tuple[Any, ...]] = [()] * self.num_shards
        if rounds == 2 and self.num_shards > 1:
            glances, _ = self._ask("glance", lambda shard: (queries, k, _GLANCE * (k + 1)), True)
            bound = _farthest(merging.nearest([*glances.values()] or [nobody], k))
            sent = shared(bound)
            for number, keys in glances.items():
                bounds[number] = (sent, _farthest(keys))
        found, missing = self._ask(
            "search", lambda shard: (queries, k, *bounds[shard.number]), allow_partial
        )
        keys = merging.nearest([*found.values()] or [nobody], k)
        if bound is not None and (_farthest(keys) > bound).any():
            # What the bound was made of is gone: removed, or with its shard.
            return self.search(xq, k, allow_partial=allow_partial)  # type: ignore[call-overload]
        D, I = merging.unpack(keys)
        return (D, I, missing) if allow_partial else (D, I)

    @overload
    def range_search(
        self, x: ArrayLike, thresh: int, *, allow_partial: Literal[False] = ...
    ) -> Found: ...

    @overload
    def range_search(
        self, x: ArrayLike, thresh: int, *, allow_partial: Literal[True]
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32], NDArray[np.int64], Missing]: ...

    def range_search(self, x: ArrayLike, thresh: int, *, allow_partial: bool = False) -> Any:
        """All codes at a distance below ``thresh`` of each query.

        Args:
            x: queries (nq, d/8) uint8.
            thresh: bits; distances are strictly below it.
            allow_partial: whether shards that do not answer are named instead.

        Returns:
            ``(lims, D, I)`` as ``IndexDMIH.range_search`` has them, ids ascending within a query.
            With ``allow_partial`` also the shards that are missing, as ``search`` has them.

        Raises:
            as ``search``.
        """
        xq = check_codes(x, self.code_size)
        if not isinstance(thresh, (int, np.integer)):
            raise TypeError(f"got thresh of type {type(thresh).__name__}, expected an integer")
        queries = shared(xq)
        found, missing = self._ask(
            "range_search", lambda shard: (queries, int(thresh)), allow_partial
        )
        lims, distances, I = merging.union([*found.values()], len(xq))
        out = lims.astype(np.uint64), distances.astype(np.float32), I
        return (*out, missing) if allow_partial else out

    def reconstruct(self, key: int) -> NDArray[np.uint8]:
        """The code (d/8,) uint8 of an id. RuntimeError: there is none."""
        code: NDArray[np.uint8] = self.reconstruct_batch([key])[0]
        return code

    def reconstruct_batch(self, keys: ArrayLike) -> NDArray[np.uint8]:
        """The codes (n, d/8) uint8 of some ids (n,).

        Raises:
            TypeError, ValueError: these are no integers (n,).
            RuntimeError: an id is not in the index.
            ShardsMissing, LostChanges: as ``search``.
        """
        ids = _check_ids(keys)
        out = np.empty((len(ids), self.code_size), np.uint8)
        seen = np.zeros(len(ids), np.bool_)
        sent = shared(ids)
        answers, _ = self._ask("reconstruct", lambda shard: (sent,), False, self._holding(ids))
        for here, codes in answers.values():
            out[here] = codes
            seen |= here
        if not seen.all():
            raise RuntimeError(f"id {ids[~seen][0]} is not in the index")
        return out

    def add(self, x: ArrayLike) -> NDArray[np.int64]:
        """Adds codes: few at a time to the smallest shard, many to the smaller ones.

        Args:
            x: codes (n, d/8) uint8.

        Returns:
            their ids (n,) int64, which count on from the last one given.

        Raises:
            TypeError, ValueError: x is none of the above, or there is no room for so many.
            ShardsMissing, LostChanges: as ``search``. Whatever is raised, no code was added, or all
                calls raise LostChanges until ``rollback``.
        """
        codes = check_codes(x, self.code_size)
        with self._lock:
            self._check_lost()
            first = self._next_id
            if first + len(codes) >= 1 << merging.ID_BITS:
                raise ValueError(f"no ids are left for {len(codes)} codes after {first}")
            self._next_id += len(codes)
            done = list[tuple[Replicas, int, int]]()
            try:
                for shard, begin, end in self._shared_out(len(codes)):
                    rows = shared(codes[begin:end])
                    self._change(shard, "add", rows, first + begin)
                    shard.ntotal += end - begin
                    shard.added.append((first + begin, first + end - 1))
                    shard.hull = min(shard.hull[0], first + begin), first + end - 1
                    done.append((shard, begin, end))
            except BaseException:
                for shard, begin, end in done if self._lost is None else ():
                    self._change(shard, "remove", np.arange(first + begin, first + end))
                    shard.ntotal -= end - begin
                raise
            return np.arange(first, self._next_id)

    def remove_ids(self, ids: ArrayLike) -> int:
        """Removes codes; other ids stay what they are.

        Args:
            ids: integers (n,); those that are not there, and repetitions, are ignored.

        Returns:
            how many codes were removed.

        Raises:
            TypeError, ValueError: these are no integers (n,).
            ShardsMissing, LostChanges: as ``add``.
        """
        gone = np.unique(_check_ids(ids))
        with self._lock:
            self._check_lost()
            removed = 0
            for shard in self._holding(gone):
                n = self._change(shard, "remove", shared(gone[shard.within(gone)]))
                shard.ntotal -= n
                shard.removed += n
                removed += n
            return removed

    def commit(self) -> int:
        """Makes all changes durable: writes new files beside the old ones, then the manifest that
        names them. Whatever is killed meanwhile, the folder has the last commit or this one.

        Returns:
            the generation that was written, or the last one if nothing was changed.

        Raises:
            LostChanges, ShardsMissing: as ``search``; nothing was committed.
            CommitConflict: somebody else has committed since ``open``.
            OSError: what the file system raises; nothing was committed.
        """
        with self._lock:
            self._check_lost()
            changed = [shard for shard in self._shards if shard.is_changed]
            if not changed:
                return self.generation
            files = list(self._state.shards)
            written, _ = self._ask("prepare", lambda shard: (), False, changed, FOREVER)
            for number, prepared in written.items():
                files[number] = prepared
            state = replace(self._state, next_id=self._next_id, shards=tuple(files))
            self._state = manifest.write(self._folder, state, self.generation)
            adopting = [
                (actor, actor.adopt.remote(files[shard.number]))
                for shard in changed
                for actor in shard.actors
            ]
            for shard in changed:
                shard.reset(files[shard.number])
            for actor, answer in adopting:
                try:
                    ray().get(answer, timeout=self._timeout)
                except ray().exceptions.RayError:  # restarted, it has what the manifest names
                    ray().kill(actor, no_restart=False)
            with suppress(OSError):  # what is left over the next commit removes
                manifest.remove_unnamed(self._folder, self._state)
            return self.generation

    def rollback(self) -> None:
        """Gives up all changes since the last commit, those that are lost among them. Ids that were
        given since are not given again."""
        with self._lock:
            for shard, files in zip(self._shards, self._state.shards, strict=True):
                if shard.is_changed or (self._lost and self._lost.shard == shard.number):
                    for actor in shard.actors:  # what it is restarted with is the last commit
                        ray().kill(actor, no_restart=False)
                    shard.reset(files)
            self._lost = None
            self._wait_until_open()

    def _wait_until_open(self) -> None:
        engine, missing = ray(), Missing()
        answers = {a.changes.remote(): s.number for s in self._shards for a in s.actors}
        engine.wait(list(answers), num_returns=len(answers), timeout=self._timeout)
        for answer, number in answers.items():
            try:
                engine.get(answer, timeout=0)
            except engine.exceptions.GetTimeoutError:
                missing[number] = f"its actors have not started within {self._timeout:g} s"
            except engine.exceptions.RayError as error:
                missing[number] = reason(error)
        if missing:
            raise ShardsMissing(missing)

    def _check_lost(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _holding(self, ids: NDArray[np.int64]) -> list[Replicas]:
        """Shards that may hold some of these."""
        return [shard for shard in self._shards if shard.within(ids).any()]

    def _shared_out(self, n: int) -> Iterator[tuple[Replicas, int, int]]:
        """Which shard gets which rows [begin, end) of n new ones, so that the fullest has as few
        as can be; few all go to the smallest."""
        by_size = sorted(self._shards, key=lambda shard: shard.ntotal)
        sizes = [shard.ntotal for shard in by_size]
        some = 1
        if n > _TO_ONE_SHARD:
            while some < len(sizes) and sizes[some] * some - sum(sizes[:some]) < n:
                some += 1
        level, more = divmod(n + sum(sizes[:some]), some)
        begin = 0
        for number, shard in enumerate(by_size[:some]):
            end = begin + level + (number < more) - shard.ntotal
            if shard.ntotal + end - begin > building.MAX_CODES:
                raise ValueError(f"shard {shard.number} has no room for {end - begin} more codes")
            if end > begin:
                yield shard, begin, end
            begin = end

    def _change(self, shard: Replicas, method: str, *arguments: Any) -> int:
        self._last_change += 1
        try:
            return shard.change(method, self._last_change, arguments, self._timeout)
        except ray().exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except BaseException as error:  # in doubt, too: a call that is under way cannot be recalled
            self._lost = error if isinstance(error, LostChanges) else shard.lost()
            if isinstance(error, Exception):
                raise self._lost from None
            raise

    def _ask(
        self,
        method: str,
        arguments: Callable[[Replicas], tuple[Any, ...]],
        allow_partial: bool,
        shards: Sequence[Replicas] | None = None,
        timeout: float | None = None,
    ) -> tuple[dict[int, Any], Missing]:
        def behind(shard: Replicas) -> str | None:
            with self._lock:
                if not shard.is_changed or shard.bring_up(self._timeout):
                    return None
                lost = shard.lost()
                self._lost = self._lost or lost
                return str(lost)

        if not allow_partial:
            self._check_lost()
        lost = self._lost  # its shard may hold more than it should
        found, missing = ask(
            [
                shard
                for shard in (self._shards if shards is None else shards)
                if lost is None or lost.shard != shard.number
            ],
            method,
            arguments,
            behind,
            self._timeout if timeout is None else timeout,
        )
        if lost is not None:
            missing[lost.shard] = str(lost)
        if missing and not allow_partial:
            self._check_lost()
            raise ShardsMissing(missing)
        return found, missing


def _farthest(keys: merging.Keys) -> NDArray[np.int32]:
    """The distance of the last neighbour of each query."""
    return merging.unpack(keys[:, -1])[0]


def _check_ids(ids: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(ids)
    if array.ndim != 1:
        raise ValueError(f"got ids of shape {array.shape}, expected (n,)")
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"got ids of dtype {array.dtype}, expected integers")
    return array.astype(np.int64)

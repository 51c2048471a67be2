"""The actors of one shard, as the caller's side sees them, and calls to those of several."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faiss_dmih.distributed.engine import ray
from faiss_dmih.distributed.errors import LostChanges
from faiss_dmih.distributed.manifest import ShardFiles
from faiss_dmih.distributed.shard import Behind

Missing = dict[int, str]
"""Why a shard has not answered, by its number."""
FOREVER = float("inf")


class Replicas:
    """Of the shard `number`: what it holds, and what it has been told since the last commit.

    changes   the last change that every answer must have seen
    ntotal    codes
    hull      first and last of their ids
    added, removed  since the last commit: ranges (first, last) of ids; how many
    """

    def __init__(self, number: int, actors: list[Any], files: ShardFiles) -> None:
        self.number, self.actors = number, actors
        self._busy = [0] * len(actors)
        self._counting = threading.Lock()
        self.hull = (
            min((part.first_id for part in files.parts), default=0),
            max((part.last_id for part in files.parts), default=-1),
        )
        self.reset(files)

    def reset(self, files: ShardFiles) -> None:
        """Nothing was changed since these were written."""
        self.changes, self.ntotal = files.changes, files.ntotal
        self.added, self.removed = list[tuple[int, int]](), 0

    @property
    def is_changed(self) -> bool:
        """Since the last commit."""
        return bool(self.added or self.removed)

    def within(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the ids may be here."""
        return (ids >= self.hull[0]) & (ids <= self.hull[1])

    def lost(self) -> LostChanges:
        """The error that says so of all changes since the last commit."""
        return LostChanges(self.number, tuple(self.added), self.removed)

    def send(self, method: str, arguments: tuple[Any, ...], tried: int) -> tuple[Any, int]:
        """Asks the replica that has the least to do: its answer to come, and which one it is.

        While there are others to try, a dead one is not waited for; otherwise Ray restarts it.
        """
        with self._counting:
            least = min(range(len(self.actors)), key=self._busy.__getitem__)
            if tried:  # not the one that has just failed
                least = (least + tried) % len(self.actors)
            self._busy[least] += 1
        call = getattr(self.actors[least], method)
        if tried < len(self.actors) - 1:
            call = call.options(max_task_retries=0)
        return call.remote(self.changes, *arguments), least

    def received(self, which: int) -> None:
        with self._counting:
            self._busy[which] -= 1

    def change(self, method: str, after: int, arguments: tuple[Any, ...], timeout: float) -> int:
        """Tells all replicas of a change, numbered `after`; what they answer.

        It is made when one replica has made it: the others can catch up. It is sent again only to
        shards that say by the number of their last change that they have not seen it.

        Raises:
            LostChanges: changes before this one are lost, or nobody can say what became of it.
            What a shard raises; then it was not made.
        """
        errors = ray().exceptions
        late = time.monotonic() + timeout
        while True:
            calls = [
                getattr(actor, method)
                .options(max_task_retries=0)
                .remote(self.changes, after, *arguments)
                for actor in self.actors
            ]
            done, refused, dead, behind = list[int](), None, 0, 0
            for call in calls:
                try:
                    value = ray().get(call, timeout=max(0, late - time.monotonic()))
                    if isinstance(value, Behind):
                        behind += 1
                    else:
                        done.append(value)
                except errors.RayActorError:
                    dead += 1
                except errors.RayTaskError as error:
                    refused = error
            if done:
                self.changes = after if done[0] else self.changes  # nothing was there to remove
                if behind:  # so that it can help when the next one fails
                    with suppress(errors.RayActorError, errors.GetTimeoutError):
                        self.bring_up(max(0, late - time.monotonic()))
                return done[0]
            if refused is not None:
                raise refused
            if not dead:
                raise self.lost()
            try:  # Ray answers this when it has restarted them
                states = [actor.changes.remote() for actor in self.actors]
                now = ray().get(states, timeout=max(0, late - time.monotonic()))
            except errors.RayActorError:
                raise self.lost() from None
            if not {self.changes, after} & set(now):
                raise self.lost()

    def bring_up(self, timeout: float) -> bool:
        """Gives replicas that were restarted what the others have; False: nobody has it."""
        now = ray().get([actor.changes.remote() for actor in self.actors], timeout=timeout)
        if max(now) < self.changes:
            return False
        source = self.actors[int(np.argmax(now))].uncommitted.remote()
        behind = [a for a, changes in zip(self.actors, now, strict=True) if changes < self.changes]
        ray().get([actor.catch_up.remote(source) for actor in behind], timeout=timeout)
        return True


def ask(
    shards: Sequence[Replicas],
    method: str,
    arguments: Callable[[Replicas], tuple[Any, ...]],
    behind: Callable[[Replicas], str | None],
    timeout: float,
) -> tuple[dict[int, Any], Missing]:
    """What shards answer, by number, and why others have not.

    `behind` is called for one that has lost changes: it brings it up, or says why it cannot.
    """
    engine = ray()
    late = time.monotonic() + timeout
    waiting = dict[Any, tuple[Replicas, int, int]]()
    found, missing = dict[int, Any](), Missing()

    def send(shard: Replicas, tried: int) -> None:
        answer, which = shard.send(method, arguments(shard), tried)
        waiting[answer] = shard, which, tried

    try:
        for shard in shards:
            send(shard, 0)
        while waiting:
            left = None if late == FOREVER else max(0, late - time.monotonic())
            ready, _ = engine.wait(list(waiting), num_returns=1, timeout=left)
            if not ready:
                break
            for answer in ready:
                shard, which, tried = waiting.pop(answer)
                shard.received(which)
                try:
                    value = engine.get(answer)
                    why = behind(shard) if isinstance(value, Behind) else None
                except engine.exceptions.RayActorError as error:
                    value, why = None, reason(error) if tried > 2 * len(shard.actors) else None
                except engine.exceptions.GetTimeoutError:
                    value, why = None, f"no answer within {timeout:g} s"
                if isinstance(value, Behind) and tried > 10 * len(shard.actors):
                    why = why or "it has lost changes again and again"
                if why is not None:
                    missing[shard.number] = why
                elif value is None or isinstance(value, Behind):
                    send(shard, tried + 1)
                else:
                    found[shard.number] = value
    finally:
        for shard, which, _ in waiting.values():
            shard.received(which)
            missing[shard.number] = f"no answer within {timeout:g} s"
    return {number: found[number] for number in sorted(found)}, missing


def reason(error: Exception) -> str:
    """The first lines of Ray's errors, which say what has happened; the others say where."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"


def shared(array: NDArray[Any]) -> Any:
    """An array as an argument of several calls: large ones go to Ray's object store once."""
    return ray().put(array) if array.nbytes > 1 << 16 else array

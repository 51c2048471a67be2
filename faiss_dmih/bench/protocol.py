"""How time is measured: all competitors in turn, in one process, over and over.

A noisy machine drifts: frequency, neighbours, temperature. So competitors are interleaved
(A B C A B C ...), and ratios are taken between measurements of the same round only.

1. *Warm-up.* Every competitor answers a few queries, then `floor` queries for an estimate of its
   speed. One that is so slow on the few that `floor` queries alone exceed its share is taken at
   that.
2. *Shares.* A round of all competitors is to cost what is left of `cell_seconds`, divided by
   `min_rounds`. Those that can answer all queries within an equal share do; what they leave is
   shared by the slower ones, which answer fewer queries, never less than `floor`. How many is part
   of the result.
3. *Rounds.* At least `min_rounds`, at most `max_rounds`, as many as fit into `cell_seconds`. Where
   even the floors take longer, rounds end after twice `cell_seconds`, at the earliest after one.
   Every competitor has the same number of rounds, which is part of the result. A measurement
   shorter than `min_seconds` repeats its queries until it is long enough.

Before each measurement there is a pause: libgomp's threads spin for some 10 ms after a parallel
region, and would take a core from the competitor that comes next. The garbage collector is off
while the clock runs. All answers of all rounds are handed back for checking.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint8]
Answer = tuple[npt.NDArray[Any], npt.NDArray[Any]]

_FEW_QUERIES = 8


@dataclass(frozen=True)
class Protocol:
    """The knobs; seconds are wall time."""

    cell_seconds: float = 3.0
    min_rounds: int = 3
    max_rounds: int = 7
    min_queries: int = 32
    min_batch_queries: int = 128
    min_seconds: float = 0.005
    settle_seconds: float = 0.02

    def floor(self, nq: int, batch: int) -> int:
        """Fewest queries a competitor is timed on.

        In batches of more than 100 it is `min_batch_queries`, since IndexBinaryMultiHash uses
        threads from 101 queries on, and would be held back by fewer.
        """
        least = self.min_batch_queries if batch > 100 else max(self.min_queries, batch)
        return min(nq, least)


@dataclass(frozen=True)
class Entrant:
    """A competitor ready to run: `prepare()` sets run-time options, untimed, before each turn."""

    name: str
    search: Callable[[Codes, int], Answer]
    prepare: Callable[[], None]


@dataclass
class Timing:
    """What one entrant did. `seconds[r]` is wall time per query in round r, in seconds."""

    nq: int = 0
    loops: int = 1
    seconds: list[float] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    error: str = ""


def race(
    entrants: Sequence[Entrant],
    xq: Codes,
    k: int,
    batch: int,
    protocol: Protocol,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Timing]:
    """Time `entrants` on k-NN of `xq` (nq, d/8) in calls of `batch` queries; one Timing each.

    An entrant that raises gets the message in `Timing.error` and leaves the race.
    """
    timings = [Timing() for _ in entrants]
    floor = protocol.floor(len(xq), batch)
    started = clock()
    equal_share = protocol.cell_seconds / protocol.min_rounds / max(1, len(entrants))
    estimates = [
        _guarded(timing, partial(_estimate, entrant, xq[:floor], k, batch, equal_share, clock))
        for entrant, timing in zip(entrants, timings, strict=True)
    ]
    warm = clock()
    shares = share(
        [0.0 if estimate is None else estimate * len(xq) for estimate in estimates],
        max(0.0, protocol.cell_seconds - (warm - started)) / protocol.min_rounds,
    )
    for timing, estimate, seconds in zip(timings, estimates, shares, strict=True):
        if estimate is None:
            continue
        timing.nq = _queries_for(seconds, estimate, floor, len(xq), batch)
        timing.loops = max(1, int(np.ceil(protocol.min_seconds / (estimate * timing.nq))))

    for round_number in range(protocol.max_rounds):
        now = clock()
        a_round = (now - warm) / max(1, round_number)
        full = now - started + a_round > protocol.cell_seconds
        overdue = now - started > 2 * protocol.cell_seconds
        if (round_number >= protocol.min_rounds and full) or (round_number > 0 and overdue):
            break
        for entrant, timing in zip(entrants, timings, strict=True):
            if timing.error:
                continue
            calls = _calls(xq[: timing.nq], batch)
            entrant.prepare()
            sleep(protocol.settle_seconds)
            measured = _guarded(timing, partial(_timed, entrant, calls, k, timing.loops, clock))
            if measured is None:
                continue
            seconds, answer = measured
            timing.seconds.append(seconds / (timing.loops * timing.nq))
            timing.answers.append(answer)
    return timings


def share(costs: Sequence[float], budget: float) -> list[float]:
    """Seconds for each: its cost if that is within an equal share of what is left, else the share.

    >>> share([1.0, 2.0, 30.0, 40.0], 13.0)
    [1.0, 2.0, 5.0, 5.0]
    """
    given = [0.0] * len(costs)
    left = budget
    order = sorted(range(len(costs)), key=lambda i: costs[i])
    for position, i in enumerate(order):
        given[i] = min(costs[i], left / (len(costs) - position))
        left -= given[i]
    return given


def _queries_for(seconds: float, estimate: float, floor: int, nq: int, batch: int) -> int:
    wanted = int(min(nq, max(floor, seconds / estimate)))
    # Whole calls, unless not even one fits: then one call of fewer queries.
    return wanted - wanted % batch if batch < wanted < nq else wanted


def _guarded(timing: Timing, action: Callable[[], Any]) -> Any:
    """The result of `action()`, or None with the exception's text in `timing.error`."""
    try:
        return action()
    except Exception as error:  # a competitor's failure is a result, whatever its type
        timing.error = f"{type(error).__name__}: {error}"
        return None


def _calls(xq: Codes, batch: int) -> list[Codes]:
    return [np.ascontiguousarray(xq[i : i + batch]) for i in range(0, len(xq), batch)]


def _estimate(
    entrant: Entrant,
    xq: Codes,
    k: int,
    batch: int,
    equal_share: float,
    clock: Callable[[], float],
) -> float:
    """Seconds per query, from as little as will do; never 0, however coarse the clock."""
    entrant.prepare()
    few = xq[:_FEW_QUERIES]
    cold = _timed(entrant, _calls(few, batch), k, 1, clock)[0] / len(few)
    if cold * len(xq) > equal_share:
        return cold
    return max(_timed(entrant, _calls(xq, batch), k, 1, clock)[0], 1e-9) / len(xq)


def _timed(
    entrant: Entrant, calls: list[Codes], k: int, loops: int, clock: Callable[[], float]
) -> tuple[float, Answer]:
    """Seconds for `loops` passes over `calls`, and the answers of the last pass."""
    search = entrant.search
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = clock()
        for _ in range(loops):
            answers = [search(xq, k) for xq in calls]
        seconds = clock() - start
    finally:
        if collecting:
            gc.enable()
    return seconds, (
        np.concatenate([D for D, _ in answers]),
        np.concatenate([I for _, I in answers]),
    )

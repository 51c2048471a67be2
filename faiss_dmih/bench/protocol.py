"""How time is measured: all competitors in turn, in one process, over and over.

A noisy machine drifts: frequency, neighbours, temperature. So competitors are interleaved
(A B C A B C ...), and ratios are taken between measurements of the same round only.

1. *Estimates.* Every competitor answers a few queries, twice, then `floor` queries for an estimate
   of its speed. One that is so slow on the few that `floor` queries alone exceed its share is taken
   at that. The fastest look counts, lest a pause of the machine be taken for slowness.
2. *Shares.* A round of all competitors is to cost what is left of `cell_seconds`, divided by
   `min_rounds`. Those that can answer all queries within an equal share do; what they leave is
   shared by the slower ones, which answer fewer queries, never less than `floor`, unless that many
   alone would take more than `competitor_seconds`, if given: then as many as fit, 8 at least. How
   many is part of the result. A call is not cut where a whole one takes less than `whole_seconds`:
   what a query costs may depend on how many are asked together.
3. *Rounds.* At least `min_rounds`, at most `max_rounds`, as many as fit into `cell_seconds`. Where
   even the floors take longer, rounds end after twice `cell_seconds`, at the earliest after one. A
   competitor that would take more than `competitor_seconds` in all, if given, sits out the rounds
   that are left, and its time does not count; but not the first one, the baseline of all ratios.
   How many rounds each has is part of the result. A measurement shorter than `min_seconds` repeats
   its queries until it is long enough.
4. *Turns.* Before each measurement there is a pause: libgomp's threads spin for some 10 ms after a
   parallel region, and would take a core from the competitor that comes next. Then, if
   `warm_seconds` are given, the competitor is asked its own queries that long, untimed: it finds
   its data in the caches, and what it has learnt from searches is what these taught it. (A call
   that takes ten times `warm_seconds` is not made: no cold start matters to it.)

The garbage collector is off while the clock runs. All answers of all rounds are handed back for
checking.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from faiss_dmih.bench.questions import Answer, Codes

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
    warm_seconds: float = 0.0
    whole_seconds: float = 0.0
    competitor_seconds: float | None = None

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
    search: Callable[[Codes], Answer]
    prepare: Callable[[], None]


@dataclass(eq=False)
class Timing:
    """What one entrant did. `seconds[r]` is wall time per query in round r, in seconds."""

    nq: int = 0
    loops: int = 1
    seconds: list[float] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    error: str = ""
    estimating: float = 0.0
    """Wall time until the first round."""
    racing: float = 0.0
    """Wall time of all turns, with everything that is not in `seconds`."""

    @property
    def turn(self) -> float:
        """Mean wall time of a turn so far."""
        return self.racing / max(1, len(self.seconds))

    @property
    def spent(self) -> float:
        return self.estimating + self.racing

    def goes_on(self, limit: float | None) -> bool:
        """Whether it takes part in another round, if it may spend `limit` seconds in all."""
        if self.error:
            return False
        return limit is None or not self.seconds or self.spent + self.turn <= limit


def race(
    entrants: Sequence[Entrant],
    xq: Codes,
    batch: int,
    protocol: Protocol,
    join: Callable[[Sequence[Answer]], Answer],
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Timing]:
    """Time `entrants` on queries `xq` (nq, d/8) in calls of `batch` of them; one Timing each.

    `join` makes one answer of those to consecutive calls. An entrant that raises gets the message
    in `Timing.error` and leaves the race.
    """
    timings = [Timing() for _ in entrants]
    floor = protocol.floor(len(xq), batch)
    equal_share = protocol.cell_seconds / protocol.min_rounds / max(1, len(entrants))
    estimates: list[float | None] = []
    for entrant, timing in zip(entrants, timings, strict=True):
        began = clock()
        action = partial(_estimate, entrant, xq[:floor], batch, equal_share, clock)
        estimates.append(_guarded(timing, action))
        timing.estimating = clock() - began
    left = protocol.cell_seconds - sum(timing.estimating for timing in timings)
    shares = share(
        [0.0 if estimate is None else estimate * len(xq) for estimate in estimates],
        max(0.0, left) / protocol.min_rounds / (2 if protocol.warm_seconds else 1),
    )
    for i, (timing, estimate, seconds) in enumerate(zip(timings, estimates, shares, strict=True)):
        if estimate is None:
            continue
        most = len(xq)
        if protocol.competitor_seconds is not None and i > 0:
            most = max(_FEW_QUERIES, int(protocol.competitor_seconds / estimate))
        whole = estimate * batch <= protocol.whole_seconds
        least = min(batch, len(xq)) if whole else 0
        fewest = min(max(floor, least), most)
        timing.nq = _queries_for(seconds, estimate, fewest, len(xq), batch)
        timing.loops = max(1, int(np.ceil(protocol.min_seconds / (estimate * timing.nq))))

    for round_number in range(protocol.max_rounds):
        running = [
            timing
            for i, timing in enumerate(timings)
            if timing.goes_on(protocol.competitor_seconds if i > 0 else None)
        ]
        spent = sum(t.spent for t in running)
        full = spent + sum(t.turn for t in running) > protocol.cell_seconds
        overdue = spent > 2 * protocol.cell_seconds
        if (round_number >= protocol.min_rounds and full) or (round_number > 0 and overdue):
            break
        for entrant, timing, estimate in zip(entrants, timings, estimates, strict=True):
            if estimate is None or timing not in running:
                continue
            began = clock()
            calls = _calls(xq[: timing.nq], batch)
            entrant.prepare()
            sleep(protocol.settle_seconds)
            cold = estimate * len(calls[0]) > 10 * protocol.warm_seconds
            warm = 0.0 if cold else protocol.warm_seconds
            measured = _guarded(timing, partial(_turn, entrant, calls, warm, timing.loops, clock))
            timing.racing += clock() - began
            if measured is None:
                continue
            seconds, answers = measured
            timing.seconds.append(seconds / (timing.loops * timing.nq))
            timing.answers.append(join(answers))
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
    batch: int,
    equal_share: float,
    clock: Callable[[], float],
) -> float:
    """Seconds per query, from as little as will do; never 0, however coarse the clock."""
    entrant.prepare()
    few = xq[:_FEW_QUERIES]
    per_query = min(
        _timed(entrant, calls, 1, clock)[0] / len(few) for calls in [_calls(few, batch)] * 2
    )
    if per_query * len(xq) <= equal_share:
        per_query = min(per_query, _timed(entrant, _calls(xq, batch), 1, clock)[0] / len(xq))
    return max(per_query, 1e-9 / len(xq))


def _turn(
    entrant: Entrant, calls: list[Codes], warm: float, loops: int, clock: Callable[[], float]
) -> tuple[float, list[Answer]]:
    """A measurement, after `warm` seconds of the same calls."""
    until = clock() + warm
    for xq in itertools.cycle(calls):
        if clock() >= until:
            break
        entrant.search(xq)
    return _timed(entrant, calls, loops, clock)


def _timed(
    entrant: Entrant, calls: list[Codes], loops: int, clock: Callable[[], float]
) -> tuple[float, list[Answer]]:
    """Seconds for `loops` passes over `calls`, and the answers of the last pass."""
    search = entrant.search
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = clock()
        for _ in range(loops):
            answers = [search(xq) for xq in calls]
        seconds = clock() - start
    finally:
        if collecting:
            gc.enable()
    return seconds, answers

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from faiss_dmih.bench.protocol import Entrant, Protocol, race, share
from faiss_dmih.bench.questions import Nearest

QUICK = Protocol(
    cell_seconds=1.0,
    min_rounds=3,
    max_rounds=5,
    min_queries=4,
    min_batch_queries=8,
    min_seconds=0.0,
    settle_seconds=0.0,
)


@dataclass
class Track:
    """A clock that only searches move, and the log of what was called."""

    now: float = 0.0
    log: list[tuple[str, int]] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def entrant(self, name: str, seconds_per_query: float) -> Entrant:
        def search(xq):
            self.now += seconds_per_query * len(xq)
            self.log.append((name, len(xq)))
            ids = np.tile(np.arange(2, dtype=np.int64), (len(xq), 1))
            return ids.astype(np.int32), ids + xq[:, :1]

        return Entrant(name, search, lambda: self.log.append((f"prepare {name}", 0)))

    def race(self, entrants, xq, batch=1, protocol=QUICK):
        join = Nearest(2).join
        clock, sleep = self.clock, self.pauses.append
        return race(entrants, xq, batch, protocol, join, clock=clock, sleep=sleep)


@pytest.fixture
def xq():
    return np.arange(64 * 2, dtype=np.uint8).reshape(64, 2)


def turns(log):
    """Names in the order of their turns, warm-up included."""
    names = [name for name, _ in log if not name.startswith("prepare")]
    return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]


def test_competitors_take_turns(xq):
    track = Track()
    entrants = [track.entrant(name, 1e-4) for name in "ABC"]
    timings = track.race(entrants, xq)
    rounds = len(timings[0].seconds)
    assert rounds == QUICK.max_rounds
    assert turns(track.log) == list("ABC") * (1 + rounds)
    # Run-time options are set before every turn, and there is a pause before every measurement.
    assert [n for n, _ in track.log if n.startswith("prepare")] == [
        f"prepare {name}" for name in "ABC"
    ] * (1 + rounds)
    assert len(track.pauses) == 3 * rounds


def test_times_are_per_query(xq):
    track = Track()
    timings = track.race([track.entrant("A", 1e-3), track.entrant("B", 2e-4)], xq)
    assert [t.nq for t in timings] == [64, 64]
    np.testing.assert_allclose(timings[0].seconds, 1e-3)
    np.testing.assert_allclose(timings[1].seconds, 2e-4)


@pytest.mark.parametrize(("batch", "sizes"), [(1, {1}), (16, {16}), (64, {64})])
def test_queries_come_in_batches(xq, batch, sizes):
    track = Track()
    timings = track.race([track.entrant("A", 1e-5)], xq, batch=batch)
    turns = [i for i, (name, _) in enumerate(track.log) if name == "prepare A"]
    assert len(turns) == 1 + QUICK.max_rounds
    assert {n for name, n in track.log[turns[1] :] if name == "A"} == sizes
    for D, I in timings[0].answers:
        assert D.shape == I.shape == (64, 2)
        np.testing.assert_array_equal(I[:, 0], xq[:, 0])  # answers are in the queries' order


def test_a_slow_competitor_gets_fewer_queries_and_others_do_not_suffer(xq):
    track = Track()
    fast, slow = track.race([track.entrant("fast", 1e-4), track.entrant("slow", 2e-2)], xq)
    assert fast.nq == 64
    assert QUICK.min_queries <= slow.nq < 64
    assert len(slow.seconds) == len(fast.seconds) >= QUICK.min_rounds
    assert track.now < 2 * QUICK.cell_seconds


def test_a_very_slow_competitor_ends_the_cell_early_but_is_measured(xq):
    track = Track()
    fast, slow = track.race([track.entrant("fast", 1e-4), track.entrant("slow", 10.0)], xq)
    assert slow.nq == QUICK.min_queries
    assert len(slow.seconds) == len(fast.seconds) == 1
    np.testing.assert_allclose(slow.seconds, 10.0)


def test_batches_keep_enough_queries_for_threads():
    protocol = Protocol()
    assert protocol.floor(nq=1024, batch=1) == 32
    assert protocol.floor(nq=1024, batch=64) == 64
    assert protocol.floor(nq=1024, batch=1024) == 128  # MultiHash: threads from 101 queries on
    assert protocol.floor(nq=20, batch=1024) == 20


def test_a_short_measurement_is_repeated_until_long_enough(xq):
    protocol = Protocol(cell_seconds=1.0, min_seconds=0.01, settle_seconds=0.0)
    track = Track()
    timings = track.race([track.entrant("A", 1e-6)], xq, protocol=protocol)
    assert timings[0].loops * timings[0].nq * 1e-6 >= 0.01
    np.testing.assert_allclose(timings[0].seconds, 1e-6)


def test_a_competitor_that_raises_leaves_the_race(xq):
    track = Track()

    def broken(xq):
        raise RuntimeError("no such thing")

    good, bad = track.race([track.entrant("A", 1e-4), Entrant("B", broken, lambda: None)], xq)
    assert bad.error == "RuntimeError: no such thing"
    assert bad.seconds == []
    assert good.error == ""
    assert len(good.seconds) == QUICK.max_rounds


def test_a_competitor_that_raises_later_keeps_its_error(xq):
    track = Track()
    inner = track.entrant("B", 1e-4)

    def failing(xq):
        if len([1 for name, _ in track.log if name == "B"]) > 100:
            raise ValueError("tired")
        return inner.search(xq)

    good, bad = track.race([track.entrant("A", 1e-4), Entrant("B", failing, inner.prepare)], xq)
    assert bad.error == "ValueError: tired"
    assert len(good.seconds) == QUICK.max_rounds


def test_one_that_takes_too_long_in_all_sits_out_and_its_time_does_not_count(xq):
    protocol = replace(QUICK, competitor_seconds=3.0)
    track = Track()
    fast, slow = track.race(
        [track.entrant("fast", 1e-4), track.entrant("slow", 0.3)], xq, protocol=protocol
    )
    # An estimate (1.2 s) and a turn (1.2 s); another one would be too much.
    assert (slow.nq, len(slow.seconds)) == (QUICK.min_queries, 1)
    assert len(fast.seconds) == QUICK.max_rounds
    assert [len(t.answers) for t in (fast, slow)] == [QUICK.max_rounds, 1]


def test_the_baseline_stays_however_long_it_takes(xq):
    protocol = replace(QUICK, cell_seconds=100.0, competitor_seconds=3.0)
    track = Track()
    baseline, other = track.race(
        [track.entrant("flat", 0.3), track.entrant("other", 0.3)], xq, protocol=protocol
    )
    assert len(baseline.seconds) == QUICK.max_rounds
    assert len(other.seconds) == 1


def test_one_that_is_hopelessly_slow_answers_what_fits_but_for_the_baseline(xq):
    protocol = replace(QUICK, min_queries=40, competitor_seconds=3.0)
    track = Track()
    entrants = [("flat", 0.25), ("slow", 0.25), ("slower", 1.0), ("fast", 1e-4)]
    timings = track.race([track.entrant(*e) for e in entrants], xq, protocol=protocol)
    assert [timing.nq for timing in timings] == [40, 12, 8, 40]
    assert min(len(timing.seconds) for timing in timings) >= 1


def test_a_pause_of_the_machine_is_not_taken_for_slowness(xq):
    track = Track()
    inner = track.entrant("A", 1e-4)

    def paused(batch):
        if len(track.log) == 1:  # the very first call
            track.now += 50.0
        return inner.search(batch)

    entrant = Entrant("A", paused, inner.prepare)
    protocol = replace(QUICK, cell_seconds=200.0)
    (timing,) = track.race([entrant], xq, protocol=protocol)
    assert timing.nq == 64
    np.testing.assert_allclose(timing.seconds, 1e-4)


def test_everybody_warms_up_with_its_own_calls_before_its_turn(xq):
    protocol = replace(QUICK, warm_seconds=0.01, whole_seconds=1.0)
    track = Track()
    names = {"A": 1e-4, "B": 2e-4}
    entrants = [track.entrant(name, seconds) for name, seconds in names.items()]
    timings = track.race(entrants, xq, batch=64, protocol=protocol)
    starts = [i for i, (name, _) in enumerate(track.log) if name.startswith("prepare")][2:]
    turns = [track.log[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
    for turn in turns:
        name = turn[0][0].removeprefix("prepare ")
        # Calls of 64 until 10 ms are over, and the one that is timed.
        assert turn[1:] == [(name, 64)] * (1 + int(np.ceil(0.01 / (64 * names[name]))))
    np.testing.assert_allclose(timings[0].seconds, 1e-4)
    np.testing.assert_allclose(timings[1].seconds, 2e-4)


def test_long_calls_are_not_warmed_up(xq):
    protocol = replace(QUICK, warm_seconds=0.01)
    track = Track()
    track.race([track.entrant("A", 1e-2)], xq, batch=64, protocol=protocol)
    starts = [i for i, (name, _) in enumerate(track.log) if name == "prepare A"][1:]
    assert np.diff([*starts, len(track.log)]).tolist() == [2] * len(starts)


@pytest.mark.parametrize(("whole_seconds", "expected"), [(0.0, [128, 8, 8]), (2.0, [128, 128, 8])])
def test_calls_that_are_short_enough_are_not_cut(xq, whole_seconds, expected):
    protocol = replace(QUICK, cell_seconds=1.3, whole_seconds=whole_seconds)
    track = Track()
    entrants = [track.entrant(str(cost), cost) for cost in (1e-4, 1e-2, 5e-2)]
    timings = track.race(entrants, np.concatenate([xq, xq]), batch=128, protocol=protocol)
    assert [t.nq for t in timings] == expected


@pytest.mark.parametrize(
    ("costs", "budget", "expected"),
    [
        ([1, 1], 10, [1, 1]),
        ([5, 5], 4, [2, 2]),
        ([30, 1, 40, 2], 13, [5, 1, 5, 2]),
        ([], 3, []),
    ],
)
def test_shares(costs, budget, expected):
    assert share(costs, budget) == expected

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from faiss_dmih.bench.protocol import Entrant, Protocol, race, share

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
        def search(xq, k):
            self.now += seconds_per_query * len(xq)
            self.log.append((name, len(xq)))
            ids = np.tile(np.arange(k, dtype=np.int64), (len(xq), 1))
            return ids.astype(np.int32), ids + xq[:, :1]

        return Entrant(name, search, lambda: self.log.append((f"prepare {name}", 0)))

    def race(self, entrants, xq, k=2, batch=1, protocol=QUICK):
        return race(entrants, xq, k, batch, protocol, clock=self.clock, sleep=self.pauses.append)


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

    def broken(xq, k):
        raise RuntimeError("no such thing")

    good, bad = track.race([track.entrant("A", 1e-4), Entrant("B", broken, lambda: None)], xq)
    assert bad.error == "RuntimeError: no such thing"
    assert bad.seconds == []
    assert good.error == ""
    assert len(good.seconds) == QUICK.max_rounds


def test_a_competitor_that_raises_later_keeps_its_error(xq):
    track = Track()
    inner = track.entrant("B", 1e-4)

    def failing(xq, k):
        if len([1 for name, _ in track.log if name == "B"]) > 100:
            raise ValueError("tired")
        return inner.search(xq, k)

    good, bad = track.race([track.entrant("A", 1e-4), Entrant("B", failing, inner.prepare)], xq)
    assert bad.error == "ValueError: tired"
    assert len(good.seconds) == QUICK.max_rounds


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

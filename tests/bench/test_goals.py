from __future__ import annotations

import pytest

from faiss_dmih.bench.cells import Cell
from faiss_dmih.bench.goals import REGRET, Goal, judge
from faiss_dmih.bench.machine import describe
from faiss_dmih.bench.protocol import Protocol
from faiss_dmih.bench.report import bound, fate, tally
from faiss_dmih.bench.results import CellResult, Figure, Measurement, Run, Spread, TrialResult

CELL = Cell("x", "held-out", 64, 1000, 10, 1, 1, 1)
WHERE = (CELL.id, CELL.codes, CELL.task)


def measurement(family, speedup, error="", **settings):
    name = "-".join([family, *settings.values()])
    spread = Spread(speedup, speedup / 2, 2 * speedup)
    return Measurement(
        name, family, family, True, settings, 1, not error, error, 10, 3, 1, spread, spread
    )


@pytest.fixture
def run():
    cell = CellResult(
        CELL,
        {},
        [],
        [
            measurement("flat", 1),
            measurement("dmih-auto", 12),
            measurement("dmih-engines", 9, e="scan"),
        ],
        1.0,
        0.0,
        Spread(1.1, 1.0, 1.3),
    )
    figures = [
        Figure("a over b, 1 thread", Spread(0.6, 0.5, 0.7), "x", "speed"),
        Figure("a over b, 2 threads", Spread(0.4, 0.3, 0.9), "x", "speed"),
        Figure("a", Spread(0.6, 0.5, 0.7), "s"),
    ]
    return Run(describe(), Protocol(), 1, 0, [cell], trials=[TrialResult("t", "T", figures, 1.0)])


@pytest.mark.parametrize(
    ("figure", "limit", "met"),
    [
        ("dmih-auto", 11.9, True),
        ("dmih-auto", 12, True),
        ("dmih-auto", 12.1, False),
        (REGRET, 1.15, True),
        (REGRET, 1.05, False),
    ],
)
def test_the_median_decides(run, figure, limit, met):
    (outcome,) = judge([Goal(*WHERE, figure, limit)], run)
    assert outcome.met is met
    assert outcome.at_most == (figure == REGRET)
    assert outcome.measured == (run.cells[0].regret if figure == REGRET else Spread(12, 6, 24))


def test_every_figure_of_a_trial_that_has_the_goal_is_judged(run):
    outcomes = judge([Goal("t", "T", "", "speed", 0.5)], run)
    assert [(o.what, o.met) for o in outcomes] == [
        ("a over b, 1 thread", True),
        ("a over b, 2 threads", False),
    ]


def test_what_was_wrong_has_met_no_goal(run):
    wrong = measurement("dmih-auto", 99, error="answer differs")
    run.cells[0].measurements[1] = wrong
    for outcome in judge([Goal(*WHERE, "dmih-auto", 1), Goal(*WHERE, REGRET, 2)], run):
        assert (outcome.met, outcome.measured, outcome.note) == (None, None, "answer differs")
    run.trials[0] = TrialResult("t", "T", [], 1.0, error="wrong")
    (outcome,) = judge([Goal("t", "T", "", "speed", 0.5)], run)
    assert (outcome.met, outcome.note) == (None, "wrong")


def test_what_was_not_measured_says_why(run):
    run.skipped["elsewhere"] = "no data"
    goals = [Goal(name, "S", "k", "dmih-auto", 5) for name in ("elsewhere", "forgotten")]
    goals += [Goal(*WHERE, "dmih-scan", 5)]
    outcomes = judge(goals, run)
    assert [o.note for o in outcomes] == ["no data", "not measured", "dmih-scan took no part"]
    assert [fate(o) for o in outcomes] == ["not measured"] * 3


def test_goals_are_told_and_counted(run):
    goals = [
        Goal(*WHERE, "dmih-auto", 10),
        Goal(*WHERE, "dmih-auto", 1000, stretch=True),
        Goal(*WHERE, REGRET, 1.05),
        Goal("gone", "S", "k", "dmih-auto", 5),
    ]
    run.outcomes.extend(judge(goals, run))
    assert [bound(o) for o in run.outcomes] == [">= 10x", ">= 1,000x", "<= 1.05x", ">= 5x"]
    assert run.outcomes[1].what == "k = 1, batch 1: dmih-auto over flat (stretch)"
    assert tally(run.outcomes) == (
        "1 of 3 goals met, 1 missed, 1 not measured; 0 of 1 stretch goals met, 1 missed"
    )

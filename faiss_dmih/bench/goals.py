"""Goals: bounds on what a run measures, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from faiss_dmih.bench.competitors import FAMILIES, DmihAuto, DmihEngines
from faiss_dmih.bench.memory import MemoryTrial
from faiss_dmih.bench.partitions import PartitionTrial
from faiss_dmih.bench.results import CellResult, Outcome, Run, Spread, TrialResult

REGRET = "regret"
_OVER = "over "
AT_MOST = (REGRET, *MemoryTrial.GOALS, *PartitionTrial.GOALS)
"""What has upper bounds."""


def over(family: str) -> str:
    """How much faster dmih-auto is than the fastest of a family that must find everything."""
    return _OVER + family


@dataclass(frozen=True)
class Goal:
    """A bound on a median: a lower one, except for `AT_MOST`.

    `where` is the id of a cell or the name of a trial; `subject` and `task` say the same to people.
    `figure` is a family of competitors, whose speed-up over flat is meant, or `over` one, or
    `REGRET`, or one of the trial's `GOALS`.
    """

    where: str
    subject: str
    task: str
    figure: str
    bound: float
    stretch: bool = False
    """Beyond what is asked for."""


def judge(goals: Sequence[Goal], run: Run) -> list[Outcome]:
    """What became of each goal; one that several figures have is judged for each of them."""
    cells = {result.cell.id: result for result in run.cells}
    trials = {result.name: result for result in run.trials}
    outcomes = []
    for goal in goals:
        if goal.where in cells:
            outcomes.append(_cell_outcome(goal, cells[goal.where]))
        elif goal.where in trials:
            outcomes += _trial_outcomes(goal, trials[goal.where])
        else:
            reason = run.skipped.get(goal.where, "not measured")
            outcomes.append(_outcome(goal, _what(goal), None, reason))
    return outcomes


def _what(goal: Goal) -> str:
    if goal.figure == REGRET:
        return "planner's regret"
    if goal.figure.startswith(_OVER):
        return f"{DmihAuto.family} {goal.figure}"
    return f"{goal.figure} over flat" if goal.figure in FAMILIES else goal.figure


def _cell_outcome(goal: Goal, result: CellResult) -> Outcome:
    if goal.figure.startswith(_OVER):
        return _rival_outcome(goal, result)
    measured, note = result.regret, "the engines alone were not measured"
    if goal.figure != REGRET:
        measured, note = None, f"{goal.figure} took no part"
    families = (DmihAuto.family, DmihEngines.family) if goal.figure == REGRET else (goal.figure,)
    for m in result.measurements:
        if m.family not in families:
            continue
        if not m.success:
            measured, note = None, m.error
            break
        if goal.figure != REGRET:
            measured = m.speedup
    return _outcome(goal, _what(goal), measured, note)


def _rival_outcome(goal: Goal, result: CellResult) -> Outcome:
    family = goal.figure.removeprefix(_OVER)
    of_family = [m for m in result.measurements if m.family == family]
    certain = [m.behind for m in of_family if m.exact and m.success and m.behind is not None]
    least = min(certain, key=lambda behind: behind.median, default=None)
    return _outcome(goal, _what(goal), least, "none of it is certain to find everything")


def _trial_outcomes(goal: Goal, result: TrialResult) -> list[Outcome]:
    judged = [
        _outcome(goal, figure.what, figure.value, unit=figure.unit)
        for figure in result.figures
        if figure.goal == goal.figure
    ]
    return judged or [_outcome(goal, _what(goal), None, result.error or "not measured")]


def _outcome(
    goal: Goal, what: str, measured: Spread | None, note: str = "", unit: str = "x"
) -> Outcome:
    return Outcome(
        where=goal.where,
        figure=goal.figure,
        subject=goal.subject,
        what=": ".join(filter(None, (goal.task, what))) + (" (stretch)" if goal.stretch else ""),
        bound=goal.bound,
        at_most=goal.figure in AT_MOST,
        unit=unit,
        stretch=goal.stretch,
        measured=measured,
        note="" if measured is not None else note,
    )

"""What a run comes to: the worst cells first, and where others are ahead at equal exactness."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from faiss_dmih.bench.competitors import DmihAuto
from faiss_dmih.bench.results import BASELINE, CellResult, Measurement, Outcome, Run, Spread

OURS = "dmih"
"""How the families of the index itself begin; its engines are what regret is about."""


@dataclass(frozen=True)
class Standing:
    """A cell, as dmih-auto did in it."""

    result: CellResult
    flat: Measurement
    auto: Measurement
    speedup: Spread
    goal: Outcome | None
    rival: Measurement | None
    """The fastest of the others that found as much: by certainty, or by what was measured."""

    @property
    def margin(self) -> float:
        """Speed-up over what is asked for, or over 1."""
        return self.speedup.median / (self.goal.bound if self.goal else 1.0)

    @property
    def beaten(self) -> bool:
        """Whether that one was faster."""
        return self.rival is not None and _behind(self.rival) < 1


def standings(run: Run) -> list[Standing]:
    """Of all cells where dmih-auto was measured, the worst first."""
    goals = {
        outcome.where: outcome
        for outcome in run.outcomes
        if outcome.figure == DmihAuto.family and not outcome.stretch
    }
    found = []
    for result in run.cells:
        flat, auto = (_of(result, family) for family in (BASELINE, DmihAuto.family))
        if flat is None or auto is None or auto.speedup is None:
            continue
        rival = min(_equals(result), key=_behind, default=None)
        goal = goals.get(result.cell.id)
        found.append(Standing(result, flat, auto, auto.speedup, goal, rival))
    return sorted(found, key=lambda standing: standing.margin)


def _of(result: CellResult, family: str) -> Measurement | None:
    return next((m for m in result.measurements if m.family == family), None)


def _behind(m: Measurement) -> float:
    """Its time over that of dmih-auto."""
    return m.behind.median if m.behind else np.inf


def _equals(result: CellResult) -> Iterator[Measurement]:
    """Others that must find everything, or did so; within a radius there may be nothing to find."""
    asked_for_some = result.cell.radius is None
    for m in result.measurements:
        if m.behind is None or not m.success or m.family.startswith(OURS):
            continue
        if m.family != BASELINE and (m.exact or (asked_for_some and m.distance_recall == 1.0)):
            yield m


@dataclass(frozen=True)
class Rival:
    """A competitor over all cells it took part in."""

    name: str
    cells: int
    behind: Spread
    """Its time over that of dmih-auto: median, least and greatest of the cells' medians."""
    recall: Spread
    """Distance recall."""
    exact: int
    """Cells where it was certain to find everything."""
    faster: int
    """Cells where it was faster, whatever it found."""


def rivals(run: Run) -> list[Rival]:
    """All that are not the index itself, variants by their options, in the order of families."""
    by_name: dict[str, list[Measurement]] = {}
    for result in run.cells:
        for m in result.measurements:
            if m.behind is not None and not m.family.startswith(OURS):
                options = "".join(f", {key.split('.')[-1]} {m.settings[key]}" for key in m.settings)
                by_name.setdefault(_family(m) + options, []).append(m)
    return [
        Rival(
            name,
            len(measured),
            Spread.of([_behind(m) for m in measured]),
            Spread.of([m.distance_recall or 0.0 for m in measured]),
            sum(m.exact for m in measured),
            sum(_behind(m) < 1 for m in measured),
        )
        for name, measured in by_name.items()
    ]


def _family(m: Measurement) -> str:
    return "IndexBinaryFlat" if m.family == BASELINE else m.family

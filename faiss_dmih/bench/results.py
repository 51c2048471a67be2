"""What a run leaves behind, as dataclasses that go to JSON and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from faiss_dmih.bench.cells import Cell
from faiss_dmih.bench.competitors import Settings
from faiss_dmih.bench.machine import Machine
from faiss_dmih.bench.protocol import Protocol
from faiss_dmih.data.files import atomic_write

FORMAT = 1
BASELINE = "flat"


@dataclass(frozen=True)
class Spread:
    """Median and range of the values of all rounds."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(float(np.median(values)), float(min(values)), float(max(values)))


@dataclass(frozen=True)
class Build:
    """One index filled with all codes by one call of `add`."""

    label: str
    success: bool
    error: str = ""
    add_seconds: float | None = None
    first_search_seconds: float | None = None
    """One query, right after `add`: shows work put off until then."""
    bytes: int | None = None
    bytes_per_code: float | None = None
    bytes_from: str = ""


@dataclass(frozen=True)
class Measurement:
    """One competitor in one cell."""

    competitor: str
    family: str
    label: str
    exact: bool
    """Whether it must answer as IndexBinaryFlat does, bit for bit, or but for `own_order`."""
    settings: Settings
    threads: int
    success: bool
    error: str = ""
    nq: int = 0
    """Queries it was timed on: the first ones of the cell's."""
    rounds: int = 0
    loops: int = 1
    seconds_per_query: Spread | None = None
    speedup: Spread | None = None
    """Time of IndexBinaryFlat over its own, each in the same round."""
    recall: float | None = None
    distance_recall: float | None = None
    behind: Spread | None = None
    """Its own time over that of dmih-auto, each in the same round."""
    own_order: bool = False
    """Whether its order and its choice among ties are its own, and were not compared."""


@dataclass(frozen=True)
class CellResult:
    """One cell; `success` means that every measurement succeeded."""

    cell: Cell
    info: dict[str, Any]
    builds: list[Build]
    measurements: list[Measurement]
    seconds: float
    bystanders: float | None = None
    """Mean number of cores that other processes kept busy during the cell."""
    regret: Spread | None = None
    """Time of dmih-auto over that of the best engine alone, both of the same round."""

    @property
    def success(self) -> bool:
        return all(m.success for m in self.measurements)

    @classmethod
    def read(cls, raw: dict[str, Any]) -> CellResult:
        """From what `asdict` made of it."""
        return cls(
            **_with_spreads(raw, "regret")
            | {
                "cell": Cell(**raw["cell"]),
                "builds": [Build(**build) for build in raw["builds"]],
                "measurements": [
                    Measurement(**_with_spreads(m, "seconds_per_query", "speedup", "behind"))
                    for m in raw["measurements"]
                ],
            }
        )


@dataclass(frozen=True)
class Figure:
    """One number of a trial, such as a time or a ratio."""

    what: str
    value: Spread
    unit: str
    """"s", "x" (a ratio), "/s", "%" (of a limit, 1 being all of it), "B" (bytes), or nothing."""
    goal: str = ""
    """Name of the goal that is set for it, if there is one."""


@dataclass(frozen=True)
class Curve:
    """Points of one subject in a chart."""

    name: str
    x: list[float]
    y: list[Spread]
    points: list[str] = field(default_factory=list)
    """What tells the points apart, if not their x; short, to be written beside them."""


@dataclass(frozen=True)
class Chart:
    """Curves over the same axes; that of y is logarithmic."""

    title: str
    x: str
    y: str
    curves: list[Curve]
    scale: str = "linear"
    """That of x: linear, log, or recall, which gives most room to what is just below 1."""
    unit: str = ""
    """That of y, as figures have it."""

    @classmethod
    def read(cls, raw: dict[str, Any]) -> Chart:
        curves = [Curve(**c | {"y": [Spread(**y) for y in c["y"]]}) for c in raw["curves"]]
        return cls(**raw | {"curves": curves})


@dataclass(frozen=True)
class TrialResult:
    """What was measured otherwise than by searches in rounds: see `trials`."""

    name: str
    title: str
    figures: list[Figure]
    seconds: float
    bystanders: float | None = None
    error: str = ""
    """Of a wrong answer."""
    charts: list[Chart] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What of it could not be measured here, and why."""

    @classmethod
    def read(cls, raw: dict[str, Any]) -> TrialResult:
        figures = [Figure(**_with_spreads(figure, "value")) for figure in raw["figures"]]
        charts = [Chart.read(chart) for chart in raw.get("charts", [])]
        return cls(**raw | {"figures": figures, "charts": charts})


@dataclass(frozen=True)
class Outcome:
    """What became of a goal; see `goals`."""

    where: str
    figure: str
    subject: str
    """For people: the codes of a cell, or the trial."""
    what: str
    """For people: what of these is bounded."""
    bound: float
    at_most: bool
    """Whether the bound is an upper one."""
    unit: str
    stretch: bool
    measured: Spread | None
    note: str = ""
    """Why it was not measured."""

    @property
    def met(self) -> bool | None:
        """None if it was not measured; the median counts."""
        if self.measured is None:
            return None
        value = self.measured.median
        return value <= self.bound if self.at_most else value >= self.bound


@dataclass(frozen=True)
class Run:
    """All cells of one invocation on one machine."""

    machine: Machine
    protocol: Protocol
    threads: int
    seed: int
    cells: list[CellResult] = field(default_factory=list)
    seconds: float = 0.0
    suite: str = ""
    trials: list[TrialResult] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Cells and trials that could not be measured here, and why."""
    absent: dict[str, str] = field(default_factory=dict)
    """Competitors that could not take part here, and why."""
    reused: int = 0
    """How many of the cells and trials an earlier run has measured."""

    def bystanders(self) -> float:
        """The largest of all values: above some tenths the numbers are not to be trusted."""
        return max(self.all_bystanders(), default=0.0)

    def all_bystanders(self) -> list[float]:
        """Of each cell, then of each trial; 0 where the system does not say."""
        values = [c.bystanders for c in self.cells] + [t.bystanders for t in self.trials]
        return [value or 0.0 for value in values]

    def failures(self) -> list[str]:
        """Wrong answers, and competitors that raised: where, who, what."""
        cells = [
            f"{c.cell.id}, {m.competitor}: {m.error}"
            for c in self.cells
            for m in c.measurements
            if not m.success
        ]
        return cells + [f"{trial.name}: {trial.error}" for trial in self.trials if trial.error]

    def save(self, path: Path) -> None:
        write_json(path, {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read what `save` wrote. Raises `ValueError` for another format."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.pop("format", None) != FORMAT:
            raise ValueError(f"{path}: not results of format {FORMAT}; run the benchmark again")
        raw["machine"] = Machine(**raw["machine"])
        raw["protocol"] = Protocol(**raw["protocol"])
        raw["cells"] = [CellResult.read(cell) for cell in raw["cells"]]
        raw["trials"] = [TrialResult.read(trial) for trial in raw.get("trials", [])]
        raw["outcomes"] = [
            Outcome(**_with_spreads(outcome, "measured")) for outcome in raw.get("outcomes", [])
        ]
        return cls(**raw)


def _with_spreads(raw: dict[str, Any], *keys: str) -> dict[str, Any]:
    """`raw` with the spreads under `keys` made dataclasses again; absent ones stay absent."""
    return raw | {key: Spread(**raw[key]) for key in keys if raw.get(key) is not None}


def write_json(path: Path, value: Any) -> None:
    """Write `value`, indented, all of it or nothing."""
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=1) + "\n").encode())

"""What a run leaves behind, as dataclasses that go to JSON and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from faiss_dmih.bench.cells import Cell
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
    """Whether it must answer as IndexBinaryFlat does, bit for bit."""
    settings: dict[str, int]
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

    @property
    def success(self) -> bool:
        return all(m.success for m in self.measurements)

    def save(self, folder: Path) -> None:
        """Write `folder/<cell id>.json`."""
        write_json(folder / f"{self.cell.id}.json", {"format": FORMAT, **asdict(self)})


@dataclass(frozen=True)
class Run:
    """All cells of one invocation on one machine."""

    machine: Machine
    protocol: Protocol
    threads: int
    seed: int
    cells: list[CellResult] = field(default_factory=list)
    seconds: float = 0.0

    def bystanders(self) -> float:
        """The largest of the cells' values: above some tenths the numbers are not to be trusted."""
        return max((c.bystanders or 0.0 for c in self.cells), default=0.0)

    def failures(self) -> list[tuple[Cell, Measurement]]:
        return [(c.cell, m) for c in self.cells for m in c.measurements if not m.success]

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
        raw["cells"] = [_cell_result(c) for c in raw["cells"]]
        return cls(**raw)


def _cell_result(raw: dict[str, Any]) -> CellResult:
    for m in raw["measurements"]:
        for key in ("seconds_per_query", "speedup"):
            m[key] = None if m[key] is None else Spread(**m[key])
    return CellResult(
        Cell(**raw["cell"]),
        raw["info"],
        [Build(**b) for b in raw["builds"]],
        [Measurement(**m) for m in raw["measurements"]],
        raw["seconds"],
        raw["bystanders"],
    )


def write_json(path: Path, value: Any) -> None:
    """Write `value`, indented, all of it or nothing."""
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=1) + "\n").encode())

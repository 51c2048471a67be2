"""What a run on a GPU leaves behind, as dataclasses that go to JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from faiss_dmih.bench.cells import Cell
from faiss_dmih.bench.cuda.device import Gpu
from faiss_dmih.bench.cuda.limits import Limits
from faiss_dmih.bench.machine import Machine
from faiss_dmih.bench.results import Figure, Outcome, Spread, write_json

FORMAT = "cuda 1"

# What figures of a competitor are called.
QUERIES = "queries"
PAIRS = "pairs"
OF_POPC = "part of the POPC limit"
OF_TENSOR = "part of the tensor cores' limit"
OF_FLOOR = "time over that of reading all codes"


@dataclass(frozen=True)
class Timed:
    """One competitor in one cell."""

    competitor: str
    host_clock: bool
    """Timed by the host, from its arrays to its arrays; the others by the device, on its own."""
    nq: int = 0
    """Queries in a call: the first ones of the cell's."""
    rounds: int = 0
    seconds: Spread | None = None
    """Of a call."""
    alone: Spread | None = None
    """Of a call on an idle device, by the host's clock, for calls so short that this matters."""
    figures: list[Figure] = field(default_factory=list)
    error: str = ""
    """Of a wrong answer, or an exception."""

    def figure(self, what: str) -> Figure | None:
        return next((figure for figure in self.figures if figure.what == what), None)


@dataclass(frozen=True)
class CudaCell:
    """One question about one database."""

    cell: Cell
    checked: int
    """Queries whose answers were compared with IndexBinaryFlat's, of every competitor."""
    timed: list[Timed]

    def of(self, competitor: str) -> Timed | None:
        return next((timed for timed in self.timed if timed.competitor == competitor), None)


@dataclass(frozen=True)
class CudaBuild:
    """One index filled with all codes of a database by one call of `add`."""

    d: int
    n: int
    competitor: str
    seconds: Spread | None = None
    bytes: int | None = None
    error: str = ""


@dataclass(frozen=True)
class CudaRun:
    """All of one invocation on one GPU."""

    machine: Machine
    gpu: Gpu
    seed: int
    threads: int
    """Of the host's indexes."""
    limits: Limits
    builds: list[CudaBuild]
    cells: list[CudaCell]
    outcomes: list[Outcome]
    skipped: dict[str, str]
    """Cells that were not measured, and why."""
    absent: dict[str, str]
    """Competitors that took no part, and why."""
    seconds: float

    def failures(self) -> list[str]:
        """Wrong answers, and what competitors raised: where, who, what."""
        builds = [
            f"adding {b.n:,} codes of {b.d} bits to {b.competitor}: {b.error}"
            for b in self.builds
            if b.error
        ]
        return builds + [
            f"{result.cell.id}, {timed.competitor}: {timed.error}"
            for result in self.cells
            for timed in result.timed
            if timed.error
        ]

    def save(self, path: Path) -> None:
        write_json(path, {"format": FORMAT, **asdict(self)})

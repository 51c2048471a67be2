"""What is measured, in the order of its weight, and the goals that are set for it.

A database is uniform codes. Held-out queries are uniform, too: no index can rule much out, and a
scan is held against the limits. Planted queries are d/16 flips away from a stored code, which is
nearly always the nearest one; among the nearest ten the others are as far as for any query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from faiss_dmih.bench.cells import Cell
from faiss_dmih.bench.cuda.competitors import PROBE, SCAN, TENSOR
from faiss_dmih.bench.cuda.results import OF_FLOOR, OF_POPC, PAIRS, QUERIES, CudaCell
from faiss_dmih.bench.results import Outcome
from faiss_dmih.data import HELD_OUT, PLANTED

_LARGEST = 10_000
_CPU_UP_TO = 10_000_000
"""Codes up to which the host's indexes take part: they are built in seconds."""

# (queries, batch, k), or k = None for a range search at radius d/8.
_Asked = tuple[str, int, int | None]
_SCANS: tuple[_Asked, ...] = (
    (HELD_OUT, 1, 10),
    (HELD_OUT, _LARGEST, 10),
    (HELD_OUT, 100, 10),
)
_SHORT: tuple[_Asked, ...] = (
    *_SCANS,
    (PLANTED, 1, 1),
    (PLANTED, _LARGEST, 1),
    (PLANTED, _LARGEST, None),
)
_FULL: tuple[_Asked, ...] = (
    *_SHORT,
    (HELD_OUT, _LARGEST, 1),
    (HELD_OUT, _LARGEST, 100),
    (PLANTED, 100, 1),
    (PLANTED, _LARGEST, 10),
    (PLANTED, 100, None),
)


@dataclass(frozen=True)
class Database:
    """`n` codes of `d` bits, and what is asked about them."""

    d: int
    n: int
    cells: tuple[Cell, ...]

    @property
    def title(self) -> str:
        return f"{self.n:,} codes of {self.d} bits"

    @property
    def on_host(self) -> bool:
        """Whether the host's indexes take part."""
        return self.n <= _CPU_UP_TO


def database(d: int, n: int, asked: Sequence[_Asked], threads: int) -> Database:
    """`threads` are those that the host's indexes have."""
    cells = [
        Cell(
            dataset="uniform",
            queries=queries,
            d=d,
            n=n,
            nq=batch,
            k=k or 0,
            batch=batch,
            threads=threads,
            radius=d // 8 if k is None else None,
        )
        for queries, batch, k in asked
    ]
    return Database(d, n, tuple(cells))


def databases(threads: int) -> list[Database]:
    """The whole plan. For an H200 three minutes and 40 GiB are expected; not measured."""
    sizes = (
        (64, 100_000_000, _SHORT),
        (256, 100_000_000, _SHORT),
        (128, 100_000_000, _SHORT),
        (64, 10_000_000, _FULL),
        (512, 10_000_000, _SHORT),
        (256, 10_000_000, _SHORT),
        (64, 1_000_000, _SHORT),
        (256, 1_000_000, _SHORT),
        (128, 10_000_000, _SHORT),
        (128, 1_000_000, _SCANS),
        (512, 1_000_000, _SCANS),
        (512, 100_000_000, _SCANS),
    )
    return [database(d, n, asked, threads) for d, n, asked in sizes]


_TENSOR_GOALS = {64: 1e13, 128: 1e13, 256: 5e12}
"""Pairs/s by bits, on an H200."""


@dataclass(frozen=True)
class Goal:
    """A bound on the median of a figure of one competitor in one cell."""

    cell: Cell
    competitor: str
    figure: str
    bound: float
    unit: str
    at_most: bool = False


def goals(planned: Sequence[Database]) -> list[Goal]:
    """Those that the plan can decide."""
    found = []
    for database in planned:
        # Those for scans alone come last, and perhaps not at all.
        sizes = [p.n for p in planned if p.d == database.d and len(p.cells) > len(_SCANS)]
        largest = database.n == max(sizes, default=database.n)
        for cell in database.cells:
            asked = (cell.queries, cell.batch, cell.k)
            if largest and asked == (HELD_OUT, _LARGEST, 10):
                found.append(Goal(cell, SCAN, OF_POPC, 0.7, "%"))
                if cell.d in _TENSOR_GOALS:
                    found.append(Goal(cell, TENSOR, PAIRS, _TENSOR_GOALS[cell.d], "/s"))
            if largest and asked == (HELD_OUT, 1, 10):
                found.append(Goal(cell, SCAN, OF_FLOOR, 2.0, "x", at_most=True))
            if (cell.d, cell.n, *asked) == (64, 100_000_000, PLANTED, _LARGEST, 1):
                found.append(Goal(cell, PROBE, QUERIES, 1e6, "/s"))
    return found


def judge(
    wanted: Sequence[Goal], cells: Sequence[CudaCell], skipped: dict[str, str]
) -> list[Outcome]:
    """What became of each goal."""
    measured = {result.cell.id: result for result in cells}
    outcomes = []
    for goal in wanted:
        result = measured.get(goal.cell.id)
        timed = result.of(goal.competitor) if result else None
        figure = timed.figure(goal.figure) if timed else None
        note = timed.error if timed else skipped.get(goal.cell.id, "took no part")
        outcomes.append(
            Outcome(
                where=goal.cell.id,
                figure=goal.figure,
                subject=f"{goal.cell.n:,} codes of {goal.cell.d} bits",
                what=f"{goal.cell.task}: {goal.competitor}, {goal.figure}",
                bound=goal.bound,
                at_most=goal.at_most,
                unit=goal.unit,
                stretch=False,
                measured=None if timed is None or timed.error or figure is None else figure.value,
                note=note,
            )
        )
    return outcomes

"""What tables are written with: figures of trainings over all seeds, asked for by name.

A table asks for work and never does any. The first time it is written nobody answers, which tells
what work it needs; the second time a workshop does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from faiss_dmih.metrics.evaluation import Evaluation
from faiss_dmih.tables.jobs import (
    Codes,
    Evaluated,
    Fit,
    Rearranged,
    Taught,
    Timed,
    read_evaluation,
)
from faiss_dmih.tables.layout import Figure, Row
from faiss_dmih.tables.models import Model
from faiss_dmih.tables.plan import Plan
from faiss_dmih.tables.trainings import read
from faiss_dmih.tables.work import Absent, Work

T = TypeVar("T")
Find = Callable[[Work], Path | Absent]


@dataclass(frozen=True)
class Found(Generic[T]):
    """Results of the seeds that were run, and why others were not."""

    values: tuple[T, ...]
    why: str = ""

    def figure(self, read: Callable[[T], float | None], digits: int = 3, unit: str = "") -> Figure:
        """A cell of them, without those that are None: times of a training that was resumed,
        precision of more items than there are."""
        values = tuple(v for v in map(read, self.values) if v is not None)
        resumed = "no figure: a training that was resumed has no time, few items no precision"
        why = self.why or (resumed if self.values else "not run")
        return Figure(values, digits, unit, "" if values else why)


@dataclass
class Sheet:
    """Of a plan, for one table; `find` is a workshop's, or `nobody`. `asked` is what was asked for,
    in order."""

    plan: Plan
    find: Find
    asked: dict[Work, None] = field(default_factory=dict)
    busy: float = 0.0
    """Cores that others kept busy while times were taken, at most."""

    def evaluations(
        self, method: str, data: str, bits: int, first: int | None = None, **changes: Any
    ) -> Found[Evaluation]:
        """Of codes of `bits`; with `first` of so many bits of them."""
        first = None if first == bits else first
        return self._each(
            method, data, bits, changes, lambda m: Evaluated(m, first), read_evaluation
        )

    def rearranged(self, method: str, data: str, bits: int, **changes: Any) -> Found[Evaluation]:
        """Of codes with their bits in the learnt order."""
        return self._each(method, data, bits, changes, Rearranged, read_evaluation)

    def times(
        self,
        method: str,
        data: str,
        bits: int,
        ks: Sequence[int],
        *,
        views: int = 0,
        rearranged: bool = False,
        **changes: Any,
    ) -> Found[dict[str, Any]]:
        """times.json's ks."""
        return self._each(
            method,
            data,
            bits,
            changes,
            lambda m: Timed(m, tuple(ks), views, rearranged),
            self._read_times,
        )

    def _read_times(self, folder: Path) -> dict[str, Any]:
        said = read(folder / "times.json")
        self.busy = max(self.busy, said["bystanders"] or 0.0)
        found: dict[str, Any] = said["ks"]
        return found

    def training(self, method: str, data: str, bits: int, **changes: Any) -> Found[dict[str, Any]]:
        """codes.json: seconds of training."""
        return self._each(
            method, data, bits, changes, Codes, lambda folder: read(folder / "codes.json")
        )

    def steps(self, method: str, data: str, bits: int, **changes: Any) -> Found[dict[str, Any]]:
        """fit.json: seconds of each length of an ensemble that grows."""
        return self._each(
            method, data, bits, changes, Fit, lambda folder: read(folder / "fit.json")
        )

    def taught(self, method: str, data: str, bits: int, **changes: Any) -> Found[dict[str, Any]]:
        """taught.json."""
        return self._each(
            method, data, bits, changes, Taught, lambda folder: read(folder / "taught.json")
        )

    def left_out(self, name: str, data: str) -> str:
        """Why a published set has no row of ours; empty if it has."""
        if data in self.plan.data:
            return ""
        return f"{name}: the schedule {self.plan.schedule} leaves it out (--data {data})"

    def no_bits(self, bits: int) -> Figure:
        return Figure(why=f"the schedule {self.plan.schedule} leaves it out (--bits {bits})")

    def _each(
        self,
        method: str,
        data: str,
        bits: int,
        changes: dict[str, Any],
        work: Callable[[Model], Work],
        read_folder: Callable[[Path], T],
    ) -> Found[T]:
        values, why = [], ""
        for seed in range(self.plan.seeds):
            piece = work(self.plan.model(method, data, bits, seed, **changes))
            self.asked[piece] = None
            found = self.find(piece)
            if isinstance(found, Absent):
                why = why or found.why
            else:
                values.append(read_folder(found))
        return Found(tuple(values), why)


def nobody(work: Work) -> Absent:
    """Answers nothing."""
    return Absent("not done yet")


def published(labels: Sequence[str], values: Sequence[float], digits: int, unit: str = "") -> Row:
    """A row of the paper's."""
    return Row(tuple(labels), tuple(Figure((v,), digits, unit) for v in values), published=True)

"""What a table is, before it is Markdown, HTML or JSON."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """A cell: a figure of each seed; or of the paper; or why there is none."""

    values: tuple[float, ...] = ()
    digits: int = 3
    unit: str = ""
    why: str = ""

    @property
    def text(self) -> str:
        """Mean and standard deviation.

        >>> Figure((0.25, 0.35), digits=2).text, Figure((1234.5,), digits=0, unit="x").text
        ('0.30 ± 0.07', '1,234x')
        """
        if not self.values:
            return "not run" if self.why else ""
        mean = f"{statistics.fmean(self.values):,.{self.digits}f}"
        if len(self.values) > 1:
            mean += f" ± {statistics.stdev(self.values):,.{self.digits}f}"
        return mean + self.unit


@dataclass(frozen=True)
class Row:
    """Labels, then figures; `published` ones are the paper's."""

    labels: tuple[str, ...]
    figures: tuple[Figure, ...]
    published: bool = False


@dataclass(frozen=True)
class Picture:
    """`draw(path)` writes it as PNG."""

    name: str
    about: str
    draw: Callable[[Path], object]


@dataclass(frozen=True)
class Section:
    """One table or figure of a paper. `differences` say in what its setting is another one here."""

    key: str
    title: str
    caption: str
    differences: tuple[str, ...]
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    pictures: tuple[Picture, ...] = ()

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why cells were not run, each once."""
        return tuple(dict.fromkeys(f.why for row in self.rows for f in row.figures if f.why))

    def cell(self, figure: Figure) -> str:
        """Its text; with the number of the reason where it was not run."""
        if figure.why and not figure.values:
            return f"not run [{self.reasons.index(figure.why) + 1}]"
        return figure.text

"""The papers' tables and figures, from trainings that are kept: `faiss-dmih tables`.

`TABLES` are functions from a `Sheet` to a `Section`: they ask for results by name and never train.
`make` finds what they ask for, does what is missing (`work.Workshop`), and has them written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from faiss_dmih.tables import beyond, dmih, edsh
from faiss_dmih.tables.layout import Section
from faiss_dmih.tables.plan import SCHEDULES, Plan
from faiss_dmih.tables.sheet import Sheet, nobody
from faiss_dmih.tables.work import Work, Workshop

PAPERS = {
    "dmih": "Deep Multi-Index Hashing",
    "edsh": "Ensemble based deep supervised hashing",
    "beyond": "Beyond the papers",
}

TABLES: dict[str, Callable[[Sheet], Section]] = {
    "dmih-1": dmih.speedups,
    "dmih-1-views": dmih.views,
    "dmih-2": dmih.entropy,
    "dmih-3": dmih.ablation,
    "dmih-4": dmih.two_stage,
    "dmih-f4": dmih.rankings,
    "edsh-1": edsh.maps,
    "edsh-f1": edsh.losses,
    "edsh-f4": edsh.correlations,
    "edsh-2": edsh.shared,
    "edsh-f5": edsh.curves,
    "edsh-bits": edsh.growing,
    "edsh-data": edsh.teaching,
    "beyond-1": beyond.modern,
    "beyond-2": beyond.weights,
    "beyond-3": beyond.margins,
}
"""By key, whose first word is the paper's."""


@dataclass(frozen=True)
class Order:
    """Which tables of which plan."""

    plan: Plan
    keys: tuple[str, ...] = tuple(TABLES)

    def needed(self) -> list[Work]:
        """All that the tables ask for, in their order."""
        asked: dict[Work, None] = {}
        for key in self.keys:
            sheet = Sheet(self.plan, nobody)
            TABLES[key](sheet)
            asked |= sheet.asked
        return list(asked)

    def written(self, shop: Workshop) -> list[Section]:
        """The tables, of what is there."""
        return [TABLES[key](Sheet(self.plan, shop.find)) for key in self.keys]


def chosen(papers: Sequence[str], keys: Sequence[str]) -> tuple[str, ...]:
    """Keys of tables: those that are named, and those of named papers; all where none is.

    >>> chosen(["beyond"], ["dmih-2"])
    ('dmih-2', 'beyond-1', 'beyond-2', 'beyond-3')

    Raises:
        ValueError: an unknown name; says which there are.
    """
    for given, known in ((papers, PAPERS), (keys, TABLES)):
        for name in given:
            if name not in known:
                raise ValueError(f"got {name!r}, expected one of {', '.join(known)}")
    if not papers and not keys:
        return tuple(TABLES)
    return tuple(key for key in TABLES if key in keys or key.split("-")[0] in papers)


__all__ = ["PAPERS", "SCHEDULES", "TABLES", "Order", "Plan", "Section", "Workshop", "chosen"]

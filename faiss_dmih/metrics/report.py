"""Evaluations for people: a table in Markdown, and one for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from faiss_dmih.metrics.evaluation import Evaluation, MeanAP

if TYPE_CHECKING:
    from rich.table import Table

LEGEND = (
    "mAP: expected over orders among equal distances (in brackets: worst to best order). "
    "Entropy of the hash tables, natural logarithm / base 2. mAC: mean absolute correlation of "
    "the bits that vary. Candidates: entries that plain multi-index hashing meets per query."
)

_SHOWN_N = 100


def cells(evaluation: Evaluation) -> dict[str, str]:
    """What there is to say about a set of codes, by heading."""
    e = evaluation
    out = {
        "codes": e.name,
        "bits": str(e.bits),
        "distinct": f"{e.distinct:,} of {e.n:,}",
        "mAP": _bounded(e.mean_average_precision),
    }
    for at, found in zip(e.cutoffs, e.mean_average_precision_at, strict=True):
        out[f"mAP@{at:,}"] = _bounded(found)
    out |= {
        f"P@{at:,}": number(precision)
        for at, precision in zip(e.ns, e.precision_at, strict=True)
        if at == _SHOWN_N
    }
    out[f"P(d <= {e.within.radius})"] = number(e.within.precision)
    out["entropy"] = f"{number(e.entropy, 2)} / {number(e.entropy_bits, 2)}"
    constant = f", {e.constant_bits} constant" if e.constant_bits else ""
    out["mAC"] = number(e.mean_absolute_correlation, 2) + constant
    for k, candidates in zip(e.ks, e.candidates, strict=True):
        out[f"candidates {k}-NN"] = f"{candidates:,.0f}"
    return out


def caption(evaluations: Sequence[Evaluation]) -> str:
    """How many queries, and what the columns mean."""
    queries = " or ".join(f"{nq:,}" for nq in sorted({e.nq for e in evaluations}))
    left_out = {e.without_relevant for e in evaluations}
    if left_out <= {0}:
        return f"{queries} queries. {LEGEND}"
    how_many = f"{min(left_out):,}" + (f" to {max(left_out):,}" if len(left_out) > 1 else "")
    return f"{queries} queries, of them left out for want of relevant items: {how_many}. {LEGEND}"


def markdown(evaluations: Sequence[Evaluation]) -> str:
    """A table with a line for each evaluation, and a caption."""
    headings, rows = _grid(evaluations)
    rule = ["---" if heading == "codes" else "--:" for heading in headings]
    lines = [f"| {' | '.join(line)} |" for line in [headings, rule, *rows]]
    return "\n".join([*lines, "", caption(evaluations), ""])


def terminal_table(evaluations: Sequence[Evaluation]) -> Table:
    """The same for `rich.console.Console.print`, a column for each evaluation: terminals are
    narrow. Raises ImportError without rich.
    """
    try:
        from rich import box
        from rich.table import Table
    except ImportError as error:
        raise ImportError("tables need rich: pip install 'faiss-dmih[bench]'") from error
    headings, rows = _grid(evaluations)
    table = Table(box=box.SIMPLE_HEAD, caption=caption(evaluations), caption_justify="left")
    for heading in (headings[0], *(row[0] for row in rows)):
        table.add_column(heading, justify="right" if table.columns else "left", overflow="fold")
    for i, heading in enumerate(headings[1:], start=1):
        table.add_row(heading, *(row[i] for row in rows))
    return table


def _grid(evaluations: Sequence[Evaluation]) -> tuple[list[str], list[list[str]]]:
    """All headings in order of appearance, and a row for each evaluation."""
    found = [cells(evaluation) for evaluation in evaluations]
    headings = list(dict.fromkeys(heading for row in found for heading in row))
    return headings, [[row.get(heading, "") for heading in headings] for row in found]


def _bounded(found: MeanAP) -> str:
    lowest, value, highest = map(number, (found.lowest, found.value, found.highest))
    return value if lowest == highest else f"{value} ({lowest} to {highest})"


def number(value: float, digits: int = 3) -> str:
    """With so many decimals; in words where there is none."""
    return "none" if math.isnan(value) else f"{value:.{digits}f}"

"""What the terminal shows of a benchmark: its tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from faiss_dmih.bench.competitors import DmihAuto
from faiss_dmih.bench.report import (
    best_alone,
    bound,
    disturbance,
    duration,
    fate,
    panels,
    ratio,
    shown,
    skipped,
    tally,
    title,
    verdict,
)
from faiss_dmih.bench.results import (
    BASELINE,
    CellResult,
    Measurement,
    Outcome,
    Run,
    TrialResult,
)
from faiss_dmih.cli.terminal import show_error


def show_run(console: Console, run: Run) -> None:
    """A table for each workload and batch size, or one for a suite; then the rest of the result."""
    m = run.machine
    console.print(
        f"{m.cpu}, {run.threads} threads, {m.simd}; faiss {m.faiss}, faiss_dmih {m.faiss_dmih}",
        highlight=False,
    )
    console.print(
        "Times faster than IndexBinaryFlat (its row: time per query). Exact indexes were compared "
        "with it bit for bit; for approximate ones the second number is distance recall@k."
        if not run.suite
        else "Times faster than IndexBinaryFlat, whose time per query is given. Every answer was "
        "compared with its own bit for bit. Regret: time over that of the best engine alone.",
        highlight=False,
    )
    if run.suite:
        _show_suite(console, run)
    else:
        _show_grid(console, run)
    if warning := disturbance(run):
        console.print(Text("warning: ", style="bold yellow") + Text(warning))
    for why, where in skipped(run).items():
        what = where[0] if len(where) == 1 else f"{len(where)} cells"
        console.print(Text("not measured: ", style="bold yellow") + Text(f"{what}: {why}"))
    for family, why in run.absent.items():
        console.print(Text("left out: ", style="bold yellow") + Text(f"{family}: {why}"))
    for failure in run.failures():
        show_error(console, failure)


def _show_grid(console: Console, run: Run) -> None:
    for panel in panels(run):
        console.print(Text(title(panel[0]), style="italic"))
        console.print(_panel_table(panel))
    shown: set[str] = set()
    for result in run.cells:
        if result.cell.dataset not in shown:
            shown.add(result.cell.dataset)
            console.print(Text(f"{result.cell.dataset}: indexes", style="italic"))
            console.print(_build_table(result))


def _show_suite(console: Console, run: Run) -> None:
    if run.cells:
        console.print(_cells_table(run))
    for trial in run.trials:
        console.print(Text(trial.title, style="italic"))
        console.print(_trial_table(trial))
    show_goals(console, run.outcomes)


def _cells_table(run: Run) -> Table:
    """One line for each cell: the planner, the best engine alone, and what lies between them."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", overflow="fold", ratio=1)
    for heading in ("flat", "dmih-auto", "best engine", "", "regret"):
        table.add_column(heading, justify="right", overflow="fold")
    codes = ""
    for result in run.cells:
        if result.cell.codes != codes:
            codes = result.cell.codes
            table.add_row(Text(codes, style="italic"))
        flat, planner = (_of(result, family) for family in (BASELINE, DmihAuto.family))
        regret = Text("" if result.regret is None else ratio(result.regret.median))
        alone = best_alone(result)
        table.add_row(
            f"  {result.cell.task}",
            *(Text() if m is None else _entry(m, False, brief=True) for m in (flat, planner)),
            Text() if alone is None else _entry(alone, False, brief=True),
            Text() if alone is None else Text(str(alone.settings.get("engine", alone.label))),
            regret,
        )
    return table


def _of(result: CellResult, family: str) -> Measurement | None:
    return next((m for m in result.measurements if m.family == family), None)


def _trial_table(trial: TrialResult) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("", "median", "range"):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    if trial.error:
        table.add_row(Text("FAILED", style="bold red"), "", "")
    for figure in trial.figures:
        table.add_row(figure.what, *shown(figure.value, figure.unit))
    return table


_FATES = {
    "met": ("met", "green"),
    "missed": ("missed", "bold red"),
    "not measured": ("?", "yellow"),
}


def show_goals(console: Console, outcomes: Sequence[Outcome]) -> None:
    """A table of what became of them, if there are any."""
    if not outcomes:
        return
    console.print(Text(f"Goals: {tally(outcomes)}", style="italic"))
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", overflow="fold", ratio=1)
    for heading in ("goal", "measured", "range", ""):
        table.add_column(heading, justify="right", overflow="fold")
    subject = ""
    for o in outcomes:
        if o.subject != subject:
            subject = o.subject
            table.add_row(Text(subject, style="italic"))
        became = Text(_FATES[fate(o)][0], style=_FATES[fate(o)][1])
        table.add_row(f"  {o.what}", bound(o), *shown(o.measured, o.unit), became)
    console.print(table)


def _panel_table(panel: list[CellResult]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for result in panel:
        table.add_column(f"k = {result.cell.k}", justify="right")
    best = [_fastest_exact(result) for result in panel]
    for row in zip(*(result.measurements for result in panel), strict=True):
        texts = [_entry(m, m is best[i]) for i, m in enumerate(row)]
        style = "" if row[0].exact else "dim"
        table.add_row(Text(row[0].competitor, style=style), *texts)
    return table


def _fastest_exact(result: CellResult) -> Measurement | None:
    rated = [(m.speedup.median, m) for m in result.measurements if m.speedup and m.exact]
    return max(rated, key=lambda pair: pair[0])[1] if rated else None


def _entry(m: Measurement, best: bool, brief: bool = False) -> Text:
    if m.speedup is None or m.seconds_per_query is None:
        return Text("FAILED", style="bold red")
    if m.family == BASELINE:
        return Text(duration(m.seconds_per_query.median))
    if not m.success:
        return Text(f"{ratio(m.speedup.median)} FAILED", style="bold red")
    if brief:
        return Text(ratio(m.speedup.median))
    if m.exact:
        return Text(f"{ratio(m.speedup.median)} {verdict(m)}", style="bold green" if best else "")
    return Text(f"{ratio(m.speedup.median)} {verdict(m)}", style="dim")


def _build_table(result: CellResult) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("", "add", "first search", "bytes/code"):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    for b in result.builds:
        if b.add_seconds is None or b.first_search_seconds is None:
            table.add_row(b.label, Text("FAILED", style="bold red"), "", "")
            continue
        table.add_row(
            b.label,
            duration(b.add_seconds),
            duration(b.first_search_seconds),
            f"{b.bytes_per_code:.1f}",
        )
    return table

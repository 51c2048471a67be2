"""`faiss-dmih bench --device cuda`: what is behind the option, and what the terminal shows."""

from __future__ import annotations

import os
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from faiss_dmih.bench.cuda.device import Device
from faiss_dmih.bench.cuda.plan import databases
from faiss_dmih.bench.cuda.plots import write_plot
from faiss_dmih.bench.cuda.report import (
    against_limit,
    derived,
    markdown,
    median,
    missing,
    setting,
    title,
)
from faiss_dmih.bench.cuda.results import PAIRS, QUERIES, CudaCell, CudaRun
from faiss_dmih.bench.cuda.runner import run
from faiss_dmih.bench.report import duration, shown
from faiss_dmih.cli.console import show_goals
from faiss_dmih.cli.terminal import progress_bar, show_error
from faiss_dmih.data.files import atomic_write
from faiss_dmih.gpu import GpuIndexDMIH


def bench_cuda(
    device: Device, console: Console, errors: Console, out: Path, *, seed: int, seconds: float
) -> bool:
    """Measure, write into `out`, show. Whether all answers were right."""
    threads = len(os.sched_getaffinity(0))
    with progress_bar(console) as progress:
        result = run(
            device,
            GpuIndexDMIH,
            databases(threads),
            threads=threads,
            seed=seed,
            seconds=seconds,
            progress=progress,
            save=lambda partial: partial.save(out / "bench.json"),
        )
    plots = write_plot(result, out / "bench.png")
    with atomic_write(out / "bench.md") as file:
        file.write(markdown(result, [path.name for path in plots]).encode())
    show(console, errors, result)
    names = ", ".join(["bench.json", "bench.md", *(path.name for path in plots)])
    console.print(f"{result.seconds:.0f} s. Wrote {names} to {out}/", highlight=False)
    return not result.failures()


def show(console: Console, errors: Console, result: CudaRun) -> None:
    """The tables."""
    for line in setting(result):
        console.print(line, highlight=False)
    console.print(_limits_table(result))
    for cell in result.cells:
        console.print(Text(title(cell), style="italic"))
        console.print(_cell_table(cell))
    console.print(_builds_table(result))
    show_goals(console, result.outcomes)
    if bound := derived(result):
        console.print(bound, highlight=False)
    for gap in missing(result):
        console.print(Text("not measured: ", style="bold yellow") + Text(gap))
    for failure in result.failures():
        show_error(errors, failure)


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    return table


def _limits_table(result: CudaRun) -> Table:
    table = _table("", "limit", "range")
    for figure in result.limits.figures():
        table.add_row(figure.what, *shown(figure.value, figure.unit))
    return table


def _cell_table(result: CudaCell) -> Table:
    table = _table("", "a call", "alone", "queries", "pairs", "limit")
    for timed in result.timed:
        if timed.error:
            table.add_row(timed.competitor, Text("FAILED", style="bold red"))
            continue
        table.add_row(
            timed.competitor,
            shown(timed.seconds, "s")[0],
            shown(timed.alone, "s")[0],
            median(timed.figure(QUERIES)),
            median(timed.figure(PAIRS)),
            against_limit(timed),
        )
    return table


def _builds_table(result: CudaRun) -> Table:
    table = _table("", "add", "bytes/code")
    for b in result.builds:
        add = Text("FAILED", style="bold red") if b.seconds is None else duration(b.seconds.median)
        size = "" if b.bytes is None else f"{b.bytes / b.n:.1f}"
        table.add_row(f"{b.n:,} codes of {b.d} bits, {b.competitor}", add, size)
    return table

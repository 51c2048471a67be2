"""Results for people: numbers in words, and the Markdown report."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from faiss_dmih.bench.results import BASELINE, CellResult, Measurement, Run, Spread


def duration(seconds: float) -> str:
    """Three significant digits and a unit, such as 1.83 ms."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{_digits(seconds / size)} {unit}"
    return f"{_digits(seconds / 1e-9)} ns"


def ratio(value: float) -> str:
    """Such as 353x, 12.3x, 1.23x, 0.031x."""
    return f"{_digits(value)}x"


def _digits(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def verdict(m: Measurement) -> str:
    """Distance recall of an approximate competitor; of an exact one whether it was right."""
    if not m.success:
        return "FAILED"
    return "exact" if m.exact else f"{m.distance_recall:.3f}"


QUIET = 0.2
"""Cores kept busy by others up to which a run counts as undisturbed."""


def disturbance(run: Run) -> str:
    """A warning when other processes were busy during the measurements, else empty."""
    if run.bystanders() <= QUIET:
        return ""
    disturbed = sum((c.bystanders or 0.0) > QUIET for c in run.cells)
    return (
        f"Not a quiet machine: in {disturbed} of {len(run.cells)} cells other processes kept more "
        f"than {QUIET:g} cores busy (up to {run.bystanders():g}). Threaded indexes, "
        "IndexBinaryFlat above all, suffer most, so that ratios mislead; measure again."
    )


def panels(run: Run) -> list[list[CellResult]]:
    """Cells that differ in k only, together."""

    def key(result: CellResult) -> tuple[str, int]:
        return result.cell.workload, result.cell.batch

    return [list(group) for _, group in groupby(run.cells, key)]


def title(result: CellResult) -> str:
    """The heading of a panel."""
    cell = result.cell
    calls = "one query at a time" if cell.batch == 1 else f"batches of {cell.batch:,}"
    return f"{cell.workload}: {cell.n:,} codes of {cell.d} bits, {calls}"


def markdown(run: Run, images: list[str]) -> str:
    """The whole report; `images` are file names to show, relative to the report."""
    lines = ["# faiss_dmih bench", "", *_setting(run), ""]
    if disturbance(run):
        lines += [f"**{disturbance(run)}**", ""]
    failures = run.failures()
    if failures:
        lines += [f"**{len(failures)} measurements failed:**", ""]
        lines += [f"- {cell.id}, {m.competitor}: {m.error}" for cell, m in failures]
        lines += [""]
    lines += [line for name in images for line in (f"![{name}]({name})", "")]
    for panel in panels(run):
        lines += [f"## {title(panel[0])}", "", *_panel(panel), ""]
    lines += ["## Building", "", *_builds(run), "", "## How to read this", "", *_legend(run)]
    return "\n".join(lines) + "\n"


def _setting(run: Run) -> list[str]:
    m = run.machine
    return [
        f"{m.date}. {m.cpu} ({' '.join(m.flags)}), {m.cores} of {m.cores_in_machine} cores, "
        f"{m.ram_gib:g} GiB, load {m.load_before:g} before the run, {m.os}.",
        f"faiss_dmih {m.faiss_dmih} ({m.simd}), faiss {m.faiss} ({m.faiss_options}), "
        f"numpy {m.numpy}, Python {m.python}. {run.threads} threads, "
        f"seed {run.seed}, {run.seconds:.0f} s in all.",
    ]


def _spread(spread: Spread | None, show: Callable[[float], str]) -> tuple[str, str]:
    if spread is None:
        return "", ""
    return show(spread.median), f"{show(spread.min)} to {show(spread.max)}"


def _panel(panel: list[CellResult]) -> list[str]:
    lines = [
        "| k | competitor | time per query | range | queries/s | speed-up | range | recall@k "
        "| distance recall@k | queries x rounds |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for result in panel:
        for m in result.measurements:
            head = f"| {result.cell.k} | {m.competitor} "
            if m.seconds_per_query is None:
                lines.append(f"{head}| {m.error.replace('|', '/')} " + "| " * 7 + "|")
                continue
            time, time_range = _spread(m.seconds_per_query, duration)
            speed, speed_range = _spread(m.speedup, ratio)
            failed = "" if m.success else " **FAILED**"
            lines.append(
                f"{head.rstrip()}{failed} | {time} | {time_range} "
                f"| {1 / m.seconds_per_query.median:,.0f} | {speed} | {speed_range} "
                f"| {m.recall:.3f} | {m.distance_recall:.3f} | {m.nq} x {m.rounds} |"
            )
    return lines


def _builds(run: Run) -> list[str]:
    lines = [
        "| codes | index | add | codes/s | first search | bytes per code | bytes known from |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    seen = set()
    for result in run.cells:
        cell = result.cell
        if (cell.dataset, cell.d, cell.n) in seen:
            continue
        seen.add((cell.dataset, cell.d, cell.n))
        for b in result.builds:
            head = f"| {cell.dataset} | {b.label} "
            if b.add_seconds is None or b.first_search_seconds is None:
                lines.append(f"{head}| {b.error.replace('|', '/')} | | | | |")
                continue
            lines.append(
                f"{head}| {duration(b.add_seconds)} | {cell.n / b.add_seconds:,.0f} "
                f"| {duration(b.first_search_seconds)} | {b.bytes_per_code:.1f} | {b.bytes_from} |"
            )
    return lines


def _legend(run: Run) -> list[str]:
    p = run.protocol
    return [
        f"- All competitors take turns in one process (A B C A B C ...), {p.min_rounds} to "
        f"{p.max_rounds} rounds; times are medians over rounds, with the smallest and the largest.",
        f"- Speed-up is the time of `{BASELINE}` (faiss.IndexBinaryFlat) over the competitor's, "
        "both of the same round; above 1 is faster than flat.",
        f"- All have {run.threads} threads, but `{BASELINE}` has one for single queries: it uses "
        "no more there, and is slowed down by waking them.",
        f"- A slow competitor is timed on fewer queries, so that a cell takes about "
        f"{p.cell_seconds:g} s; the last column says how many.",
        "- recall@k counts returned ids that are among the exact answer's; distance recall@k "
        "counts returned codes no farther than the true k-th distance, so that any choice among "
        "ties is right.",
        "- Every answer of every round of IndexDMIH is compared with IndexBinaryFlat's bit for "
        "bit, D and I; a difference fails the run.",
    ]

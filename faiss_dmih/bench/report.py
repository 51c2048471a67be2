"""Results for people: numbers in words, and the Markdown report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from faiss_dmih.bench.cells import threads_text
from faiss_dmih.bench.competitors import ENGINES, DmihAuto
from faiss_dmih.bench.results import (
    BASELINE,
    CellResult,
    Measurement,
    Outcome,
    Run,
    Spread,
    TrialResult,
)
from faiss_dmih.bench.standings import Standing, rivals, standings


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


_SHOW: dict[str, Callable[[float], str]] = {
    "s": duration,
    "x": ratio,
    "/s": lambda value: f"{value:.3g}/s" if value >= 1e7 else f"{_digits(value)}/s",
    "%": lambda value: f"{100 * value:.0f} %",
    "B": lambda value: f"{_digits(value)} B" if value < 10_000 else f"{value / 2**20:,.0f} MiB",
    "": lambda value: f"{value:.2f}",
}


def quantity(value: float, unit: str) -> str:
    """A number in one of the units that figures have."""
    return _SHOW[unit](value)


def shown(spread: Spread | None, unit: str) -> tuple[str, str]:
    """Median and range, such as 12.3x and 11.9x to 12.4x; empty for None."""
    if spread is None:
        return "", ""
    median, low, high = (quantity(v, unit) for v in (spread.median, spread.min, spread.max))
    return median, f"{low} to {high}"


def bound(outcome: Outcome) -> str:
    """What was asked for, such as >= 60x."""
    sign = "<=" if outcome.at_most else ">="
    if outcome.unit == "%":
        return f"{sign} {quantity(outcome.bound, outcome.unit)}"
    return f"{sign} {outcome.bound:,g}{outcome.unit}"


def fate(outcome: Outcome) -> str:
    """met, missed, or not measured."""
    return {True: "met", False: "missed", None: "not measured"}[outcome.met]


def tally(outcomes: Sequence[Outcome]) -> str:
    """How many goals were met, in a sentence."""
    parts = []
    for stretch, what in ((False, "goals"), (True, "stretch goals")):
        fates = [fate(o) for o in outcomes if o.stretch == stretch]
        if fates:
            others = [f"{fates.count(f)} {f}" for f in ("missed", "not measured") if f in fates]
            parts.append(", ".join([f"{fates.count('met')} of {len(fates)} {what} met", *others]))
    return "; ".join(parts)


def verdict(m: Measurement) -> str:
    """Distance recall of an approximate competitor; of an exact one whether it was right."""
    if not m.success:
        return "FAILED"
    return "exact" if m.exact else f"{m.distance_recall:.3f}"


def skipped(run: Run) -> dict[str, list[str]]:
    """Reasons, and which cells and trials could not be measured for them."""
    reasons: dict[str, list[str]] = {}
    for where, why in run.skipped.items():
        reasons.setdefault(why, []).append(where)
    return reasons


def best_alone(result: CellResult) -> Measurement | None:
    """The fastest of the engines that the planner is held against."""
    engines = [m for m in result.measurements if m.family in ENGINES and m.speedup is not None]
    return max(engines, key=lambda m: m.speedup.median if m.speedup else 0.0, default=None)


WORST = 12
"""How many of the worst cells the Markdown shows in front."""
QUIET = 0.2
"""Cores kept busy by others up to which a run counts as undisturbed."""


def disturbance(run: Run) -> str:
    """A warning when other processes were busy during the measurements, else empty."""
    if run.bystanders() <= QUIET:
        return ""
    disturbed = sum(cores > QUIET for cores in run.all_bystanders())
    what = "cells and trials" if run.trials else "cells"
    return (
        f"Not a quiet machine: in {disturbed} of {len(run.all_bystanders())} {what} others kept "
        f"more than {QUIET:g} cores busy (up to {run.bystanders():g}). Threaded indexes, "
        "IndexBinaryFlat above all, suffer most, so that ratios mislead; measure again."
    )


def panels(run: Run) -> list[list[CellResult]]:
    """Cells that differ in k only, or in the radius only, together."""

    def key(result: CellResult) -> tuple[str | int, ...]:
        c = result.cell
        return c.workload, c.d, c.n, c.batch, c.threads, c.radius is None

    return [list(group) for _, group in groupby(run.cells, key)]


def title(result: CellResult) -> str:
    """The heading of a panel."""
    cell = result.cell
    calls = "one query at a time" if cell.batch == 1 else f"batches of {cell.batch:,}"
    return (
        f"{cell.workload}: {cell.n:,} codes of {cell.d} bits, {calls}, {threads_text(cell.threads)}"
    )


def markdown(run: Run, images: list[str]) -> str:
    """The whole report; `images` are file names to show, relative to the report."""
    name = f", suite {run.suite}" if run.suite else ""
    lines = [f"# faiss_dmih bench{name}", "", *setting(run), ""]
    if disturbance(run):
        lines += [f"**{disturbance(run)}**", ""]
    failures = run.failures()
    if failures:
        lines += [f"**{len(failures)} measurements failed:**", ""]
        lines += [f"- {failure}" for failure in failures]
        lines += [""]
    if run.skipped:
        lines += ["**Not measured:**", ""]
        lines += [f"- {', '.join(where)}: {why}" for why, where in skipped(run).items()]
        lines += [""]
    if run.absent:
        lines += ["**Took no part:**", ""]
        lines += [f"- {family}: {why}" for family, why in run.absent.items()]
        lines += [""]
    if run.outcomes:
        lines += ["## Goals", "", *goals_table(run.outcomes), ""]
    if run.suite and (ranked := standings(run)):
        lines += ["## The worst cells", "", *_cells(ranked[:WORST]), ""]
        if beaten := [standing for standing in ranked if standing.beaten]:
            lines += ["## Where others were faster, and found as much", "", *_cells(beaten), ""]
        lines += ["## Competitors", "", *_rivals(run), ""]
    lines += [line for name in images for line in (f"![{name}]({name})", "")]
    for panel in panels(run):
        lines += [f"## {title(panel[0])}", "", *_panel(panel), ""]
    for trial in run.trials:
        lines += [f"## {trial.title}", "", *_trial(trial), ""]
    lines += ["## Indexes", "", *_builds(run), "", "## How to read this", "", *legend(run)]
    return "\n".join(lines) + "\n"


def setting(run: Run) -> list[str]:
    """Where, when and how long."""
    m = run.machine
    return [
        f"{m.date}. {m.cpu} ({' '.join(m.flags)}), {m.cores} of {m.cores_in_machine} cores, "
        f"{m.ram_gib:g} GiB, load {m.load_before:g} before the run, {m.os}.",
        f"faiss_dmih {m.faiss_dmih} ({m.simd}), faiss {m.faiss} ({m.faiss_options}), "
        f"numpy {m.numpy}, Python {m.python}. {run.threads} threads, "
        f"seed {run.seed}, {run.seconds:.0f} s in all"
        + (f", {run.reused} results taken from an earlier run." if run.reused else "."),
    ]


def _panel(panel: list[CellResult]) -> list[str]:
    asked = "k" if panel[0].cell.radius is None else "radius"
    with_regret = any(result.regret for result in panel)
    lines = [
        f"| {asked} | competitor | time per query | range | queries/s | speed-up | range | "
        "recall@k | distance recall@k | queries x rounds |" + " regret |" * with_regret,
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|" + "--:|" * with_regret,
    ]
    for result in panel:
        for m in result.measurements:
            head = f"| {result.cell.k if asked == 'k' else result.cell.radius} | {m.competitor} "
            regret = "{} ({})".format(*shown(result.regret, "x")) if _has_regret(m, result) else ""
            tail = f" {regret} |" * with_regret
            if m.seconds_per_query is None:
                lines.append(f"{head}| {m.error.replace('|', '/')} " + "| " * 7 + "|" + tail)
                continue
            time, time_range = shown(m.seconds_per_query, "s")
            speed, speed_range = shown(m.speedup, "x")
            failed = "" if m.success else " **FAILED**"
            lines.append(
                f"{head.rstrip()}{failed} | {time} | {time_range} "
                f"| {1 / m.seconds_per_query.median:,.0f} | {speed} | {speed_range} "
                f"| {m.recall:.3f} | {m.distance_recall:.3f} | {m.nq} x {m.rounds} |{tail}"
            )
    return lines


def _has_regret(m: Measurement, result: CellResult) -> bool:
    return m.family == DmihAuto.family and result.regret is not None


def goals_table(outcomes: Sequence[Outcome]) -> list[str]:
    """What became of the goals, in Markdown."""
    head = ["| | what | goal | measured | range | |", "|---|---|--:|--:|--:|---|"]
    lines = [f"{tally(outcomes)}.", "", *head]
    for o in outcomes:
        median, its_range = shown(o.measured, o.unit)
        became = fate(o) if o.met else f"**{fate(o)}**"
        if o.note:
            became += f": {o.note.replace('|', '/')}"
        what = f"{o.subject} | {o.what}"
        lines.append(f"| {what} | {bound(o)} | {median} | {its_range} | {became} |")
    return lines


def _cells(ranked: Sequence[Standing]) -> list[str]:
    lines = [
        "| codes | asked | flat | dmih-auto | speed-up | regret | next best | its time |",
        "|---|---|--:|--:|--:|--:|---|--:|",
    ]
    for s in ranked:
        rival = "| " if s.rival is None else f"{s.rival.competitor} | {_median(s.rival.behind)}"
        times = (
            f"{_median(s.flat.seconds_per_query, 's')} | {_median(s.auto.seconds_per_query, 's')}"
        )
        ratios = f"{_median(s.speedup)} | {_median(s.result.regret)}"
        lines.append(
            f"| {s.result.cell.codes} | {s.result.cell.task} | {times} | {ratios} | {rival} |"
        )
    return lines


def _median(spread: Spread | None, unit: str = "x") -> str:
    return shown(spread, unit)[0]


def _rivals(run: Run) -> list[str]:
    lines = [
        "| competitor | cells | its time over dmih-auto's | range | recall | lowest | certain in |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for r in rivals(run):
        time, its_range = shown(r.behind, "x")
        recall = f"{r.recall.median:.3f} | {r.recall.min:.3f}"
        lines.append(f"| {r.name} | {r.cells} | {time} | {its_range} | {recall} | {r.exact} |")
    return lines


def _trial(trial: TrialResult) -> list[str]:
    if trial.error:
        return [f"**FAILED**: {trial.error}"]
    lines = [f"**{note}**\n" for note in trial.notes]
    lines += ["| | median | range |", "|---|--:|--:|"]
    for figure in trial.figures:
        lines.append("| {} | {} | {} |".format(figure.what, *shown(figure.value, figure.unit)))
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


def legend(run: Run) -> list[str]:
    """What the numbers mean, as Markdown's items."""
    p = run.protocol
    lines = [
        f"- All competitors take turns in one process (A B C A B C ...), {p.min_rounds} to "
        f"{p.max_rounds} rounds; times are medians over rounds, with the smallest and the largest.",
        f"- Speed-up is the time of `{BASELINE}` (faiss.IndexBinaryFlat) over the competitor's, "
        "both of the same round; above 1 is faster than flat.",
        f"- All have the same threads, {run.threads} unless a heading says otherwise, but "
        f"`{BASELINE}` and others of FAISS have one for single queries: they use no more there, "
        "and are slowed down by waking them.",
        f"- A slow competitor is timed on fewer queries, so that a cell takes about "
        f"{p.cell_seconds:g} s; the last column says how many.",
        "- recall@k counts returned ids that are among the exact answer's; distance recall@k "
        "counts returned codes no farther than the true k-th distance, so that any choice among "
        "ties is right.",
        "- Every answer of every round of IndexDMIH is compared with IndexBinaryFlat's bit for "
        "bit, D and I; a difference fails the run. So are those of other exact competitors; where "
        "they order ties by a rule of their own, distances alone (k-NN), or ids in any order "
        "(range search).",
    ]
    if p.competitor_seconds is not None:
        lines.append(
            f"- One that would take over {p.competitor_seconds:g} s in a cell has fewer rounds."
        )
    if p.warm_seconds:
        lines.append(
            "- Before each of its turns a competitor is asked its own queries, untimed, for about "
            f"{p.warm_seconds:g} s."
        )
    if any(result.regret for result in run.cells):
        lines.append(
            f"- Regret is the time of {DmihAuto.family} over that of the best engine alone, which "
            "is scan or probe on the same index, or plain multi-index hashing, in the same round."
        )
    if run.outcomes:
        lines.append("- A goal is met or missed by the median; the range is that of all rounds.")
    return lines

"""Plots of a run: speed-up against k, distance recall against speed-up, a suite at a glance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from faiss_dmih.bench.cells import threads_text
from faiss_dmih.bench.competitors import DmihAuto
from faiss_dmih.bench.goals import REGRET
from faiss_dmih.bench.report import QUIET, quantity
from faiss_dmih.bench.results import BASELINE, CellResult, Chart, Measurement, Run, Spread
from faiss_dmih.bench.standings import Standing, standings
from faiss_dmih.data.errors import require

_DMIH_COLOURS = {
    "dmih-auto": "#D55E00",
    "dmih-auto+scan": "#56B4E9",
    "dmih-auto+probe": "#CC79A7",
    "dmih-scan": "#0072B2",
    "dmih-mih": "#009E73",
}
_DMIH_MARKERS = {
    "dmih-auto": "o",
    "dmih-auto+scan": "D",
    "dmih-auto+probe": "v",
    "dmih-scan": "s",
    "dmih-mih": "^",
}
_OTHER_COLOURS = ("#7B7B7B", "#B07AA1", "#8C6D31", "#E69F00", "#111111")
_MARKERS = "osD^vP"
_RECALLS = (0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)
SUITE_PLOTS = ("ranked.png",)
"""What a suite comes to; to be seen first."""
_PANEL_WIDTH, _PANEL_HEIGHT = 3.5, 2.7
_LEGEND_LINES, _LEGEND_LINE = 6, 0.19
"""Lines there is room for, and what a further one takes."""


def write_plots(run: Run, folder: Path) -> list[Path]:
    """Write the plots; their paths.

    Of a grid: speedup.png and, for each batch size, recall_batch<size>.png (a set with fewer
    queries than a batch has a smaller batch: sizes are matched by rank). Of a suite: ranked.png,
    suite.png, speedup_<data set>.png for each set on which more than one k was asked for, and
    <trial>_<i>.png for the charts of trials.
    """
    if not run.cells and not any(trial.charts for trial in run.trials):
        return []
    matplotlib = require("matplotlib", "plotting")
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    if run.suite:
        of_cells = []
        if run.cells:
            of_cells = [_overview(run, folder / "suite.png"), *_speedups_by_dataset(run, folder)]
        if ranked := standings(run):
            of_cells.insert(0, _ranked(run, ranked, folder / SUITE_PLOTS[0]))
        return of_cells + [
            _chart(run, chart, folder / f"{trial.name}_{i}.png")
            for trial in run.trials
            for i, chart in enumerate(trial.charts)
        ]
    rows = _batch_rows(run)
    paths = [_speedup(run, rows, folder / "speedup.png")]
    for cells in rows:
        largest = max(r.cell.batch for r in cells)
        paths.append(_recall(run, cells, folder / f"recall_batch{largest}.png"))
    return paths


def trial_of(run: Run, path: Path) -> str | None:
    """Name of the trial that a plot is of, if it is one's."""
    names = (trial.name for trial in run.trials)
    return next((name for name in names if path.stem.rpartition("_")[0] == name), None)


def _speedups_by_dataset(run: Run, folder: Path) -> list[Path]:
    ks: dict[tuple[Any, ...], set[int]] = {}
    for result in run.cells:
        if result.cell.radius is None:
            ks.setdefault((*_column(result), result.cell.batch), set()).add(result.cell.k)
    several = {key for key, values in ks.items() if len(values) > 1}
    chosen: dict[str, list[CellResult]] = {}
    for result in run.cells:
        if (*_column(result), result.cell.batch) in several and result.cell.radius is None:
            chosen.setdefault(result.cell.dataset, []).append(result)
    paths = []
    for dataset, cells in chosen.items():
        batches = sorted({r.cell.batch for r in cells})
        rows = [[r for r in cells if r.cell.batch == batch] for batch in batches]
        path = folder / f"speedup_{dataset}.png"
        paths.append(_speedup(replace(run, cells=cells), rows, path))
    return paths


def _column(result: CellResult) -> tuple[Any, ...]:
    """Cells that agree in this differ in k and batch only."""
    cell = result.cell
    return cell.workload, cell.d, cell.n, cell.threads


def _batch_rows(run: Run) -> list[list[CellResult]]:
    """Cells with the smallest batch of their workload, then with the next one, ..."""
    ranks: dict[tuple[Any, ...], list[int]] = {}
    rows: list[list[CellResult]] = []
    for result in run.cells:
        batches = ranks.setdefault(_column(result), [])
        if result.cell.batch not in batches:
            batches.append(result.cell.batch)
        rank = batches.index(result.cell.batch)
        if rank == len(rows):
            rows.append([])
        rows[rank].append(result)
    return rows


def _unique(values: Any) -> list[Any]:
    return list(dict.fromkeys(values))


class _Styles:
    """One colour for each index that is built, one marker for each of its variants."""

    def __init__(self, cells: Sequence[CellResult]) -> None:
        measurements = [m for r in cells for m in r.measurements if m.family != BASELINE]
        labels = _unique(m.label for m in measurements if m.competitor not in _DMIH_COLOURS)
        self._colours = dict(_DMIH_COLOURS)
        for i, label in enumerate(labels):
            self._colours[label] = _OTHER_COLOURS[i % len(_OTHER_COLOURS)]
        self._variants: dict[str, list[str]] = {}
        for m in measurements:
            names = self._variants.setdefault(m.label, [])
            if m.competitor not in names:
                names.append(m.competitor)

    def of(self, m: Measurement) -> dict[str, Any]:
        marker = (
            _DMIH_MARKERS.get(m.competitor)
            or _MARKERS[self._variants[m.label].index(m.competitor) % len(_MARKERS)]
        )
        return {
            "color": self._colours.get(m.competitor) or self._colours[m.label],
            "marker": marker,
            "linestyle": "-" if m.exact else "--",
            "linewidth": 1.8 if m.exact else 0.9,
            "markersize": 5.5 if m.exact else 4,
            "zorder": 3 if m.exact else 2,
        }


def _figure(rows: int, columns: int, heading: str, run: Run) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(_PANEL_WIDTH * columns + 0.6, _PANEL_HEIGHT * rows + 1.6),
        squeeze=False,
        sharex="col",
        layout="constrained",
    )
    figure.suptitle(heading + _disturbed(run), fontsize=11)
    return figure, axes


def _disturbed(run: Run) -> str:
    quiet = run.bystanders() <= QUIET
    return "" if quiet else "\nmeasured on a busy machine: ratios mislead"


def _finish(figure: Any, axes: Iterable[Any], path: Path) -> Path:
    import matplotlib.pyplot as plt

    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    width, height = figure.get_size_inches()
    ncols = max(1, min(len(handles), int(width / 2.1)))
    lines = -(-len(handles) // ncols)
    figure.set_figheight(height + _LEGEND_LINE * max(0, lines - _LEGEND_LINES))
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=ncols,
        fontsize=8.5,
        frameon=False,
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def _ratio_axis(axis: Any) -> None:
    """A logarithmic axis with ticks such as 0.1, 1, 10, and a few between where there is room."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    subs = (1.0,) if high / low > 200 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axis.set_minor_formatter(NullFormatter())


def _speedup(run: Run, rows: list[list[CellResult]], path: Path) -> Path:
    columns = _unique(_column(r) for r in run.cells)
    threads = " or ".join(threads_text(t) for t in _unique(r.cell.threads for r in run.cells))
    heading = f"Speed-up over IndexBinaryFlat against k, {threads}"
    if not all(m.exact for r in run.cells for m in r.measurements):
        heading += " (dashed: approximate)"
    figure, axes = _figure(len(rows), len(columns), heading, run)
    styles = _Styles(run.cells)
    for row, in_row in enumerate(rows):
        for column, key in enumerate(columns):
            axis = axes[row, column]
            cells = [r for r in in_row if _column(r) == key]
            if not cells:
                axis.set_axis_off()
                continue
            _speedup_panel(axis, cells, styles)
            axis.set_title(_panel_title(cells[0]), fontsize=9)
            if column == 0:
                axis.set_ylabel("times faster than flat")
            if not any(_column(r) == key for later in rows[row + 1 :] for r in later):
                axis.set_xlabel("k")
                axis.tick_params(labelbottom=True)
    return _finish(figure, axes.flat, path)


def _panel_title(result: CellResult) -> str:
    cell = result.cell
    calls = "1 query a call" if cell.batch == 1 else f"{cell.batch:,} queries a call"
    return f"{cell.workload}\n{cell.n:,} x {cell.d} bits, {calls}"


def _speedup_panel(axis: Any, cells: Sequence[CellResult], styles: _Styles) -> None:
    ks = [r.cell.k for r in cells]
    series: dict[str, list[tuple[int, Measurement]]] = {}
    for result in cells:
        for m in result.measurements:
            if m.speedup is not None and m.family != BASELINE:
                series.setdefault(m.competitor, []).append((result.cell.k, m))
    axis.set_xscale("log")
    axis.set_yscale("log")
    for name, points in series.items():
        spreads = [m.speedup for _, m in points if m.speedup is not None]
        middle = [s.median for s in spreads]
        below = [s.median - s.min for s in spreads]
        above = [s.max - s.median for s in spreads]
        axis.errorbar(
            [k for k, _ in points],
            middle,
            yerr=[below, above],
            elinewidth=0.7,
            label=name,
            **styles.of(points[0][1]),
        )
    axis.axhline(1, color="black", linewidth=1.0, label="flat")
    axis.set_xlim(min(ks) / 1.5, max(ks) * 1.5)
    axis.set_xticks(ks, [str(k) for k in ks])
    axis.minorticks_off()
    _ratio_axis(axis.yaxis)
    axis.grid(True, which="major", linewidth=0.3)


def _recall(run: Run, cells: Sequence[CellResult], path: Path) -> Path:
    workloads = _unique(r.cell.workload for r in cells)
    ks = sorted({r.cell.k for r in cells})
    figure, axes = _figure(
        len(ks), len(workloads), "Distance recall@k against speed-up over IndexBinaryFlat", run
    )
    styles = _Styles(cells)
    for column, workload in enumerate(workloads):
        in_column = {r.cell.k: r for r in cells if r.cell.workload == workload}
        for row, k in enumerate(ks):
            axis = axes[row, column]
            if k not in in_column:
                axis.set_axis_off()
                continue
            _recall_panel(axis, in_column[k], styles)
            axis.set_title(f"{_panel_title(in_column[k])}, k = {k}", fontsize=9)
            if column == 0:
                axis.set_ylabel("distance recall@k")
            if k == max(in_column):
                axis.set_xlabel("times faster than flat")
                axis.tick_params(labelbottom=True)
    return _finish(figure, axes.flat, path)


def _recall_panel(axis: Any, result: CellResult, styles: _Styles) -> None:
    axis.set_xscale("log")
    axis.axvline(1, color="black", linewidth=1.0, label="flat")
    indexes: dict[str, list[Measurement]] = {}
    for m in result.measurements:
        if m.speedup is not None and m.distance_recall is not None and m.family != BASELINE:
            indexes.setdefault(m.label, []).append(m)
    for variants in indexes.values():
        xs = [m.speedup.median for m in variants if m.speedup is not None]
        ys = [m.distance_recall for m in variants]
        # A thin line joins the variants of one index, so that its trade-off can be followed.
        line = styles.of(variants[0]) | {"marker": "", "linewidth": 0.8}
        axis.plot(xs, ys, **line)
        for m, x, y in zip(variants, xs, ys, strict=True):
            style = styles.of(m) | {"linestyle": "", "markersize": 6}
            axis.plot([x], [y], label=m.competitor, **style)
    axis.set_ylim(-0.05, 1.08)
    axis.minorticks_off()
    _ratio_axis(axis.xaxis)
    axis.grid(True, which="major", linewidth=0.3)


def _overview(run: Run, path: Path) -> Path:
    """One line for each cell: speed-ups, with the goals for dmih-auto, and the planner's regret."""
    import matplotlib.pyplot as plt

    figure, (speeds, regrets) = plt.subplots(
        1,
        2,
        figsize=(13, 1.9 + 0.21 * len(run.cells)),
        width_ratios=(3, 1),
        sharey=True,
        layout="constrained",
    )
    heading = f"Suite {run.suite}: times faster than IndexBinaryFlat, and the planner's regret"
    figure.suptitle(heading + _disturbed(run), fontsize=11)
    styles = _Styles(run.cells)
    for line, result in enumerate(run.cells):
        for m in result.measurements:
            if m.speedup is not None and m.family != BASELINE:
                size, order = (7, 4) if m.family == DmihAuto.family else (4.5, 3)
                style = styles.of(m) | {"linestyle": "", "markersize": size, "zorder": order}
                _whisker(speeds, m.speedup, line, style, m.competitor)
                if m.family == DmihAuto.family and result.regret is not None:
                    _whisker(regrets, result.regret, line, style, None)
    _goal_marks(run, speeds, regrets)
    for axis in (speeds, regrets):
        for line in range(1, len(run.cells)):
            if _column(run.cells[line]) != _column(run.cells[line - 1]):
                axis.axhline(line - 0.5, color="#BBBBBB", linewidth=0.7)
        axis.set_xscale("log")
        axis.axvline(1, color="black", linewidth=1.0)
        axis.minorticks_off()
        _ratio_axis(axis.xaxis)
        axis.grid(True, which="major", axis="x", linewidth=0.3)
    speeds.set_ylim(len(run.cells) - 0.4, -0.6)
    speeds.set_yticks(range(len(run.cells)), [r.cell.title for r in run.cells], fontsize=7)
    speeds.set_xlabel("times faster than flat")
    regrets.set_xlabel("time over the best engine's")
    return _finish(figure, [speeds, regrets], path)


def _whisker(
    axis: Any, spread: Spread, line: int, style: dict[str, Any], label: str | None
) -> None:
    ends = [[spread.median - spread.min], [spread.max - spread.median]]
    axis.errorbar([spread.median], [line], xerr=ends, elinewidth=0.7, label=label, **style)


def _goal_marks(run: Run, speeds: Any, regrets: Any) -> None:
    """A bar across the line of each cell that has a goal for dmih-auto; dotted: a stretch goal."""
    lines = {result.cell.id: line for line, result in enumerate(run.cells)}
    for outcome in run.outcomes:
        if outcome.where not in lines or outcome.figure not in (REGRET, DmihAuto.family):
            continue
        axis = regrets if outcome.figure == REGRET else speeds
        at = lines[outcome.where]
        style = {"color": "black", "linewidth": 1.6, "linestyle": ":" if outcome.stretch else "-"}
        label = "stretch goal" if outcome.stretch else "goal for dmih-auto, or its regret"
        axis.plot([outcome.bound] * 2, [at - 0.42, at + 0.42], label=label, **style)


def _ranked(run: Run, ranked: Sequence[Standing], path: Path) -> Path:
    """All cells of a suite: speed-ups of dmih-auto from the worst to the best, and its regrets."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 4.8), layout="constrained")
    heading = f"Suite {run.suite}: IndexDMIH, every cell, the worst on the left"
    figure.suptitle(heading + _disturbed(run), fontsize=11)
    datasets = _unique(r.cell.dataset for r in run.cells)
    colours = {name: plt.get_cmap("tab20")(i % 20) for i, name in enumerate(datasets)}
    lone = [s for s in ranked if s.result.cell.batch == 1]
    halves = {
        "one query at a time: times faster than flat": lone,
        "in batches: times faster than flat": [s for s in ranked if s not in lone],
    }
    for axis, (title, some) in zip(axes, halves.items(), strict=False):
        some.sort(key=lambda s: s.speedup.median)
        goals = {s.goal.bound for s in some if s.goal}
        _dots(axis, title, [(s.result.cell.dataset, s.speedup) for s in some], colours)
        for bound in goals if len(goals) == 1 else ():
            axis.axhline(bound, color="#B3261E", linewidth=1.2, linestyle="--", label="goal")
    regrets = [(r.cell.dataset, r.regret) for r in run.cells if r.regret is not None]
    regrets.sort(key=lambda pair: -pair[1].median)
    _dots(axes[2], "time over that of the best engine: regret", regrets, colours)
    for bound in {o.bound for o in run.outcomes if o.figure == REGRET}:
        axes[2].axhline(bound, color="#B3261E", linewidth=1.2, linestyle="--", label="goal")
    return _finish(figure, axes, path)


def _dots(
    axis: Any, title: str, points: Sequence[tuple[str, Spread]], colours: dict[str, Any]
) -> None:
    """One dot for each point, with its range, in their order."""
    axis.set_title(title, fontsize=9.5)
    axis.set_yscale("log")
    for at, (dataset, value) in enumerate(points):
        ends = [[value.median - value.min], [value.max - value.median]]
        axis.errorbar(
            [at],
            [value.median],
            yerr=ends,
            fmt="o",
            markersize=5,
            elinewidth=0.7,
            color=colours[dataset],
            label=dataset,
        )
    axis.axhline(1, color="black", linewidth=1.0)
    axis.set_xticks([])
    axis.set_xlabel(f"{len(points)} cells")
    axis.minorticks_off()
    if points:
        _ratio_axis(axis.yaxis)
    axis.grid(True, which="major", axis="y", linewidth=0.3)


def _chart(run: Run, chart: Chart, path: Path) -> Path:
    """Curves of a trial; their points are named where there are few."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure, axis = plt.subplots(figsize=(8.5, 5), layout="constrained")
    figure.suptitle(chart.title + _disturbed(run), fontsize=10)
    colours = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#7B7B7B", "#E69F00")
    for i, curve in enumerate(chart.curves):
        middle = [y.median for y in curve.y]
        ends = [[y.median - y.min for y in curve.y], [y.max - y.median for y in curve.y]]
        style = {"color": colours[i % len(colours)], "marker": _MARKERS[i % len(_MARKERS)]}
        axis.errorbar(curve.x, middle, yerr=ends, elinewidth=0.7, label=curve.name, **style)
        for x, y, text in zip(curve.x, middle, curve.points, strict=False):
            where = {"textcoords": "offset points", "xytext": (4, 4), "fontsize": 6.5}
            axis.annotate(text, (x, y), color=style["color"], **where)
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    subs = (1.0,) if high / low > 200 else (1.0, 2.0, 5.0)
    axis.yaxis.set_major_locator(LogLocator(subs=subs))
    if chart.scale == "recall":
        nearly = 1.005  # that is at infinity
        scales = (lambda x: -np.log10(nearly - np.minimum(x, 1)), lambda y: nearly - 10.0**-y)
        axis.set_xscale("function", functions=scales)
        axis.set_xticks([t for t in _RECALLS if t >= min(min(c.x) for c in chart.curves)])
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    elif chart.scale == "log":
        axis.set_xscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value, chart.unit)))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel(chart.x)
    axis.set_ylabel(chart.y)
    axis.grid(True, which="major", linewidth=0.3)
    return _finish(figure, [axis], path)

"""Plots of a run: speed-up against k, and distance recall against speed-up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faiss_dmih.bench.report import QUIET
from faiss_dmih.bench.results import BASELINE, CellResult, Measurement, Run
from faiss_dmih.data.errors import require

_DMIH_COLOURS = {"dmih-auto": "#D55E00", "dmih-scan": "#0072B2", "dmih-mih": "#009E73"}
_DMIH_MARKERS = {"dmih-auto": "o", "dmih-scan": "s", "dmih-mih": "^"}
_OTHER_COLOURS = ("#7B7B7B", "#B07AA1", "#8C6D31", "#56B4E9", "#111111")
_MARKERS = "osD^vP"
_PANEL_WIDTH, _PANEL_HEIGHT = 3.5, 2.7


def write_plots(run: Run, folder: Path) -> list[Path]:
    """Write speedup.png and, for each batch size, recall_batch<size>.png; the paths.

    A set with fewer queries than a batch has a smaller batch: sizes are matched by rank.
    """
    if not run.cells:
        return []
    matplotlib = require("matplotlib", "plotting")
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    rows = _batch_rows(run)
    paths = [_speedup(run, rows, folder / "speedup.png")]
    for cells in rows:
        largest = max(r.cell.batch for r in cells)
        paths.append(_recall(run, cells, folder / f"recall_batch{largest}.png"))
    return paths


def _batch_rows(run: Run) -> list[list[CellResult]]:
    """Cells with the smallest batch of their workload, then with the next one, ..."""
    ranks: dict[str, list[int]] = {}
    rows: list[list[CellResult]] = []
    for result in run.cells:
        batches = ranks.setdefault(result.cell.workload, [])
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
        labels = _unique(m.label for m in measurements if m.family not in _DMIH_COLOURS)
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
            _DMIH_MARKERS.get(m.family)
            or _MARKERS[self._variants[m.label].index(m.competitor) % len(_MARKERS)]
        )
        return {
            "color": self._colours[m.label],
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
    if run.bystanders() > QUIET:
        heading += "\nmeasured on a busy machine: ratios mislead"
    figure.suptitle(heading, fontsize=11)
    return figure, axes


def _finish(figure: Any, axes: Any, path: Path) -> Path:
    import matplotlib.pyplot as plt

    handles: dict[str, Any] = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    width = figure.get_size_inches()[0]
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=max(1, min(len(handles), int(width / 2.1))),
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
    workloads = _unique(r.cell.workload for r in run.cells)
    heading = f"Speed-up over IndexBinaryFlat against k, {run.threads} threads"
    figure, axes = _figure(len(rows), len(workloads), f"{heading} (dashed: approximate)", run)
    styles = _Styles(run.cells)
    for row, in_row in enumerate(rows):
        for column, workload in enumerate(workloads):
            axis = axes[row, column]
            cells = [r for r in in_row if r.cell.workload == workload]
            if not cells:
                axis.set_axis_off()
                continue
            _speedup_panel(axis, cells, styles)
            axis.set_title(_panel_title(cells[0]), fontsize=9)
            if column == 0:
                axis.set_ylabel("times faster than flat")
            if row == len(rows) - 1:
                axis.set_xlabel("k")
    return _finish(figure, axes, path)


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
    return _finish(figure, axes, path)


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

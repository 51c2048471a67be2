"""Plots of evaluations: mAP against bits, precision and recall, correlations, sizes of buckets.

Evaluations of one name are a series, in one colour everywhere. Several of one name and length are
runs of it: mAP and sizes of buckets are shown as means over them, curves one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from faiss_dmih.metrics.evaluation import Evaluation
from faiss_dmih.metrics.ranking import Floats
from faiss_dmih.metrics.report import number

_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7B7B7B", "#111111")
_MARKERS = "osD^vP*X"
_CONSTANT_BIT = "#BBBBBB"
_PANEL_WIDTH, _PANEL_HEIGHT = 3.5, 2.7
_HEADING_WIDTH = 5.4
_MOST_COLUMNS = 4
_MOST_TABLES = 16
_MOST_TICKS = 17
_DPI = 130


def write_plots(evaluations: Sequence[Evaluation], folder: Path) -> list[Path]:
    """Write the plots of one or more evaluations as PNG files; their paths.

    map.png, precision_recall.png, precision_at.png, correlation.png, and for each choice of
    substrings buckets_<bits>x<tables>.png (a number follows where that is not unique).

    Raises:
        ImportError: matplotlib is not installed.
    """
    if not evaluations:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    paths = [
        plot_map(evaluations, folder / "map.png"),
        plot_precision_recall(evaluations, folder / "precision_recall.png"),
        plot_precision_at(evaluations, folder / "precision_at.png"),
        plot_correlation(evaluations, folder / "correlation.png"),
    ]
    for cuts in _unique(e.cuts for e in evaluations):
        path = first = folder / f"buckets_{sum(cuts)}x{len(cuts)}.png"
        number = 1
        while path in paths:
            number += 1
            path = first.with_stem(f"{first.stem}_{number}")
        paths.append(_buckets(evaluations, cuts, path))
    return paths


def plot_map(evaluations: Sequence[Evaluation], path: Path) -> Path:
    """mAP against bits, a line for each series; returns the path of the PNG."""
    heading = "mAP against bits (bars: worst to best order among ties)"
    lengths, names = _lengths(evaluations), _names(evaluations)
    if len({(e.name, e.bits) for e in evaluations}) < len(evaluations):
        heading += "\nmeans over runs, single runs faint"
    figure, axes = _figure(1, 1, heading, scale=1.5)
    axis = axes[0, 0]
    axis.set_xscale("log", base=2)
    for i, name in enumerate(names):
        # Series beside each other, so that their bars can be told apart.
        aside = 1.012 ** (i - (len(names) - 1) / 2)
        xs, means = list[float](), list[Floats]()
        for bits in lengths:
            found = [e.mean_average_precision for e in _runs(evaluations, name, bits)]
            if not found:
                continue
            xs.append(bits * aside)
            means.append(np.mean([(m.lowest, m.value, m.highest) for m in found], axis=0))
            if len(found) > 1:
                faint = _style(i) | {"linestyle": "", "alpha": 0.35}
                axis.plot(xs[-1:] * len(found), [m.value for m in found], **faint)
        lowest, middle, highest = np.transpose(means)
        # Rounding of means may turn a distance of 0 into a negative one.
        ends = np.maximum([middle - lowest, highest - middle], 0)
        axis.errorbar(xs, middle, yerr=ends, elinewidth=0.8, capsize=2, label=name, **_style(i))
    # With a single length the axis would go from 1/sqrt(10) of it to sqrt(10) times it.
    axis.set_xlim(lengths[0] / 1.25, lengths[-1] * 1.25)
    axis.set_xticks(lengths, [str(bits) for bits in lengths])
    axis.minorticks_off()
    axis.set_xlabel("bits")
    axis.set_ylabel("mAP")
    axis.grid(True, linewidth=0.3)
    return _finish(figure, axes.flat, path)


def plot_precision_recall(evaluations: Sequence[Evaluation], path: Path) -> Path:
    """Precision against recall of the Hamming ranking, a panel for each length."""

    def draw(axis: Any, evaluation: Evaluation, style: dict[str, Any]) -> None:
        curve = evaluation.by_rank
        axis.plot(curve.recall, curve.precision, **style | {"marker": ""})
        axis.set_xlim(-0.03, 1.03)
        axis.set_xlabel("recall")

    return _curves(evaluations, "Precision against recall of the Hamming ranking", draw, path)


def plot_precision_at(evaluations: Sequence[Evaluation], path: Path) -> Path:
    """Precision of the first N, a panel for each length."""

    def draw(axis: Any, evaluation: Evaluation, style: dict[str, Any]) -> None:
        axis.plot(evaluation.ns, evaluation.precision_at, **style | {"markersize": 3.5})
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:,g}")
        axis.minorticks_off()
        axis.set_xlabel("N")

    return _curves(evaluations, "Precision of the first N of the Hamming ranking", draw, path)


def _curves(
    evaluations: Sequence[Evaluation],
    heading: str,
    draw: Callable[[Any, Evaluation, dict[str, Any]], None],
    path: Path,
) -> Path:
    """A panel for each length of codes, in it a line for each evaluation."""
    lengths, names = _lengths(evaluations), _names(evaluations)
    figure, axes = _panels(len(lengths), heading)
    for axis, bits in zip(axes.flat, lengths, strict=False):
        for evaluation in evaluations:
            if evaluation.bits == bits:
                style = _style(names.index(evaluation.name)) | {"label": evaluation.name}
                draw(axis, evaluation, style)
        axis.set_title(f"{bits} bits", fontsize=9)
        axis.set_ylim(-0.03, 1.03)
        axis.grid(True, linewidth=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("precision")
    return _finish(figure, axes.flat, path)


def plot_correlation(evaluations: Sequence[Evaluation], path: Path) -> Path:
    """|C| of each two bits: a row for each series, a column for each length; series of a single
    length side by side. Of runs the first."""
    lengths, names = _lengths(evaluations), _names(evaluations)
    heading = "Absolute correlation of bits (grey: constant bits)"
    if len(lengths) > 1:
        figure, axes = _figure(len(names), len(lengths), heading, scale=0.8)
    else:
        figure, axes = _figure(1, len(names), heading, scale=1.1)
        axes = axes.T
    for row, name in enumerate(names):
        for column, bits in enumerate(lengths):
            axis = axes[row, column]
            runs = _runs(evaluations, name, bits)
            if not runs:
                axis.set_axis_off()
                continue
            axis.set_facecolor(_CONSTANT_BIT)  # NaN is transparent
            image = axis.imshow(_matrix(runs[0]), cmap="viridis", vmin=0, vmax=1)
            mac = number(runs[0].mean_absolute_correlation, 2)
            axis.set_title(f"{name}\n{bits} bits, mAC {mac}", fontsize=8.5)
            # Ticks where substrings end; lines across would hide what is to be seen.
            ends = np.cumsum((0, *runs[0].cuts))
            ends = ends[:: -(-len(ends) // _MOST_TICKS)]
            axis.set_xticks(ends - 0.5, [])
            axis.set_yticks(ends - 0.5, [str(end) for end in ends], fontsize=6.5)
    figure.colorbar(image, ax=axes, shrink=0.8, aspect=30)
    return _finish(figure, [], path)


def _matrix(evaluation: Evaluation) -> Floats:
    """|C|, NaN in the rows and columns of constant bits."""
    matrix = np.full((evaluation.bits, evaluation.bits), np.nan)
    for i, row in enumerate(evaluation.correlation):
        matrix[i, :i] = matrix[:i, i] = row
    # The diagonal is not kept: it is 1 for a bit that varies, that is, is correlated with any.
    varies = ~np.isnan(matrix).all(axis=1)
    matrix[varies, varies] = 1
    return matrix


def _buckets(evaluations: Sequence[Evaluation], cuts: tuple[int, ...], path: Path) -> Path:
    """A panel for each table: which share of the items lies in buckets of which size."""
    shown = min(len(cuts), _MOST_TABLES)
    heading = f"Items by the size of their bucket\n{sum(cuts)} bits, {len(cuts)} tables"
    if shown < len(cuts):
        heading += f", the first {shown} shown"
    figure, axes = _panels(shown, heading)
    cut_so = [e for e in evaluations if e.cuts == cuts]
    longest = max(len(table.items) for e in cut_so for table in e.tables)
    for i, name in enumerate(_names(evaluations)):
        runs = [e for e in cut_so if e.name == name]
        if not runs:
            continue
        label = f"{name} (mean entropy {np.mean([e.entropy for e in runs]):.2f} nats)"
        for j, axis in zip(range(shown), axes.flat, strict=False):
            shares = np.zeros(longest)
            for e in runs:
                shares[: len(e.tables[j].items)] += np.array(e.tables[j].items) / e.n / len(runs)
            edges = 2.0 ** np.arange(longest + 1)
            axis.stairs(shares, edges, color=_style(i)["color"], linewidth=1.5, label=label)
    for j, axis in zip(range(shown), axes.flat, strict=False):
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:,g}")
        axis.set_title(f"table {j + 1}: {cuts[j]} bits", fontsize=9)
        axis.set_ylim(bottom=0)
        axis.grid(True, linewidth=0.3)
        axis.set_xlabel("items in the bucket")
    for axis in axes[:, 0]:
        axis.set_ylabel("share of all items")
    return _finish(figure, axes.flat, path)


def _panels(count: int, heading: str) -> tuple[Any, Any]:
    """At least so many, with one vertical axis for all; those left over are blank."""
    columns = min(count, _MOST_COLUMNS)
    figure, axes = _figure(-(-count // columns), columns, heading, sharey=True)
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure, axes


def _figure(
    rows: int, columns: int, heading: str, *, scale: float = 1.0, sharey: bool = False
) -> tuple[Any, Any]:
    # Without pyplot: nothing global, and no display.
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'faiss-dmih[bench]'") from error
    width = max(_PANEL_WIDTH * scale * columns + 0.6, _HEADING_WIDTH)
    height = _PANEL_HEIGHT * scale * rows + 1.2
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(heading, fontsize=11)
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=sharey)


def _finish(figure: Any, axes: Iterable[Any], path: Path) -> Path:
    """Save, with one legend below for all panels."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        inches = 0.6 + 0.075 * max(map(len, handles))
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=max(1, min(len(handles), int(figure.get_size_inches()[0] / inches))),
            fontsize=8.5,
            frameon=False,
        )
    figure.savefig(path, dpi=_DPI)
    return path


def _style(i: int) -> dict[str, Any]:
    """Of the i-th series."""
    return {
        "color": _COLOURS[i % len(_COLOURS)],
        "marker": _MARKERS[i % len(_MARKERS)],
        "markersize": 5,
        "linewidth": 1.5,
    }


def _runs(evaluations: Sequence[Evaluation], name: str, bits: int) -> list[Evaluation]:
    return [e for e in evaluations if (e.name, e.bits) == (name, bits)]


def _lengths(evaluations: Sequence[Evaluation]) -> list[int]:
    return sorted({e.bits for e in evaluations})


def _names(evaluations: Sequence[Evaluation]) -> list[str]:
    return _unique(e.name for e in evaluations)


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))

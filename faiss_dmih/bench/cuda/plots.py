"""The plot of a run on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faiss_dmih.bench.cuda.competitors import AUTO, PROBE, SCAN, TENSOR
from faiss_dmih.bench.cuda.results import PAIRS, QUERIES, CudaRun
from faiss_dmih.data import HELD_OUT, PLANTED
from faiss_dmih.data.errors import require

_COLOURS = {64: "#D55E00", 128: "#0072B2", 256: "#009E73", 512: "#7B7B7B"}
_STYLES = {
    SCAN: {"marker": "s", "linestyle": "-"},
    TENSOR: {"marker": "D", "linestyle": "-."},
    PROBE: {"marker": "v", "linestyle": "--"},
    AUTO: {"marker": "o", "linestyle": "-"},
}


def write_plot(run: CudaRun, path: Path) -> list[Path]:
    """Scans against the limit, and what planted neighbours cost, over the number of codes.

    Both of the largest batches. Nothing is drawn of a run without cells.
    """
    if not run.cells:
        return []
    require("matplotlib", "plotting").use("Agg")
    import matplotlib.pyplot as plt

    figure, (scans, near) = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
    batch = max(result.cell.batch for result in run.cells)
    figure.suptitle(f"{run.gpu.name}, batches of {batch:,}", fontsize=11)
    scans.set_title("uniform, k = 10: pairs/s of the scans (dotted: limit by POPC)", fontsize=9)
    near.set_title("planted neighbours, k = 1: queries/s", fontsize=9)
    for d in sorted({result.cell.d for result in run.cells}):
        colour = _COLOURS.get(d, "black")
        limit = run.limits.popc.median / (d / 32)
        scans.axhline(limit, color=colour, linewidth=0.9, linestyle=":")
        for competitor in (SCAN, TENSOR):
            _line(scans, run, (d, HELD_OUT, batch, 10), competitor, PAIRS)
        for competitor in (PROBE, AUTO):
            _line(near, run, (d, PLANTED, batch, 1), competitor, QUERIES)
    for axis in (scans, near):
        axis.set(xscale="log", yscale="log", xlabel="codes")
        axis.grid(True, which="major", linewidth=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return [path]


def _line(
    axis: Any, run: CudaRun, asked: tuple[int, str, int, int], competitor: str, what: str
) -> None:
    """One competitor in the cells with these bits, queries, batch and k, with its ranges."""
    points = {}
    for result in run.cells:
        cell, timed = result.cell, result.of(competitor)
        figure = timed.figure(what) if timed else None
        if (cell.d, cell.queries, cell.batch, cell.k) == asked and figure:
            points[cell.n] = figure.value
    if not points:
        return
    sizes = sorted(points)
    spreads = [points[n] for n in sizes]
    ends = [[s.median - s.min for s in spreads], [s.max - s.median for s in spreads]]
    axis.errorbar(
        sizes,
        [s.median for s in spreads],
        yerr=ends,
        label=f"{competitor}, {asked[0]} bits",
        color=_COLOURS.get(asked[0], "black"),
        elinewidth=0.7,
        **_STYLES[competitor],
    )

"""Records of benchmarks/encoders.py for people: tables in Markdown, and one picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Record = dict[str, Any]


def markdown(records: Sequence[Record]) -> str:
    """A table for each part; means over seeds, with standard deviations where there are several."""
    out = []
    for part in dict.fromkeys(r["part"] for r in records):
        mine = [r for r in records if r["part"] == part]
        epochs = sorted({r["epochs"] for r in mine})
        out += [f"## {part}", "", f"{' or '.join(map(str, epochs))} epochs.", ""]
        rows = [_row(*group) for group in groups(mine)]
        headings = list(rows[0])
        out.append("| " + " | ".join(headings) + " |")
        out.append("|---" + "|--:" * (len(headings) - 1) + "|")
        out += ["| " + " | ".join(row.values()) + " |" for row in rows]
        out.append("")
    return "\n".join(out)


def groups(records: Sequence[Record]) -> list[tuple[str, int, list[tuple[Record, Record]]]]:
    """(method, bits, [(record, its figures)]): what differs by the seed only."""
    found: dict[tuple[str, int], list[tuple[Record, Record]]] = {}
    for record in records:
        for codes in record["codes"]:
            method = record["method"].removesuffix(f", {codes['bits']}")
            found.setdefault((method, codes["bits"]), []).append((record, codes))
    return [(*key, pairs) for key, pairs in sorted(found.items(), key=lambda item: item[0][1])]


def _row(method: str, bits: int, pairs: Sequence[tuple[Record, Record]]) -> dict[str, str]:
    def of(figure: str, digits: int, scale: float = 1.0) -> str:
        return spread([codes[figure] * scale for _, codes in pairs], digits)

    row = {
        "codes": method,
        "bits": str(bits),
        "seeds": str(len(pairs)),
        "mAP": of("mAP", 3),
        "worst to best ties": f"{of('mAP_worst_ties', 3)} to {of('mAP_best_ties', 3)}",
        "distinct": of("distinct", 0),
        "entropy, nats": of("entropy_nats", 2),
        "bits ": of("entropy_bits", 2),
        "mAC": of("mAC", 3),
        "candidates 1-NN": of("candidates_1", 0),
    }
    for database in ("images", "views"):
        for index in ("mih", "auto"):
            for over in ("flat", "scan"):
                if "searches" in pairs[0][0]:
                    found = [r["searches"][database][f"over_{over}"][index][0] for r, _ in pairs]
                    row[f"{index} / {over}, {database}"] = spread(found, 1) + "x"
    return row


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation."""
    mean = f"{np.mean(values):,.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):,.{digits}f}"


def plot(records: Sequence[Record], path: Path) -> None:
    """What is worth seeing of each part that there is, side by side."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    panels: dict[str, Callable[[Any, Sequence[Record]], None]] = {
        "choice": _trade,
        "features": _trade,
        "small": _trade,
        "ensemble": _correlation,
    }
    there = [part for part in panels if any(r["part"] == part for r in records)]
    columns = min(2, len(there))
    figure, axes = pyplot.subplots(
        -(-len(there) // columns), columns, squeeze=False, layout="constrained"
    )
    figure.set_size_inches(7 * axes.shape[1], 5 * axes.shape[0])
    for axis in axes.flat[len(there) :]:
        axis.remove()
    for axis, part in zip(axes.flat, there, strict=False):
        panels[part](axis, [r for r in records if r["part"] == part])
        axis.set_title(part)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


_MARKS = "osD^vP*X"


def _trade(axis: Any, records: Sequence[Record]) -> None:
    """mAP against candidates, a point for each seed; runs of one margin in one colour."""
    colours: dict[str, int] = {}
    for i, (method, _, pairs) in enumerate(groups(records)):
        family = method.split(", psi")[0]
        colour = colours.setdefault(family, len(colours))
        axis.plot(
            [codes["candidates_1"] for _, codes in pairs],
            [codes["mAP"] for _, codes in pairs],
            _MARKS[i % len(_MARKS)],
            color=f"C{colour}",
            label=method,
        )
    axis.set_xscale("log")
    axis.xaxis.set_minor_formatter("{x:,.0f}")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.tick_params(axis="x", which="both", labelsize=7, rotation=45)
    axis.set_xlabel("codes that plain multi-index hashing looks at for the nearest (log scale)")
    axis.set_ylabel("mAP")


def _correlation(axis: Any, records: Sequence[Record]) -> None:
    """mAP against the correlation of bits, means over seeds; more bits, larger marks; a margin has
    a colour, one net a circle, an ensemble a square.
    """
    found = groups(records)
    colours: dict[str, int] = {}
    for method in dict.fromkeys(method for method, _, _ in found):
        mine = [[c for _, c in pairs] for name, _, pairs in found if name == method]
        kind, _, margin = method.partition(", ")
        colour = f"C{colours.setdefault(margin, len(colours))}"
        x, y = ([np.mean([c[f] for c in codes]) for codes in mine] for f in ("mAC", "mAP"))
        spread_x, spread_y = (
            [np.std([c[f] for c in codes], ddof=min(1, len(codes) - 1)) for codes in mine]
            for f in ("mAC", "mAP")
        )
        axis.errorbar(x, y, spread_y, spread_x, fmt="-", color=colour, capsize=2, linewidth=1)
        axis.scatter(
            x,
            y,
            [codes[0]["bits"] for codes in mine],
            color=colour,
            marker="o" if kind == "one net" else "s",
            label=method,
        )
    axis.set_xlabel("mean absolute correlation of bits")
    axis.set_ylabel("mAP")

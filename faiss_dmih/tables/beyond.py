"""What the papers do not have: a modern loss with balance, and what weights and margins do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from faiss_dmih.metrics.evaluation import Evaluation
from faiss_dmih.tables import settings
from faiss_dmih.tables.layout import Picture, Row, Section
from faiss_dmih.tables.models import PHI, PSI
from faiss_dmih.tables.published import KS
from faiss_dmih.tables.sheet import Found, Sheet

STRONG = ("OrthoHash", "OrthoHash, balanced", "DeepHash", "DMIH")
COLUMNS = (
    *("mAP", "entropy, nats", "distinct codes", "candidates, 1-NN"),
    *("MIH over IndexBinaryFlat", "IndexDMIH over it"),
)
WEIGHTS = (0.0, 0.1, 0.2, 0.5, 1.0)
SHARES = (2, 4, 8, 16)


def modern(sheet: Sheet) -> Section:
    """A strong loss, with and without the balance terms."""
    rows = []
    for data in sheet.plan.data:
        for bits in (64, 128):
            if bits not in sheet.plan.bits:
                continue
            for method in STRONG:
                evaluations = sheet.evaluations(method, data, bits)
                times = sheet.times(method, data, bits, KS)
                rows.append(Row((data, str(bits), method), _figures(evaluations, times)))
    return Section(
        "beyond-1",
        "What balance costs a strong loss",
        "OrthoHash (Hoe et al. 2021) with and without DMIH's balance terms, at their usual "
        "weights, by the same trainer; times for the nearest neighbour.",
        (
            *settings.of_data(sheet.plan, *sheet.plan.data),
            "OrthoHash with tanh instead of batch normalisation, so that the balance terms have "
            "codes within bounds.",
            settings.TIES,
            *settings.of_times(sheet.busy),
        ),
        ("set", "bits", "method"),
        COLUMNS,
        tuple(rows),
    )


def weights(sheet: Sheet) -> Section:
    """Entropy and speed against lambda, of psi, and beta, of phi."""
    rows, pictures = [], []
    for data in sheet.plan.data[:1]:
        lines: dict[str, list[tuple[float, float, float, float]]] = {}
        for name, term, other in (("lambda (psi)", PSI, PHI), ("beta (phi)", PHI, PSI)):
            for weight in WEIGHTS:
                changes = {"changes": tuple(sorted({term: weight, other: 0.0}.items()))}
                evaluations, times = _swept(sheet, data, changes)
                rows.append(Row((data, name, f"{weight:g}"), _figures(evaluations, times)))
                if evaluations.values and times.values:
                    lines.setdefault(name, []).append(_point(weight, evaluations, times))
        if lines:
            draw = _drawing(lines)
            pictures.append(Picture(f"beyond-2-{data}", f"against either weight, {data}", draw))
    return Section(
        "beyond-2",
        "Entropy and speed against the weights of balance",
        "DMIH with one of the terms alone, by its weight.",
        (*_sweep_differences(sheet), *settings.of_times(sheet.busy)),
        ("set", "weight", "is"),
        COLUMNS,
        tuple(rows),
        tuple(pictures),
    )


def margins(sheet: Sheet) -> Section:
    """Of DeepHash and DMIH."""
    rows = []
    for data in sheet.plan.data[:1]:
        for method in ("DeepHash", "DMIH"):
            for share in SHARES:
                changes = {"changes": (("margin", 64 / share),)}
                evaluations, _ = _swept(sheet, data, changes, method, timed=False)
                figures = (
                    *(evaluations.figure(read, digits) for read, digits in _QUALITIES),
                    evaluations.figure(lambda e: e.mean_average_precision.lowest),
                    evaluations.figure(lambda e: e.mean_average_precision.highest),
                )
                rows.append(Row((data, method, f"l / {share}"), figures))
    return Section(
        "beyond-3",
        "Margins",
        "By the margin, as a fraction of the bits l. Where few codes are distinct, the mAP of the "
        "worst and of the best order among ties are far apart, and it says little.",
        _sweep_differences(sheet),
        ("set", "method", "margin"),
        (*COLUMNS[:4], "mAP, worst ties", "mAP, best ties"),
        tuple(rows),
    )


_QUALITIES: tuple[tuple[Callable[[Evaluation], float], int], ...] = (
    (lambda e: e.mean_average_precision.value, 3),
    (lambda e: e.entropy, 2),
    (lambda e: float(e.distinct), 0),
    (lambda e: e.candidates[0], 0),
)


def _figures(evaluations: Found[Evaluation], times: Found[dict[str, Any]]) -> Any:
    speeds = (times.figure(_speed(index), 1, "x") for index in ("mih", "auto"))
    return (*(evaluations.figure(read, digits) for read, digits in _QUALITIES), *speeds)


def _speed(index: str) -> Callable[[dict[str, Any]], float]:
    return lambda ks: float(ks["1"]["over_flat"][index][0])


def _swept(
    sheet: Sheet, data: str, changes: dict[str, Any], method: str = "DMIH", timed: bool = True
) -> tuple[Found[Evaluation], Found[dict[str, Any]]]:
    """On validation items, as what is chosen by a sweep must not know the queries."""
    options = {**changes, "items": sheet.plan.sweep_items, "validation": sheet.plan.validation}
    evaluations = sheet.evaluations(method, data, 64, **options)
    times = sheet.times(method, data, 64, (1,), **options) if timed else Found[dict[str, Any]](())
    return evaluations, times


def _point(
    weight: float, evaluations: Found[Evaluation], times: Found[dict[str, Any]]
) -> tuple[float, float, float, float]:
    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return (
        weight,
        mean([e.entropy for e in evaluations.values]),
        mean([_speed("mih")(ks) for ks in times.values]),
        mean([e.mean_average_precision.value for e in evaluations.values]),
    )


def _drawing(
    lines: dict[str, list[tuple[float, float, float, float]]],
) -> Callable[[Path], object]:
    """Three panels; the weight 0 has its place left of the least one."""

    def draw(path: Path) -> None:
        from matplotlib.figure import Figure

        picture = Figure(figsize=(11, 3.6), layout="constrained")
        panels = picture.subplots(1, 3)
        speed = "plain MIH, times as fast as IndexBinaryFlat"
        names = ("entropy of the tables, nats", speed, "mAP")
        for column, (axis, name) in enumerate(zip(panels, names, strict=True), 1):
            for (label, points), marker in zip(lines.items(), "os", strict=False):
                places = range(len(points))
                axis.plot(places, [point[column] for point in points], marker=marker, label=label)
                axis.set_xticks(list(places), [f"{point[0]:g}" for point in points])
            axis.set_title(name, fontsize=10)
            axis.set_xlabel("weight")
            axis.grid(alpha=0.3)
        panels[0].legend(fontsize=9)
        picture.savefig(path, dpi=110)

    return draw


def _sweep_differences(sheet: Sheet) -> tuple[str, ...]:
    used = f"{sheet.plan.sweep_items:,}" if sheet.plan.sweep_items else "all others"
    return (
        *settings.of_data(sheet.plan, *sheet.plan.data[:1]),
        f"64 bits. Here {sheet.plan.validation} of the items to train on are the queries, which "
        f"are in no database, and {used} of them are trained on: a choice by this table knows no "
        "query of the other tables.",
        settings.TIES,
    )

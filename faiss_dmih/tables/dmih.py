"""*Deep Multi-Index Hashing*: Tables 1 to 4, Figure 4."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from faiss_dmih.metrics.evaluation import Evaluation
from faiss_dmih.metrics.plots import plot_map, plot_precision_at, plot_precision_recall
from faiss_dmih.tables import published as paper
from faiss_dmih.tables import settings
from faiss_dmih.tables.layout import Figure, Picture, Row, Section
from faiss_dmih.tables.sheet import Found, Sheet, published

SETS = ("SVHN", "NUS-WIDE")
METHODS = ("DMIH", "DeepHash")
FIGURE_METHODS = ("DMIH", "DeepHash", "ITQ-CCA", "ITQ", "SH", "LSH")
_HERE = ("set", "bits", "codes", "search")
_ONE_LENGTH = "There is no picture of mAP against bits: that takes several lengths (--bits)."
_FLAT, _SCAN = "over IndexBinaryFlat", "over our scan"


def speedups(sheet: Sheet) -> Section:
    """Table 1."""
    rows = []
    for name in SETS:
        for bits in paper.DMIH_BITS:
            for method in METHODS:
                values = paper.DMIH_SPEEDUPS[name][bits][method]
                labels = (f"{name}, published", str(bits), method, "MIH over linear scan")
                rows.append(published(labels, values, 2, "x"))
    for data in sheet.plan.data:
        for bits in _bits(sheet):
            for method in METHODS:
                found = sheet.times(method, data, bits, paper.KS)
                rows += _time_rows(found, (data, str(bits), method), paper.KS)
    rows += _left_out(sheet, len(paper.KS))
    return Section(
        "dmih-1",
        "DMIH, Table 1: times as fast as a linear scan",
        "Plain multi-index hashing (MIH) with the codes of either method, and IndexDMIH, which "
        "picks its engine by itself. A ratio names its denominator.",
        (*_differences(sheet), *settings.of_times(sheet.busy)),
        _HERE,
        tuple(f"{k}-NN" for k in paper.KS),
        tuple(rows),
    )


def views(sheet: Sheet) -> Section:
    """The same at the papers' size of a database, or beyond: not theirs."""
    rows = []
    for data in sheet.plan.data:
        for bits in _bits(sheet):
            for method in METHODS:
                found = sheet.times(method, data, bits, paper.ABLATION_KS, views=sheet.plan.views)
                rows += _time_rows(found, (data, str(bits), method), paper.ABLATION_KS)
    return Section(
        "dmih-1-views",
        f"Beside DMIH's Table 1: a database of {sheet.plan.views:,}",
        "The database is made of views: codes of its items, each with 1 in 32 bits flipped, as "
        "those of other crops of an image would be. Plain MIH has the papers' substrings.",
        (
            *_differences(sheet),
            "Views are no images: how far codes of crops differ is assumed.",
            *settings.of_times(sheet.busy),
        ),
        _HERE,
        tuple(f"{k}-NN" for k in paper.ABLATION_KS),
        tuple(rows),
    )


def entropy(sheet: Sheet) -> Section:
    """Table 2."""
    rows = []
    for name in SETS:
        for method in METHODS:
            labels = (f"{name}, published", method, "base not said")
            rows.append(published(labels, paper.DMIH_ENTROPY[name][method], 2))
    for data in sheet.plan.data:
        for method in METHODS:
            per_bits = [
                sheet.evaluations(method, data, bits) if bits in sheet.plan.bits else bits
                for bits in paper.DMIH_BITS
            ]
            for what, read in _ENTROPIES.items():
                figures = tuple(
                    sheet.no_bits(found) if isinstance(found, int) else found.figure(read, 2)
                    for found in per_bits
                )
                rows.append(Row((data, method, what), figures))
    rows += _left_out(sheet, len(paper.DMIH_BITS), labels=1)
    return Section(
        "dmih-2",
        "DMIH, Table 2: entropy of the hash tables",
        "How evenly the codes of the database fill the buckets, mean over tables.",
        _differences(sheet),
        ("set", "codes", "logarithm"),
        tuple(f"{bits} bits" for bits in paper.DMIH_BITS),
        tuple(rows),
    )


_ENTROPIES: dict[str, Callable[[Evaluation], float]] = {
    "natural": lambda e: e.entropy,
    "base 2": lambda e: e.entropy_bits,
}


def ablation(sheet: Sheet) -> Section:
    """Table 3."""
    methods = ("DMIH", "DMIH, feature level", "DMIH, instance level", "DeepHash")
    columns = paper.ABLATION_KS
    rows = []
    for name in SETS:
        for method, values in paper.DMIH_ABLATION[name].items():
            shown = published((f"{name}, published", "96", method, "MIH"), values, 2, "x")
            rows.append(_padded(shown, 4))
    for data in sheet.plan.data:
        for bits in _bits(sheet):
            for method in methods:
                times = sheet.times(method, data, bits, paper.KS)
                found = sheet.evaluations(method, data, bits)
                qualities = (
                    found.figure(lambda e: e.mean_average_precision.value),
                    found.figure(lambda e: e.entropy, 2),
                    found.figure(lambda e: float(e.distinct), 0),
                    found.figure(lambda e: e.candidates[0], 0),
                )
                speeds = tuple(times.figure(_ratio("over_flat", "mih", k), 1, "x") for k in columns)
                rows.append(Row((data, str(bits), method, "MIH"), (*speeds, *qualities)))
    return Section(
        "dmih-3",
        "DMIH, Table 3: what each balance term does",
        "Times as fast as the linear scan (ours: IndexBinaryFlat), and what it costs. Candidates "
        "are the entries that plain MIH meets for the nearest neighbour.",
        (*_differences(sheet), *settings.of_times(sheet.busy), settings.TIES),
        _HERE,
        (*(f"{k}-NN" for k in columns), "mAP", "entropy, nats", "distinct codes", "candidates"),
        tuple(rows),
    )


def two_stage(sheet: Sheet) -> Section:
    """Table 4."""
    columns = paper.ABLATION_KS
    rows = []
    for name in SETS:
        for method, values in paper.DMIH_TWO_STAGE[name].items():
            shown = published((f"{name}, published", "96", method, "MIH"), values, 2, "x")
            rows.append(_padded(shown, 2))
    for data in sheet.plan.data:
        for bits in _bits(sheet):
            for method, rearranged in (("DMIH", False), ("DeepHash", False), ("DeepHash", True)):
                # Plain MIH's are those of Table 1.
                asked = columns if rearranged else paper.KS
                found = sheet.times(method, data, bits, asked, rearranged=rearranged)
                evaluate = sheet.rearranged if rearranged else sheet.evaluations
                evaluated = evaluate(method, data, bits)
                search = "data-driven MIH (two-stage)" if rearranged else "MIH"
                figures = (
                    *(found.figure(_ratio("over_flat", "mih", k), 1, "x") for k in columns),
                    evaluated.figure(lambda e: e.entropy, 2),
                    evaluated.figure(lambda e: e.candidates[0], 0),
                )
                rows.append(Row((data, str(bits), method, search), figures))
    return Section(
        "dmih-4",
        "DMIH, Table 4: balance learnt end to end, or bits rearranged afterwards",
        "Times as fast as the linear scan (ours: IndexBinaryFlat). Two-stage: codes of DeepHash, "
        "whose bits are put into tables by what data-driven MIH learns of their correlation. "
        "Candidates are the entries met for the nearest neighbour: whatever the machine is busy "
        "with, they are the same.",
        (*_differences(sheet), *settings.of_times(sheet.busy)),
        _HERE,
        (*(f"{k}-NN" for k in columns), "entropy, nats", "candidates"),
        tuple(rows),
    )


def rankings(sheet: Sheet) -> Section:
    """Figure 4."""
    rows, pictures = [], []
    for data in sheet.plan.data:
        every: list[Evaluation] = []
        for method in FIGURE_METHODS:
            figures: list[Figure] = []
            for bits in paper.DMIH_BITS:
                if bits not in sheet.plan.bits:
                    figures.append(sheet.no_bits(bits))
                    continue
                found = sheet.evaluations(method, data, bits)
                every += found.values
                figures.append(found.figure(lambda e: e.mean_average_precision.value))
            rows.append(Row((data, method), tuple(figures)))
        pictures += ranking_pictures("dmih-f4", data, every)
    return Section(
        "dmih-f4",
        "DMIH, Figure 4: mAP against bits, precision of the first N, precision and recall",
        "The paper has pictures of SVHN and NUS-WIDE without numbers.",
        (
            *_differences(sheet),
            settings.TIES,
            *(() if len(_bits(sheet)) > 1 else (_ONE_LENGTH,)),
        ),
        ("set", "codes"),
        tuple(f"mAP, {bits} bits" for bits in paper.DMIH_BITS),
        tuple(rows),
        tuple(pictures),
    )


def ranking_pictures(key: str, data: str, every: Sequence[Evaluation]) -> list[Picture]:
    """mAP where there are several lengths, precision of the first N, precision and recall."""
    if not every:
        return []
    several = len({e.bits for e in every}) > 1
    kinds: dict[str, tuple[str, Any]] = {
        "map": ("mAP against bits", plot_map if several else None),
        "precision-at": ("precision of the first N", plot_precision_at),
        "precision-recall": ("precision and recall", plot_precision_recall),
    }
    return [
        Picture(f"{key}-{data}-{name}", f"{about}, {data}", _drawing(draw, every))
        for name, (about, draw) in kinds.items()
        if draw is not None
    ]


def _drawing(draw: Callable[..., object], every: Sequence[Evaluation]) -> Callable[[Any], object]:
    return lambda path: draw(every, path)


def _time_rows(
    found: Found[dict[str, Any]], labels: tuple[str, ...], ks: Sequence[int]
) -> list[Row]:
    """Plain MIH and the index, over both scans."""
    out = []
    for index, shown in (("mih", "MIH"), ("auto", "IndexDMIH")):
        for over, scan, digits in (("over_flat", _FLAT, 1), ("over_scan", _SCAN, 2)):
            figures = tuple(found.figure(_ratio(over, index, k), digits, "x") for k in ks)
            out.append(Row((*labels, f"{shown} {scan}"), figures))
    return out


def _ratio(over: str, index: str, k: int) -> Callable[[dict[str, Any]], float]:
    return lambda ks: float(ks[str(k)][over][index][0])


def _padded(row: Row, count: int) -> Row:
    return Row(row.labels, (*row.figures, *(Figure(),) * count), row.published)


def _bits(sheet: Sheet) -> list[int]:
    return [bits for bits in paper.DMIH_BITS if bits in sheet.plan.bits]


def _left_out(sheet: Sheet, columns: int, labels: int = 2) -> list[Row]:
    """A row for each published set that is not asked for."""
    out = []
    for name in SETS:
        if why := sheet.left_out(name, paper.STAND_INS[name]):
            blank = ("",) * labels
            out.append(Row((paper.STAND_INS[name], *blank, "here"), (Figure(why=why),) * columns))
    return out


def _differences(sheet: Sheet) -> tuple[str, ...]:
    data = settings.of_data(sheet.plan, *sheet.plan.data)
    return (*data, settings.MARGIN, *((settings.SPREAD,) if sheet.plan.seeds > 1 else ()))

"""*Ensemble based deep supervised hashing*: Figures 1, 4, 5, Tables 1, 2, growing, new classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from faiss_dmih.metrics.evaluation import Evaluation
from faiss_dmih.metrics.plots import plot_correlation, plot_precision_recall
from faiss_dmih.tables import published as paper
from faiss_dmih.tables import settings
from faiss_dmih.tables.layout import Figure, Picture, Row, Section
from faiss_dmih.tables.sheet import Found, Sheet, published

SETS = ("ImageNet-100", "CIFAR-10", "AwA")
DEEP = ("CNNH", "DeSH", "DNNH", "DRSCH", "ensemble")
METHODS = ("LSH", "KSH", "SDH", "LFH", *DEEP)
FIGURE_1 = ("DeSH", "DNNH")
MAC_BITS = (16, 32, 64, 128)
LOSSES = ("pairwise", "triplet")
SUB_BITS = 16
SHARES = (8, 2)
"""Margins, as fractions of the bits: ours, and a large one."""
LARGE = "half of the bits"


def maps(sheet: Sheet) -> Section:
    """Table 1."""
    rows = []
    for name in SETS:
        for method in METHODS:
            labels = (f"{name}, published", method)
            rows.append(published(labels, paper.EDSH_MAP[name][method], 4))
    for data in sheet.plan.data:
        for method in METHODS:
            figures = tuple(
                _of(sheet, method, data, bits).figure(lambda e: e.mean_average_precision.value, 4)
                if bits in sheet.plan.bits
                else sheet.no_bits(bits)
                for bits in paper.EDSH_BITS
            )
            rows.append(Row((data, method), figures))
    for name in SETS:
        if why := sheet.left_out(name, paper.STAND_INS[name]):
            rows.append(
                Row((paper.STAND_INS[name], "here"), (Figure(why=why),) * len(paper.EDSH_BITS))
            )
    return Section(
        "edsh-1",
        "EDSH, Table 1: mAP of nine methods",
        "The ensemble of the longest codes is trained once; shorter codes are those of its first "
        "sub-models, as in the paper. Others are trained anew for each length.",
        (*_differences(sheet), settings.TIES),
        ("set", "method"),
        tuple(f"{bits} bits" for bits in paper.EDSH_BITS),
        tuple(rows),
    )


def losses(sheet: Sheet) -> Section:
    """Figure 1."""
    return _correlations(
        sheet,
        "edsh-f1",
        "EDSH, Figure 1: correlation of the bits of single nets",
        "mAC: mean absolute correlation of the bits. DeSH has the pair-wise loss, DNNH triplets.",
        FIGURE_1,
        ("set not said", paper.EDSH_MAC_OF_ONE),
    )


def correlations(sheet: Sheet) -> Section:
    """Figure 4."""
    return _correlations(
        sheet,
        "edsh-f4",
        "EDSH, Figure 4: correlation of bits, one net and an ensemble",
        "Mean absolute correlation (mAC) of bits; below, with a large margin, half of the bits of "
        "a net, which few arrangements of the classes can meet.",
        ("DNNH", "DeepHash", "ensemble"),
        ("AwA", paper.EDSH_MAC),
        margins=("DeepHash", "ensemble"),
    )


def _correlations(
    sheet: Sheet,
    key: str,
    title: str,
    caption: str,
    methods: tuple[str, ...],
    printed: tuple[str, Mapping[str, Mapping[int, float]]],
    margins: tuple[str, ...] = (),
) -> Section:
    rows = []
    printed_of, printed_values = printed
    for method, values in printed_values.items():
        printed_ones = tuple(
            Figure((values[bits],), 2) if bits in values else Figure() for bits in MAC_BITS
        )
        labels = (f"{printed_of}, published", method, "not said")
        rows.append(Row(labels, printed_ones, published=True))
    pictures = []
    rows = [Row(r.labels, (*r.figures, *(Figure(),) * len(MAC_BITS)), True) for r in rows]
    for data in sheet.plan.data:
        every: dict[int, list[Evaluation]] = {share: [] for share in SHARES}
        wanted = [(method, SHARES[0]) for method in methods]
        wanted += [(method, SHARES[1]) for method in margins]
        for method, share in wanted:
            figures: list[Figure] = []
            precisions: list[Figure] = []
            for bits in MAC_BITS:
                if bits not in sheet.plan.bits:
                    figures.append(sheet.no_bits(bits))
                    precisions.append(sheet.no_bits(bits))
                    continue
                found = _of(sheet, method, data, bits, share)
                every[share] += found.values[:1]
                figures.append(found.figure(lambda e: e.mean_absolute_correlation, 3))
                precisions.append(found.figure(lambda e: e.mean_average_precision.value, 3))
            margin = LARGE if share == SHARES[1] or method == "DeSH" else "an eighth"
            rows.append(Row((data, method, margin), (*figures, *precisions)))
        for share, name in zip(SHARES, ("", "-large-margin"), strict=True):
            if every[share]:
                about = f"|C| of each two bits, {data}{name.replace('-', ' ')}"
                draw = _drawing(plot_correlation, every[share])
                pictures.append(Picture(f"{key}-{data}{name}", about, draw))
    few = (
        "Ten classes at most differ in so many bits that even independent codewords for them have "
        "an mAC of 0.27: 100 classes tell more.",
    )
    return Section(
        key,
        title,
        caption,
        (*_differences(sheet), *few),
        ("set", "method", "margin"),
        tuple(f"{what}, {bits} bits" for what in ("mAC", "mAP") for bits in MAC_BITS),
        tuple(rows),
        tuple(pictures),
    )


def shared(sheet: Sheet) -> Section:
    """Table 2."""
    plan = sheet.plan
    rows = [
        published(("ImageNet-100, published", layer), values, 4)
        for layer, values in paper.EDSH_SHARED.items()
    ]
    bits = 2 * SUB_BITS if plan.schedule == "quick" else 96
    for stage in plan.stages:
        figures = []
        for loss in LOSSES:
            found = sheet.evaluations(
                "ensemble",
                plan.images,
                bits,
                epochs=plan.image_epochs,
                items=plan.image_items,
                database=plan.image_database,
                freeze=None if stage == "none" else stage,
                changes=(("loss", loss),),
            )
            figures.append(found.figure(lambda e: e.mean_average_precision.value, 4))
        rows.append(Row((plan.images, stage), tuple(figures)))
    few = f"{plan.image_items:,} images to train on, " if plan.image_items else ""
    few += f"{plan.image_database:,} to search, " if plan.image_database else ""
    mine = f"{bits // SUB_BITS} sub-models of {SUB_BITS} bits, the paper's are 6"
    differences = [f"{few}{plan.image_epochs} epochs; {mine}."]
    if not plan.pretrained:
        differences.append(
            "Layers that are frozen have random weights, where the paper's come from ImageNet: "
            "this shows that the table is made, not what sharing costs."
        )
    return Section(
        "edsh-2",
        "EDSH, Table 2: how many layers to share",
        "mAP by the last layer that all sub-models share and that is not trained.",
        (*differences, *settings.of_data(plan, plan.images), settings.TIES),
        ("set", "shared up to"),
        LOSSES,
        tuple(rows),
    )


def curves(sheet: Sheet) -> Section:
    """Figure 5."""
    rows, pictures = [], []
    for data in sheet.plan.data:
        every: list[Evaluation] = []
        for bits in _bits(sheet):
            for method in DEEP:
                found = _of(sheet, method, data, bits)
                every += found.values
                at = (100, 1000)
                figures = tuple(found.figure(_precision(n), 3) for n in at)
                rows.append(Row((data, str(bits), method), figures))
        if every:
            draw = _drawing(plot_precision_recall, every)
            pictures.append(Picture(f"edsh-f5-{data}", f"precision and recall, {data}", draw))
    return Section(
        "edsh-f5",
        "EDSH, Figure 5: precision and recall of the nets",
        "The paper has pictures without numbers.",
        (*_differences(sheet), settings.TIES),
        ("set", "bits", "method"),
        ("precision@100", "precision@1,000"),
        tuple(rows),
        tuple(pictures),
    )


def growing(sheet: Sheet) -> Section:
    """Incremental bits."""
    rows = []
    for data in sheet.plan.data:
        lengths = _lengths(sheet)
        whole = lengths[-1]
        grown = sheet.steps("ensemble", data, whole, grown=lengths[:-1])
        stayed = grown.figure(lambda fit: float(fit["prefixes_stayed"]), 0)
        for at, bits in enumerate(lengths):
            alone = bits in sheet.plan.bits
            figures = (
                _of(sheet, "ensemble", data, bits).figure(
                    lambda e: e.mean_average_precision.value, 4
                ),
                grown.figure(_step_seconds(at), 1),
                sheet.evaluations("DeepHash", data, bits).figure(
                    lambda e: e.mean_average_precision.value, 4
                )
                if alone
                else sheet.no_bits(bits),
                sheet.training("DeepHash", data, bits).figure(lambda said: said["seconds"], 1)
                if alone
                else sheet.no_bits(bits),
                Figure() if at == 0 else stayed,
            )
            rows.append(Row((data, str(bits)), figures))
    return Section(
        "edsh-bits",
        "EDSH: bits added later",
        "An ensemble grows from length to length: only new sub-models are trained, and the bits "
        "there were stay (1: the codes of 1,000 items have the shorter ones as their first bits, "
        "bit by bit). Beside it a net that is trained anew for each length.",
        (
            *_differences(sheet),
            "Seconds are of this machine, on one thread, and vary with its load.",
        ),
        ("set", "bits"),
        ("ensemble, mAP", "s for the new bits", "one net, mAP", "s from the start", "bits stayed"),
        tuple(rows),
    )


def teaching(sheet: Sheet) -> Section:
    """Incremental data."""
    rows = []
    for data in sheet.plan.data:
        bits = 64 if 64 in sheet.plan.bits else _lengths(sheet)[-1]
        found = sheet.taught("ensemble", data, bits)
        for update in range(-(-bits // SUB_BITS) + 1):
            figures = (
                found.figure(_taught(update, "old"), 4),
                found.figure(_taught(update, "new"), 4),
                found.figure(_taught(update, "seconds"), 1),
            )
            rows.append(Row((data, str(bits), str(update)), figures))
    return Section(
        "edsh-data",
        "EDSH: data that come later",
        "An ensemble learns the first half of the classes; then one sub-model after the other is "
        "trained on items of the other half alone. mAP of queries of both halves in a database of "
        "all classes. In the last row every sub-model has been trained on the new data last.",
        (*_differences(sheet), "The paper gives no figures. Its new data need not be new classes."),
        ("set", "bits", "sub-models updated"),
        ("mAP, old classes", "mAP, new classes", "s"),
        tuple(rows),
    )


def _of(
    sheet: Sheet, method: str, data: str, bits: int, share: int = SHARES[0]
) -> Found[Evaluation]:
    """Evaluations; of an ensemble the first bits of the longest."""
    changes: dict[str, Any] = {}
    if method == "ensemble":
        *grown, whole = _lengths(sheet)
        if share != SHARES[0]:
            changes["changes"] = (("margin", SUB_BITS / share),)
        return sheet.evaluations(method, data, whole, bits, grown=tuple(grown), **changes)
    if share != SHARES[0]:
        changes["changes"] = (("margin", bits / share),)
    return sheet.evaluations(method, data, bits, **changes)


def _lengths(sheet: Sheet) -> tuple[int, ...]:
    """Of the ensemble that grows: those of the plan; on the way to a single one its half and its
    quarter, which cost nothing."""
    asked = _bits(sheet) or [max(sheet.plan.bits)]
    whole = asked[-1]
    steps = [whole // share for share in (4, 2) if whole % (share * SUB_BITS) == 0]
    return tuple(asked if len(asked) > 1 else [*steps, whole])


def _bits(sheet: Sheet) -> list[int]:
    return [bits for bits in paper.EDSH_BITS if bits in sheet.plan.bits]


def _precision(n: int) -> Callable[[Evaluation], float | None]:
    return lambda e: dict(zip(e.ns, e.precision_at, strict=True)).get(n)


def _step_seconds(at: int) -> Callable[[dict[str, Any]], float | None]:
    return lambda fit: fit["steps"][at]["seconds"]


def _taught(update: int, what: str) -> Callable[[dict[str, Any]], float]:
    return lambda said: float(said["steps"][update][what])


def _drawing(draw: Callable[..., object], every: list[Evaluation]) -> Callable[[Any], object]:
    return lambda path: draw(every, path)


def _differences(sheet: Sheet) -> tuple[str, ...]:
    data = settings.of_data(sheet.plan, *sheet.plan.data)
    return (*data, settings.EDSH_MARGIN, *((settings.SPREAD,) if sheet.plan.seeds > 1 else ()))

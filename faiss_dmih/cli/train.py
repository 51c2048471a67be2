"""`faiss-dmih train`: an encoder from labelled images."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from faiss_dmih.cli.arguments import Labels, Overwrite, SkipCorrupt, SourceName
from faiss_dmih.cli.encoding import require_torch
from faiss_dmih.cli.outputs import check_folder
from faiss_dmih.cli.sources import Source, encoder_input, open_source
from faiss_dmih.cli.splits import FILE, Drawn, draw
from faiss_dmih.cli.terminal import note, progress_bar, reported, show_facts
from faiss_dmih.data import Features, InputError, listed
from faiss_dmih.folders import atomic_folder

MARK = "encoder.json"
REQUEST = "request.json"
IMAGENET = "imagenet"


class Method(str, Enum):
    """Of the papers, and what they are compared with."""

    dmih = "dmih"
    deephash = "deephash"
    ensemble = "ensemble"
    cnnh = "cnnh"
    desh = "desh"
    dnnh = "dnnh"
    drsch = "drsch"
    orthohash = "orthohash"


KINDS = {
    Method.dmih: "DMIH",
    Method.deephash: "DeepHash",
    Method.ensemble: "EnsembleDSH",
    Method.cnnh: "CNNH",
    Method.desh: "DeSH",
    Method.dnnh: "DNNH",
    Method.drsch: "DRSCH",
    Method.orthohash: "OrthoHash",
}
"""The classes of `faiss_dmih.encoders`."""

WITH_LOSSES = (Method.dmih, Method.deephash, Method.ensemble)
"""Whose losses can be chosen; the others have one of their own."""
WITHOUT_MARGIN = (Method.cnnh, Method.orthohash)


class Ablation(str, Enum):
    """What is left of DMIH's balance terms."""

    feature = "feature-level"
    instance = "instance-level"


class Log(str, Enum):
    """Where the figures of each epoch go."""

    csv = "csv"
    tensorboard = "tensorboard"
    none = "none"


@dataclass(frozen=True)
class _Request:
    """The options that decide what is trained."""

    method: str
    bits: int
    backbone: str
    weights: str | None
    freeze: str | None
    n: int
    sub_bits: int | None
    vary: bool
    loss: str
    margin: float | None
    psi: float
    phi: float
    epochs: int
    batch_size: int
    learning_rate: float
    patience: int | None
    seed: int


def train(
    source: SourceName,
    out: Annotated[
        Path,
        typer.Option(help="Folder for the encoder, the split and the logs.", show_default=False),
    ],
    method: Annotated[
        Method,
        typer.Option(
            help="dmih: balanced over hash tables; deephash: the same without the balance terms; "
            "ensemble: a net for each 16 bits; cnnh, desh, dnnh, drsch, orthohash: what others "
            "have published."
        ),
    ] = Method.dmih,
    bits: Annotated[int, typer.Option(help="Bits of a code, a multiple of 8.")] = 64,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="alexnet, resnet18, resnet50, squeezenet1_0, small (28 to 64 pixels), or "
            "features. [default: small; for vectors: features]"
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help=f"Pre-trained weights of the backbone: {IMAGENET} (torchvision's, downloaded), or "
            "a .npz or .safetensors file."
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(help="Stage of the backbone up to which nothing is trained, such as conv5."),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training items, at most.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Items of a batch.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW, at the start.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of everything random in training.")] = 0,
    n: Annotated[
        int | None,
        typer.Option(
            help="Codes expected in the index, by which its tables are cut (not for ensemble). "
            "[default: the items of the database]"
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="triplet or pairwise, of dmih, deephash, ensemble. [default: triplet]"),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="In bits. [default: an eighth of those of a net; desh half of them]"),
    ] = None,
    psi: Annotated[
        float | None,
        typer.Option(help="Weight of the feature-level term. [default: dmih 0.1, others 0]"),
    ] = None,
    phi: Annotated[
        float | None,
        typer.Option(help="Weight of the instance-level term. [default: dmih 0.2, others 0]"),
    ] = None,
    ablation: Annotated[
        Ablation | None,
        typer.Option(help="Keep this one of the two terms, with its weight, and drop the other."),
    ] = None,
    sub_bits: Annotated[
        int | None, typer.Option(help="With ensemble: bits of a net. [default: 16]")
    ] = None,
    vary: Annotated[
        bool, typer.Option("--vary", help="With ensemble: every second net with half the units.")
    ] = False,
    workers: Annotated[
        int, typer.Option(help="With ensemble: processes that train side by side, same result.")
    ] = 1,
    validation: Annotated[
        float, typer.Option(help="Share of the training items that is held back for validation.")
    ] = 0.0,
    patience: Annotated[
        int | None,
        typer.Option(help="Epochs without a better loss on those, after which training stops."),
    ] = None,
    queries_per_class: Annotated[
        int | None,
        typer.Option(
            help="Items of each class that are queries. [default: named sets by the papers' "
            "protocol, otherwise a tenth]"
        ),
    ] = None,
    train_per_class: Annotated[
        int | None,
        typer.Option(help="Items of each class to train on. [default: all that are not queries]"),
    ] = None,
    split_seed: Annotated[
        int, typer.Option(help="Of the split alone: equal for encoders to be compared.")
    ] = 0,
    labels: Labels = None,
    skip_corrupt: SkipCorrupt = False,
    log: Annotated[Log, typer.Option(help="Figures of each epoch, in OUT/log.")] = Log.csv,
    overwrite: Overwrite = False,
) -> None:
    """Train an encoder on labelled images or vectors.

    Draws queries, which are never trained on, and writes the encoder into --out together with
    split.json, by which `evaluate` asks for the same queries. A training that was stopped goes on
    from its last epoch when the same command is given again.
    """
    console, errors = Console(), Console(stderr=True)
    with reported():
        target = check_folder(out, MARK, overwrite)
        require_torch()
        from faiss_dmih import encoders

        _check(method, n=n, sub_bits=sub_bits, vary=vary, workers=workers)
        if method not in WITH_LOSSES:
            _check_loss(method, loss=loss, psi=psi, phi=phi, ablation=ablation, margin=margin)
        if patience is not None and not validation:
            raise InputError("--patience needs items to look at: give --validation 0.1 or so, too")
        with progress_bar(console) as progress:
            data = open_source(source, labels=labels, skip_corrupt=skip_corrupt, progress=progress)
        if data.items.skipped:
            note(errors, listed(data.items.skipped))
        drawn = draw(
            data,
            seed=split_seed,
            queries_per_class=queries_per_class,
            train_per_class=train_per_class,
            validation=validation,
        )
        copies = len(drawn.split.duplicates(data.whole))
        if copies:
            note(errors, f"{copies:,} exact copies of queries are in the database: mAP flatters")
        vectors = isinstance(data.items, Features)
        weight = partial(_weight, balanced=method is Method.dmih, kept=ablation)
        usual = encoders.DMIH.default_objective
        request = _Request(
            method=method.value,
            bits=bits,
            backbone=backbone or ("features" if vectors else "small"),
            weights=weights,
            freeze=freeze,
            n=len(drawn.split.database) if n is None else n,
            sub_bits=sub_bits,
            vary=vary,
            loss=_loss(method, loss),
            margin=margin,
            psi=weight(psi, usual.feature_weight, mine=Ablation.feature),
            phi=weight(phi, usual.instance_weight, mine=Ablation.instance),
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            patience=patience,
            seed=seed,
        )
        unfinished = target.with_name(f"{target.name}.training")
        encoder = _encoder(
            request,
            folder=unfinished,
            workers=workers,
            log=None if log is Log.none else log.value,
            progress=console.is_terminal,
        )
        _take_up(unfinished, request, drawn, overwrite, errors)
        started = time.perf_counter()
        _fit(encoder, data, drawn, unfinished, takes_vectors=request.backbone == "features")
        seconds = time.perf_counter() - started
        said = {**vars(request), "source": data.spec, "seconds": round(seconds, 1)}
        said["skipped"] = [list(pair) for pair in data.items.skipped]
        with atomic_folder(target) as scratch:
            encoder.save(scratch)
            drawn.save(scratch / FILE)
            (scratch / "training.json").write_text(json.dumps(said, indent=2) + "\n")
            logs = shutil.ignore_patterns("*.ckpt", REQUEST, FILE, "hparams.yaml")
            shutil.copytree(unfinished, scratch / "log", ignore=logs)
        shutil.rmtree(unfinished)
        show_facts(console, _facts(encoder, request, data, drawn, seconds, out))


def _check(
    method: Method, *, n: int | None, sub_bits: int | None, vary: bool, workers: int
) -> None:
    if n is not None and n < 1:
        raise InputError(f"--n {n}: expected at least 1")
    if workers < 1:
        raise InputError(f"--workers {workers}: expected at least 1")
    if method is Method.ensemble and n is not None:
        raise InputError("--n cuts the tables of one net; an ensemble's are its nets'")
    if method is not Method.ensemble:
        for option, given in (
            ("--sub-bits", sub_bits is not None),
            ("--vary", vary),
            ("--workers", workers > 1),
        ):
            if given:
                raise InputError(f"{option} goes with --method ensemble, not with {method.value}")


def _check_loss(method: Method, **given: object) -> None:
    """That a method's own loss is left alone; a margin in bits goes with those that have one."""
    for option, value in given.items():
        if value is not None and (option != "margin" or method in WITHOUT_MARGIN):
            raise InputError(f"--{option}: {method.value} has a loss of its own; leave it out")


def _loss(method: Method, given: str | None) -> str:
    """The name of the main term."""
    if method in WITH_LOSSES:
        if given not in (None, "triplet", "pairwise"):
            raise InputError(f"--loss: unknown loss {given!r}, expected triplet or pairwise")
        return given or "triplet"
    from faiss_dmih import encoders

    kind: Any = getattr(encoders, KINDS[method])
    return str(kind.objective_for(8).loss)


def _weight(
    given: float | None, usual: float, *, balanced: bool, kept: Ablation | None, mine: Ablation
) -> float:
    """Of one of the balance terms: `usual` if it is wanted and no weight was given."""
    if kept is None or kept is mine:
        return (usual if balanced or kept is mine else 0.0) if given is None else given
    if given:
        raise InputError(f"--ablation {kept.value} drops the other term, whose weight is {given:g}")
    return 0.0


def _take_up(
    folder: Path, request: _Request, drawn: Drawn, overwrite: bool, errors: Console
) -> None:
    """A folder for checkpoints: that of the same training, if it was stopped, or a new one."""
    wanted = {**vars(request), "identity": drawn.identity, "train": drawn.split.train.tolist()}
    if folder.exists():
        try:
            before = json.loads((folder / REQUEST).read_text())
        except (OSError, ValueError):
            raise InputError(f"{folder} is in the way of checkpoints: move it") from None
        if before == wanted:
            # The logger begins anew; what it wrote before goes beside it.
            for metrics in list(folder.rglob("metrics.csv")):
                earlier = len(list(metrics.parent.glob("metrics-*.csv")))
                metrics.rename(metrics.with_name(f"metrics-{earlier}.csv"))
            note(errors, f"going on with the training that was stopped, in {folder}")
            return
        if not overwrite:
            others = [key for key in wanted if before.get(key) != wanted[key]]
            raise InputError(
                f"{folder} holds a training that was stopped, with other options "
                f"({', '.join(others)}): give those to go on, or --overwrite to drop it"
            )
        shutil.rmtree(folder)
    with atomic_folder(folder) as scratch:
        (scratch / REQUEST).write_text(json.dumps(wanted))


def _encoder(
    request: _Request, *, folder: Path, workers: int, log: str | None, progress: bool
) -> Any:
    from faiss_dmih import encoders
    from faiss_dmih.encoders import Objective, Training

    method = Method(request.method)
    kind: Any = getattr(encoders, KINDS[method])
    training = Training(
        epochs=request.epochs,
        batch_size=request.batch_size,
        learning_rate=request.learning_rate,
        seed=request.seed,
        patience=request.patience,
        folder=folder,
        log=log,
        progress=progress,
    )
    if method in WITH_LOSSES:
        objective = Objective(
            loss=request.loss,
            margin=request.margin,
            feature_weight=request.psi,
            instance_weight=request.phi,
        )
    else:
        objective = kind.objective_for(request.bits)
        if request.margin is not None:
            objective = replace(objective, margin=request.margin)
    options: dict[str, Any] = {
        "backbone": request.backbone,
        "freeze": request.freeze,
        "pretrained": request.weights == IMAGENET or request.weights or False,
        "objective": objective,
        "training": training,
    }
    if method is Method.ensemble:
        sub_bits = 16 if request.sub_bits is None else request.sub_bits
        return kind(request.bits, sub_bits=sub_bits, vary=request.vary, workers=workers, **options)
    return kind(request.bits, n=request.n, **options)


def _fit(encoder: Any, data: Source, drawn: Drawn, folder: Path, *, takes_vectors: bool) -> None:
    who = "the backbone" if not takes_vectors else "--backbone features"

    def chosen(rows: Any) -> tuple[Any, Any]:
        items = data.whole[rows]
        return encoder_input(items, vectors=takes_vectors, who=who), items.known_labels

    try:
        held_out = chosen(drawn.split.validation) if len(drawn.split.validation) else None
        encoder.fit(*chosen(drawn.split.train), validation=held_out)
    except BaseException as error:
        kept = any(folder.rglob("*.ckpt"))
        if not kept:
            shutil.rmtree(folder)
        if not isinstance(error, KeyboardInterrupt | SystemExit):  # Lightning exits on Ctrl-C
            raise
        raise KeyboardInterrupt(
            f"stopped; the same command goes on from the last whole epoch, kept in {folder}"
            if kept
            else "stopped before the first epoch was over; nothing is kept"
        ) from None


def _facts(
    encoder: Any, request: _Request, data: Source, drawn: Drawn, seconds: float, out: Path
) -> dict[str, str]:
    parts = drawn.split
    frozen = f", frozen up to {request.freeze}" if request.freeze else ""
    skipped = f", {len(data.items.skipped):,} skipped" if data.items.skipped else ""
    terms = [request.loss, *(f"{request.psi:g} psi",) * (request.psi > 0)]
    terms += (f"{request.phi:g} phi",) * (request.phi > 0)
    held_back = f", validation {len(parts.validation):,}" if len(parts.validation) else ""
    tables = ", ".join(map(str, encoder.cuts))
    return {
        "encoder": f"{type(encoder).__name__}, {encoder.bits} bits, tables of {tables}",
        "net": request.backbone + frozen + (f", {request.weights}" if request.weights else ""),
        "loss": " + ".join(terms),
        "data": f"{data.spec}: {len(data.items):,} items, {len(data.whole.classes)} classes"
        f"{skipped}",
        "split": f"database {len(parts.database):,}, of them trained on {len(parts.train):,}"
        f"{held_back}; queries {len(parts.queries):,}",
        "trained": f"{seconds:.0f} s, at most {request.epochs} epochs",
        "written": str(out),
    }

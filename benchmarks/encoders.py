"""What balanced codes and ensembles are worth: the two papers' claims, over several seeds.

    export FAISS_DMIH_DATA=~/data
    python benchmarks/encoders.py --out encoders-out
    python benchmarks/encoders.py --out encoders-out --only features --seeds 3

Needs the extras train and bench, and the data sets cifar10-features, cifar10-jpeg and
tiny-imagenet-100 of docs/methods.md. Each cell is one training; its record is written to `cells/`
as soon as it is done, and is taken up again. At the end all records become encoders.json,
encoders.md and encoders.png.

choice    CIFAR-10, 512 pooled activations, a net of one hidden layer, 64 bits: DeepHash and DMIH by
          margin and weights, on validation images, seed 0. What is the default was chosen by this.
features  the same data, queries: DeepHash, DMIH, its ablations, the ensemble with either loss.
small     CIFAR-10's images, the small convolutional net, 64 bits: DeepHash and DMIH.
ensemble  100 classes of Tiny ImageNet, pooled activations: a net for each length, and one ensemble
          of 128 bits, whose first sub-models make the shorter codes, by margin.

Searches (of features) are timed as in `faiss-dmih bench`: in turns, all queries in one call, ratios
within a round; on one thread, which tells more on a busy machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from faiss_dmih import IndexDMIH
from faiss_dmih.bench.machine import Bystanders, describe
from faiss_dmih.bench.protocol import Entrant, Protocol, race
from faiss_dmih.bench.questions import Nearest
from faiss_dmih.data import Features, labelled, paper_split
from faiss_dmih.encoders import DMIH, DeepHash, EnsembleDSH, Training
from faiss_dmih.encoders.objective import Objective
from faiss_dmih.metrics.evaluation import evaluate

PARTS = ("choice", "features", "small", "ensemble")
BITS = 64
LENGTHS = (64, 128)
TINY = "tiny-imagenet-100"
VIEWS = 1_000_000
VALIDATION = 1_000
BALANCED = DMIH.default_objective


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training, and what is asked of its codes."""

    part: str
    method: str
    seed: int
    make: Callable[[Training, int], Any]
    """The encoder, of a training and the number of items in the database."""
    epochs: int
    data: str = "cifar10-features"
    lengths: tuple[int, ...] = (BITS,)
    timed: bool = True

    @property
    def name(self) -> str:
        return f"{self.part}-{self.method}-{self.seed}".replace(" ", "_").replace("/", "_")


def cells(seeds: int) -> Iterator[Cell]:
    """All of them, in the order in which they are done."""
    for margin in (32, 16, 8, 4):
        for psi, phi in ((0, 0), (0.1, 0.1), (0.1, 0.2)):
            chosen = Objective(margin=margin, feature_weight=psi, instance_weight=phi)
            method = f"margin l/{BITS // margin}, psi {psi}, phi {phi}"
            yield Cell("choice", method, 0, single(DMIH, BITS, chosen), 20, timed=False)
    psi, phi = BALANCED.feature_weight, BALANCED.instance_weight
    for seed in range(seeds):
        for method, make in {
            "DeepHash": single(DeepHash, BITS),
            "feature level": single(DMIH, BITS, Objective(feature_weight=psi)),
            "instance level": single(DMIH, BITS, Objective(instance_weight=phi)),
            "DMIH": single(DMIH, BITS),
            "ensemble": ensemble(BITS),
            "ensemble, DMIH's loss": ensemble(BITS, BALANCED),
        }.items():
            yield Cell("features", method, seed, make, 20)
    for seed in range(seeds):
        for share in (8, 4, 2):
            margin = f"margin l/{share}"
            for bits in LENGTHS:
                chosen = Objective(margin=bits / share)
                make = single(DMIH, bits, chosen, cuts=[16] * (bits // 16))
                yield Cell(
                    "ensemble", f"one net, {margin}, {bits}", seed, make, 20, TINY, (bits,), False
                )
            make = ensemble(LENGTHS[-1], Objective(margin=16 / share))
            yield Cell("ensemble", f"ensemble, {margin}", seed, make, 20, TINY, LENGTHS, False)
    for seed in range(min(seeds, 3)):
        for method, kind in {"DeepHash": DeepHash, "DMIH": DMIH}.items():
            make = single(kind, BITS, backbone="small")
            yield Cell("small", method, seed, make, 10, "cifar10-jpeg", timed=False)


def single(
    kind: Any,
    bits: int,
    objective: Objective | None = None,
    *,
    cuts: Sequence[int] | None = None,
    backbone: str = "features",
) -> Callable[[Training, int], Any]:
    """One net."""
    return lambda training, n: kind(
        bits, n=n, cuts=cuts, backbone=backbone, objective=objective, training=training
    )


def ensemble(bits: int, objective: Objective | None = None) -> Callable[[Training, int], Any]:
    """Sub-models of 16 bits."""
    return lambda training, n: EnsembleDSH(
        bits, backbone="features", objective=objective, training=training
    )


@cache
def load(name: str, weights: Path | None, out: Path) -> tuple[Any, Any, Any]:
    """The labelled set, and what nets take: vectors, or images."""
    items = labelled(name)
    if isinstance(items, Features):
        return items, items.vectors, items.known_labels
    if name != TINY:
        return items, np.stack(list(items)), items.known_labels
    kept = out / "tiny-imagenet-100-features.npy"
    if not kept.exists():
        np.save(kept, activations(items, weights))
    return items, np.load(kept), items.known_labels


def activations(items: Any, weights: Path | None) -> Any:
    """Means over all positions of SqueezeNet's last fire module, of images of 64 pixels."""
    pretrained = True if weights is None else str(weights)
    net = DeepHash(8, backbone="squeezenet1_0", freeze="fire9", pretrained=pretrained)
    net.trunk, _ = net.architecture.build(8)
    net.trunk.preprocessing = dataclasses.replace(net.trunk.preprocessing, size=64)
    batches = (range(at, min(at + 250, len(items))) for at in range(0, len(items), 250))
    return np.concatenate(
        [net.trunk(torch.from_numpy(np.stack([items[i] for i in at]))).numpy() for at in batches]
    )


def run(cell: Cell, weights: Path | None, out: Path) -> dict[str, Any]:
    """Trains, encodes, evaluates, searches."""
    items, x, labels = load(cell.data, weights, out)
    on_validation = cell.part == "choice"
    parts = paper_split(items, seed=cell.seed, validation=VALIDATION if on_validation else 0)
    queries, database = parts.queries, parts.database
    if on_validation:
        queries, database = parts.validation, np.setdiff1d(database, parts.validation)
    encoder = cell.make(Training(epochs=cell.epochs, seed=cell.seed, progress=False), len(database))
    start = time.perf_counter()
    encoder.fit(x[parts.train], labels[parts.train])
    record: dict[str, Any] = {
        "part": cell.part,
        "method": cell.method,
        "seed": cell.seed,
        "epochs": cell.epochs,
        "training_seconds": round(time.perf_counter() - start, 1),
        "codes": [],
    }
    xb, xq = encoder.encode(x[database]), encoder.encode(x[queries])
    for bits in cell.lengths:
        cuts = encoder.cuts if bits == encoder.bits else [16] * (bits // 16)
        found = evaluate(
            xb[:, : bits // 8], xq[:, : bits // 8], labels[database], labels[queries], cuts
        )
        record["codes"].append(figures(found))
    if cell.timed:
        rng = np.random.default_rng(cell.seed)
        record["searches"] = {
            "images": searches(xb, xq, encoder.cuts),
            "views": searches(views(xb, VIEWS, rng), xq, None),
        }
    return record


def figures(e: Any) -> dict[str, Any]:
    """Those of an evaluation that are recorded."""
    ap = e.mean_average_precision
    return {
        "bits": e.bits,
        "n": e.n,
        "distinct": e.distinct,
        "mAP": ap.value,
        "mAP_worst_ties": ap.lowest,
        "mAP_best_ties": ap.highest,
        "entropy_nats": e.entropy,
        "entropy_bits": e.entropy_bits,
        "mAC": e.mean_absolute_correlation,
        "constant_bits": e.constant_bits,
        **{f"candidates_{k}": c for k, c in zip(e.ks, e.candidates, strict=True)},
        **{f"buckets_{k}": c for k, c in zip(e.ks, e.buckets, strict=True)},
    }


def views(codes: Any, n: int, rng: Any) -> Any:
    """n codes, each an image's with 1 in 32 bits flipped, as those of views of it would be."""
    noise = rng.random((n, 8 * codes.shape[1])) < 1 / 32
    return codes[rng.integers(0, len(codes), n)] ^ np.packbits(noise, axis=1, bitorder="little")


def searches(xb: Any, xq: Any, cuts: Any) -> dict[str, Any]:
    """The nearest neighbour by four indexes: times over IndexBinaryFlat's and over our scan's."""
    d = 8 * xb.shape[1]
    indexes = {
        "flat": faiss.IndexBinaryFlat(d),
        "scan": IndexDMIH(d, mode="scan"),
        "mih": IndexDMIH(d, mode="mih", cuts=cuts),
        "auto": IndexDMIH(d, cuts=cuts),
    }
    question = Nearest(1)
    for index in indexes.values():
        index.add(xb)
    entrants = [
        Entrant(name, question.put_to(index), lambda: None) for name, index in indexes.items()
    ]
    bystanders = Bystanders()
    protocol = Protocol(
        cell_seconds=4.0, min_batch_queries=len(xq), min_rounds=5, warm_seconds=0.02
    )
    timings = race(entrants, xq, len(xq), protocol, question.join)
    seconds = {}
    for entrant, timing in zip(entrants, timings, strict=True):
        if timing.error or timing.nq != len(xq):
            raise RuntimeError(f"{entrant.name}: {timing.error or f'{timing.nq} queries only'}")
        for answer in timing.answers:
            if wrong := question.difference(answer, timings[0].answers[0]):
                raise RuntimeError(f"{entrant.name}: {wrong}")
        seconds[entrant.name] = np.array(timing.seconds)
    return {
        "us_per_query": {name: 1e6 * float(np.median(s)) for name, s in seconds.items()},
        "over_flat": {n: ratio(seconds["flat"], s) for n, s in seconds.items() if n != "flat"},
        "over_scan": {n: ratio(seconds["scan"], seconds[n]) for n in ("mih", "auto")},
        "bystanders": bystanders.cores(),
    }


def ratio(slow: Any, fast: Any) -> list[float]:
    """Median, least and greatest over the rounds that both took part in."""
    rounds = min(len(slow), len(fast))
    by_round = slow[:rounds] / fast[:rounds]
    return [round(float(f(by_round)), 3) for f in (np.median, np.min, np.max)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=PARTS, action="append", help="these parts")
    parser.add_argument("--seeds", type=int, default=5, help="of small at most 3")
    parser.add_argument("--weights", type=Path, help="of SqueezeNet 1.0, instead of a download")
    options = parser.parse_args()
    (options.out / "cells").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # the same codes on any number of cores
    faiss.omp_set_num_threads(1)
    # Lightning's advice on workers and devices.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    wanted = [c for c in cells(options.seeds) if c.part in (options.only or PARTS)]
    records = []
    for number, cell in enumerate(wanted, 1):
        path = options.out / "cells" / f"{cell.name}.json"
        if not path.exists():
            began = time.perf_counter()
            record = run(cell, options.weights, options.out)
            path.write_text(json.dumps(record, indent=1) + "\n")
            took = time.perf_counter() - began
            print(
                f"{number}/{len(wanted)} {cell.part}, {cell.method}, seed {cell.seed}: {took:.0f} s"
            )
        records.append(json.loads(path.read_text()))
    from encoders_report import markdown, plot

    whole = {"format": "encoders 1", "machine": dataclasses.asdict(describe()), "cells": records}
    (options.out / "encoders.json").write_text(json.dumps(whole, indent=1) + "\n")
    (options.out / "encoders.md").write_text(markdown(records))
    plot(records, options.out / "encoders.png")
    print(markdown(records))


if __name__ == "__main__":
    main()

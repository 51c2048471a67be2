"""The kinds of work: activations, trainings, codes, evaluations, times, learning from new data."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from faiss_dmih.data import Features
from faiss_dmih.metrics import mean_average_precision
from faiss_dmih.metrics.evaluation import Evaluation, evaluate
from faiss_dmih.options import paper_cuts
from faiss_dmih.tables.models import RATES, SIZES, Model
from faiss_dmih.tables.sets import DERIVED
from faiss_dmih.tables.timing import KEPT, protocol, searches, views
from faiss_dmih.tables.trainings import (
    changes_of,
    inputs,
    load_codes,
    make_encoder,
    partition_identity,
    read,
    rearranged,
    training_data,
    write,
)
from faiss_dmih.tables.work import Key, NotRun, Work, Workshop

NS = (1, 10, *range(100, 1001, 100))
KS = (1, 10, 100)
_PREFIX_CHECKED = 1_000
_FIGURES = tuple(f"metrics/{name}.py" for name in ("bits", "evaluation", "ranking", "tables"))
"""What figures are computed by; pictures may change without them."""
_NETS = ("encoders", "similarity.py", "tables/trainings.py")


@dataclass(frozen=True)
class OfModel(Work):
    """Work about one training."""

    model: Model

    @property
    def data(self) -> str:
        return self.model.data


@dataclass(frozen=True)
class Activations(Work):
    """vectors.npy float32 (n, dim): those of a set of `DERIVED`."""

    name: str
    kind = "activations"
    sources = ("encoders/backbones.py", "encoders/nets.py", "tables/sets.py")

    @property
    def title(self) -> str:
        return f"activations, {self.name}"

    @property
    def data(self) -> str:
        return self.name

    @property
    def seconds(self) -> float:
        images = SIZES.get(DERIVED[self.name].images, 60_000)
        return images / RATES.get(DERIVED[self.name].backbone, 100)

    def key(self, shop: Workshop) -> Key:
        said = DERIVED[self.name]
        return {
            **asdict(said),
            "identity": shop.sets.identity(said.images),
            "weights": shop.sets.weights_identity(said.backbone),
        }

    def do(self, shop: Workshop, folder: Path) -> None:
        from faiss_dmih.encoders import DeepHash
        from faiss_dmih.encoders.devices import device_of
        from faiss_dmih.encoders.items import Items as Batches

        said = DERIVED[self.name]
        items = shop.sets.open(said.images)
        net = DeepHash(
            8,
            backbone=said.backbone,
            freeze=said.stage,
            pretrained=shop.sets.pretrained(said.backbone),
        )
        trunk, _ = net.architecture.build(8)
        trunk.preprocessing = replace(trunk.preprocessing, size=said.size)
        device = device_of("auto")
        trunk = trunk.on(device)
        vectors = None  # in a file, as they may be more than the memory holds
        for span, batch in Batches(items, said.size).batches(250):
            shop.progress(self.title, span.start, len(items))
            found = trunk(batch.to(device))
            found = (found.mean(dim=(2, 3)) if found.ndim == 4 else found).cpu().numpy()
            if vectors is None:
                shape = len(items), found.shape[1]
                path = folder / "vectors.npy"
                vectors = np.lib.format.open_memmap(path, "w+", np.float32, shape)
            vectors[span.start : span.stop] = found


@dataclass(frozen=True)
class Fit(OfModel):
    """An encoder in `encoder`, and fit.json: seconds of each step, unless it was resumed."""

    kind = "encoders"
    sources = _NETS

    @property
    def title(self) -> str:
        return f"train {self.model.title}"

    @property
    def needs(self) -> Sequence[Work]:
        return _derived(self.model)

    @property
    def seconds(self) -> float:
        return self.model.seconds

    def key(self, shop: Workshop) -> Key:
        import torch

        return {
            "model": {**asdict(self.model), "changes": [list(p) for p in changes_of(self.model)]},
            "data": shop.sets.identity(self.model.data),
            "split": _split_of(shop, self.model),
            "torch": torch.__version__,
            "weights": shop.sets.weights_identity(self.model.backbone)
            if self.model.pretrained
            else "",
        }

    def do(self, shop: Workshop, folder: Path) -> None:
        x, labels, parts = training_data(shop, self.model)
        n = len(parts.database)
        unfinished = shop.unfinished(self)
        resumed = unfinished.exists()
        encoder = make_encoder(self.model, n, unfinished, shop)
        steps, same, before = [], True, None
        for bits in (*self.model.grown, self.model.bits):
            began = time.perf_counter()
            if before is None:
                encoder.fit(x, labels)
            else:
                encoder.extend(bits, x, labels)
            seconds = round(time.perf_counter() - began, 2)
            steps.append({"bits": bits, "seconds": None if resumed else seconds})
            if self.model.grown:
                now = encoder.encode(x[:_PREFIX_CHECKED])
                if before is not None:
                    same = same and bool((now[:, : before.shape[1]] == before).all())
                before = now
        encoder.save(folder / "encoder")
        write(folder / "fit.json", {"steps": steps, "prefixes_stayed": same})
        shutil.rmtree(unfinished, ignore_errors=True)


@dataclass(frozen=True)
class Codes(OfModel):
    """codes.npz: xb, xq, and labels yb, yq; codes.json: cuts, seconds of training."""

    kind = "codes"
    sources = ("baselines", "tables/trainings.py")

    @property
    def title(self) -> str:
        return f"{'train' if self.model.how.takes_vectors else 'encode'} {self.model.title}"

    @property
    def needs(self) -> Sequence[Work]:
        derived = _derived(self.model)
        return derived if self.model.how.takes_vectors else (*derived, Fit(self.model))

    @property
    def seconds(self) -> float:
        if self.model.how.takes_vectors:
            return self.model.seconds + 1
        if self.model.on_vectors:
            return 2.0
        images = self.model.database or SIZES.get(self.model.data, 60_000)
        return 1 + images / RATES.get(self.model.backbone, 100)

    def key(self, shop: Workshop) -> Key:
        import sklearn

        return {
            "model": {**asdict(self.model), "changes": [list(p) for p in self.model.changes]},
            "data": shop.sets.identity(self.model.data),
            "split": _split_of(shop, self.model),
            "sklearn": sklearn.__version__,
        }

    def do(self, shop: Workshop, folder: Path) -> None:
        model = self.model
        items = shop.sets.open(model.data)
        parts = shop.sets.split(model)
        if model.how.takes_vectors:
            from faiss_dmih import baselines

            if not isinstance(items, Features):
                raise NotRun(f"{model.method} takes vectors, and {model.data} holds images")
            hashing = getattr(baselines, model.how.kind)(model.bits, random_state=model.seed)
            began = time.perf_counter()
            hashing.fit(items[parts.train].vectors, items[parts.train].known_labels)
            said: Key = {"seconds": round(time.perf_counter() - began, 2)}
            encode, cuts = hashing.transform, paper_cuts(model.bits, len(parts.database))
        else:
            from faiss_dmih.encoders import load_encoder

            fit = shop.folder(Fit(model))
            encoder = load_encoder(fit / "encoder")
            steps = [step["seconds"] for step in read(fit / "fit.json")["steps"]]
            said = {"seconds": None if None in steps else sum(steps)}
            encode, cuts = encoder.encode, encoder.cuts
        xb, xq = (encode(inputs(items[rows])) for rows in (parts.database, parts.queries))
        yb, yq = (items[rows].known_labels for rows in (parts.database, parts.queries))
        np.savez(folder / "codes.npz", xb=xb, xq=xq, yb=yb, yq=yq)
        write(folder / "codes.json", {**said, "cuts": list(cuts)})


@dataclass(frozen=True)
class Evaluated(OfModel):
    """evaluation.json, as `metrics.evaluation` has it; of the first `bits` of an ensemble."""

    bits: int | None = None
    kind = "evaluations"
    sources = _FIGURES

    @property
    def title(self) -> str:
        first = f", first {self.bits} bits" if self.bits else ""
        return f"evaluate {self.model.title}{first}"

    @property
    def needs(self) -> Sequence[Work]:
        return (Codes(self.model),)

    @property
    def seconds(self) -> float:
        return 2.0

    def key(self, shop: Workshop) -> Key:
        return {"bits": self.bits, "ns": NS, "ks": KS, "name": self.model.method}

    def do(self, shop: Workshop, folder: Path) -> None:
        xb, xq, cuts, z = load_codes(shop.folder(Codes(self.model)), self.model, self.bits)
        found = evaluate(xb, xq, z["yb"], z["yq"], cuts, name=self.model.method, ns=NS, ks=KS)
        found.save(folder / "evaluation.json")


@dataclass(frozen=True)
class Rearranged(OfModel):
    """evaluation.json of the same codes with their bits in the order that `faiss_dmih.partition`
    learns from the database. Distances are the same; hash tables are others."""

    kind = "rearranged"
    sources = (*_FIGURES, "tables/trainings.py")

    @property
    def title(self) -> str:
        return f"evaluate {self.model.title}, rearranged"

    @property
    def needs(self) -> Sequence[Work]:
        return (Codes(self.model),)

    @property
    def seconds(self) -> float:
        return 3.0

    def key(self, shop: Workshop) -> Key:
        return {"ns": NS, "ks": KS, "order": partition_identity()}

    def do(self, shop: Workshop, folder: Path) -> None:
        xb, xq, cuts, z = load_codes(shop.folder(Codes(self.model)), self.model)
        xb, xq, cuts = rearranged(xb, xq, cuts)
        found = evaluate(xb, xq, z["yb"], z["yq"], cuts, name=self.model.method, ns=NS, ks=KS)
        found.save(folder / "evaluation.json")


@dataclass(frozen=True)
class Timed(OfModel):
    """times.json: of each k, times of plain MIH, of the index, and of its scan, over those of
    IndexBinaryFlat and of the scan.

    Args:
        ks: numbers of neighbours.
        views: a database of so many views of the items, codes with 1 in 32 bits flipped; 0: the
            items themselves.
        rearranged: with the bits in the order that `faiss_dmih.partition` learns from the database:
            data-driven multi-index hashing.
    """

    ks: tuple[int, ...]
    views: int = 0
    rearranged: bool = False
    kind = "times"
    sources = ("tables/timing.py", "bench/protocol.py")

    @property
    def title(self) -> str:
        database = f"{self.views:,} views" if self.views else "images"
        return f"time {self.model.title}, {database}{', rearranged' if self.rearranged else ''}"

    @property
    def needs(self) -> Sequence[Work]:
        return (Codes(self.model),)

    @property
    def seconds(self) -> float:
        return (8.0 if self.views else 3.5) * len(self.ks)

    def key(self, shop: Workshop) -> Key:
        from faiss_dmih.bench.archive import identity
        from faiss_dmih.bench.machine import describe

        order = partition_identity() if self.rearranged else None
        said = {"ks": self.ks, "views": self.views, "rearranged": order}
        return {**said, "protocol": asdict(protocol(1)), "machine": identity(describe())}

    def do(self, shop: Workshop, folder: Path) -> None:
        xb, xq, cuts, _ = load_codes(shop.folder(Codes(self.model)), self.model)
        if self.rearranged:
            xb, xq, cuts = rearranged(xb, xq, cuts)
        rng = np.random.default_rng(self.model.seed)
        database, used = (views(xb, self.views, rng), None) if self.views else (xb, cuts)
        write(folder / "times.json", searches(database, xq[:KEPT], used, self.ks))


@dataclass(frozen=True)
class Taught(OfModel):
    """taught.json: an ensemble learns the first half of the classes, then, one sub-model after the
    other, from items of the other half alone; mAP of queries of both halves after each update."""

    kind = "taught"
    sources = _NETS

    @property
    def title(self) -> str:
        return f"teach new classes to {self.model.title}"

    @property
    def needs(self) -> Sequence[Work]:
        return _derived(self.model)

    @property
    def seconds(self) -> float:
        return self.model.seconds + 5

    def key(self, shop: Workshop) -> Key:
        return Fit(self.model).key(shop)

    def do(self, shop: Workshop, folder: Path) -> None:
        model = self.model
        items = shop.sets.open(model.data)
        parts = shop.sets.split(model)
        if items.known_labels.ndim != 1:
            raise NotRun(f"{model.data}: items of several classes are neither old nor new")
        old = items.known_labels < len(items.classes) / 2
        encoder = make_encoder(model, len(parts.database), None, shop)
        steps: list[dict[str, float]] = []
        new = parts.train[~old[parts.train]]
        first = parts.train[old[parts.train]]
        updates = -(-model.bits // 16)
        for update in range(updates + 1):
            chosen = items[new if update else first]
            teach = encoder.update if update else encoder.fit
            began = time.perf_counter()
            teach(inputs(chosen), chosen.known_labels)
            step = {"updates": update, "seconds": round(time.perf_counter() - began, 2)}
            base = items[parts.database]
            xb = encoder.encode(inputs(base))
            for name, half in (("old", old), ("new", ~old)):
                asked = items[parts.queries[half[parts.queries]]]
                xq = encoder.encode(inputs(asked))
                ap = mean_average_precision(xb, xq, base.known_labels, asked.known_labels)
                step[name] = ap.value
            steps.append(step)
        write(folder / "taught.json", {"steps": steps})


def _derived(model: Model) -> tuple[Work, ...]:
    return (Activations(model.data),) if model.data in DERIVED else ()


def _split_of(shop: Workshop, model: Model) -> str:
    """A hash of who is a query, who is in the database, who is trained on."""
    parts = shop.sets.split(model)
    digest = hashlib.sha256()
    for name in ("database", "queries", "train"):
        digest.update(getattr(parts, name).tobytes() + b"|")
    return digest.hexdigest()[:16]


def read_evaluation(folder: Path) -> Evaluation:
    """Of `Evaluated`, and of `Rearranged`."""
    return Evaluation.load(folder / "evaluation.json")

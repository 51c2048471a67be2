"""What works share: training data, encoders, codes as they are kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from faiss_dmih.data import Features, Items, Split
from faiss_dmih.data.errors import InputError
from faiss_dmih.tables.models import Model
from faiss_dmih.tables.work import NotRun

if TYPE_CHECKING:
    from faiss_dmih.tables.work import Workshop

Codes8 = npt.NDArray[np.uint8]
_ENSEMBLE = "EnsembleDSH"
_PARTITION = "faiss_dmih.partition"


def load_codes(
    folder: Path, model: Model, bits: int | None = None
) -> tuple[Codes8, Codes8, tuple[int, ...], dict[str, Any]]:
    """Codes of database and queries, the first `bits` if given, their cuts, and the arrays."""
    with np.load(folder / "codes.npz") as file:
        z = dict(file)
    cuts = tuple(read(folder / "codes.json")["cuts"])
    if bits is None or bits == model.bits:
        return z["xb"], z["xq"], cuts, z
    ends = np.cumsum(cuts)
    if bits not in ends or bits % 8:
        raise InputError(f"got {bits} bits, expected whole sub-models of {model.title}: {ends}")
    kept = cuts[: int(np.searchsorted(ends, bits)) + 1]
    xb, xq = (np.ascontiguousarray(z[name][:, : bits // 8]) for name in ("xb", "xq"))
    return xb, xq, kept, z


def partition_identity() -> str:
    """Of the module that learns the order of bits. Raises `NotRun` where there is none."""
    found = find_spec(_PARTITION)
    if found is None or found.origin is None:
        raise NotRun(f"{_PARTITION}, which learns the order of bits, is not in this version")
    return hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()[:16]


def rearranged(
    xb: Codes8, xq: Codes8, cuts: tuple[int, ...]
) -> tuple[Codes8, Codes8, tuple[int, ...]]:
    """Codes with their bits in the learnt order, and the cuts that go with it."""
    found = import_module(_PARTITION).learn_partition(xb, len(xb), "data-driven", cuts=cuts)
    return found.permute(xb), found.permute(xq), found.cuts


def read(path: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return said


def write(path: Path, said: dict[str, Any]) -> None:
    path.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def changes_of(model: Model) -> tuple[tuple[str, Any], ...]:
    return (*model.how.changes, *model.changes)


def inputs(items: Items) -> Any:
    """What encoders take: vectors, or the images, which they decode when they need them."""
    return items.vectors if isinstance(items, Features) else items


def training_data(shop: Workshop, model: Model) -> tuple[Any, Any, Split]:
    items = shop.sets.open(model.data)
    parts = shop.sets.split(model)
    chosen = items[parts.train]
    return inputs(chosen), chosen.known_labels, parts


def make_encoder(model: Model, n: int, folder: Path | None, shop: Workshop) -> Any:
    """The encoder to be trained; checkpoints go into the folder."""
    from faiss_dmih import encoders

    kind: Any = getattr(encoders, model.how.kind)
    vectors = isinstance(shop.sets.open(model.data), Features)
    is_ensemble = model.how.kind == _ENSEMBLE
    first = (*model.grown, model.bits)[0]
    usual = encoders.Objective() if is_ensemble else kind.objective_for(model.bits)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    training = encoders.Training(
        epochs=model.epochs, seed=model.seed, folder=folder, log=None, progress=False
    )
    options: dict[str, Any] = {
        "backbone": "features" if vectors else model.backbone,
        "freeze": None if vectors else model.freeze,
        "pretrained": False
        if vectors or not model.pretrained
        else shop.sets.pretrained(model.backbone),
        "objective": replace(usual, **dict(changes_of(model))),
        "training": training,
    }
    return kind(first, **options) if is_ensemble else kind(model.bits, n=n, **options)

"""Data sets of the tables: those with a name, and activations of images of such sets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from faiss_dmih.data import Features, Images, Split, labelled, paper_split
from faiss_dmih.data.errors import DataUnavailable, NotDownloaded
from faiss_dmih.data.files import Progress, no_progress
from faiss_dmih.data.sources import Vectors
from faiss_dmih.tables.models import Model

if TYPE_CHECKING:
    from faiss_dmih.tables.work import Work

    Rows = npt.NDArray[np.int64]

_SAMPLED = 256


@dataclass(frozen=True)
class Derived:
    """Activations of the images of a set, after a stage of a backbone, averaged over positions."""

    images: str
    backbone: str
    stage: str
    size: int
    """Pixels that images are resized to."""


DERIVED: dict[str, Derived] = {
    "tiny-imagenet-100-features": Derived("tiny-imagenet-100", "squeezenet1_0", "fire9", 64)
} | {
    f"{name}-fc7": Derived(name, "alexnet", "fc7", 224)
    for name in ("cifar10", "svhn", "nus-wide", "awa2", "imagenet-100")
}


class Sets:
    """Opens sets, the last ones kept; `weights` are of SqueezeNet, instead of a download."""

    def __init__(self, weights: Path | None = None, progress: Progress = no_progress) -> None:
        self.weights, self.progress = weights, progress
        self.find_derived: Callable[[str], Path] = Path  # the workshop sets it
        self.open = lru_cache(maxsize=3)(self._open)
        self._unavailable: dict[str, DataUnavailable] = {}
        self.identity = lru_cache(maxsize=None)(self._identity)
        self._parts = lru_cache(maxsize=64)(self._drawn)

    def work_for(self, name: str) -> Work:
        from faiss_dmih.tables.jobs import Activations

        return Activations(name)

    def split(self, model: Model) -> Split:
        """The papers' split of its data, drawn by its seed. Of training items and database no more
        than the model says; with `validation` items these are the queries, and are no more in the
        database."""
        base = DERIVED[model.data].images if model.data in DERIVED else model.data
        return self._parts(base, model.seed, model.validation, model.items, model.database)

    def _drawn(
        self, base: str, seed: int, validation: int, items: int | None, most: int | None
    ) -> Split:
        """`split`, which thousands of models ask for."""
        parts = paper_split(self.open(base), seed=seed, validation=validation)
        database, queries = parts.database, parts.queries
        if validation:
            database, queries = np.setdiff1d(database, parts.validation), parts.validation
        train = _some(parts.train, items, seed)
        none = np.empty(0, np.int64)
        return Split(_some(database, most, seed), queries, train, none)

    def pretrained(self, backbone: str) -> bool | str:
        """What an encoder takes for ImageNet's weights."""
        return str(self.weights) if self.weights and backbone == "squeezenet1_0" else True

    def weights_identity(self, backbone: str) -> str:
        """Of what `pretrained` says."""
        said = self.pretrained(backbone)
        if isinstance(said, bool):
            return "torchvision's"
        return hashlib.sha256(Path(said).read_bytes()).hexdigest()[:16]

    def _open(self, name: str) -> Images | Features:
        if name not in DERIVED:
            return self._named(name)
        images = self.open(DERIVED[name].images)
        # Mapped: activations of SVHN are 10 GB, and what is asked for is copied anyway.
        vectors = np.load(self.find_derived(name) / "vectors.npy", mmap_mode="r")
        return Features.of(
            images.name,  # its protocol is that of the images
            Vectors(vectors, name),
            images.known_labels,
            images.classes,
            images.official_test,
        )

    def _named(self, name: str) -> Images | Features:
        """Once it could not be had it is not looked for again: every piece of work asks, and a
        download that fails may take seconds to do so."""
        if name in self._unavailable:
            raise self._unavailable[name]
        try:
            return labelled(name, progress=self.progress)
        except NotDownloaded:
            raise
        except DataUnavailable as error:
            self._unavailable[name] = error
            raise

    def _identity(self, name: str) -> dict[str, Any]:
        """Of a set's contents: its labels, and a sample of its items. Derived sets are known by
        the work that makes them."""
        if name in DERIVED:
            return {"derived": name}
        items = self.open(name)
        digest = hashlib.sha256(np.ascontiguousarray(items.known_labels).tobytes())
        sample = np.unique(np.linspace(0, len(items) - 1, _SAMPLED).astype(np.int64))
        for content in items[sample].content_hashes():
            digest.update(content)
        return {"name": name, "items": len(items), "contents": digest.hexdigest()[:16]}


def _some(rows: Rows, most: int | None, seed: int) -> Rows:
    """So many of them, at random."""
    if most is None or most >= len(rows):
        return rows
    return np.random.default_rng([seed, most]).permutation(rows)[:most]

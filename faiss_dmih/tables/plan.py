"""What a run is asked for: data, bits, seeds, and how long nets are trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from faiss_dmih.tables.models import METHODS, Model
from faiss_dmih.tables.sets import DERIVED


@dataclass(frozen=True)
class Plan:
    """A schedule, with what the command's options have changed of it.

    Args:
        schedule: its name.
        data: sets for the tables, instead of the papers'.
        images: the set of images on which layers are shared.
        bits: lengths of codes; a table shows those that it has a column for.
        seeds: trainings of each kind; tables show means and standard deviations.
        epochs: of nets; image_epochs: of those on images.
        image_items, sweep_items: training items of sweeps on images, and on vectors.
        image_database: items that are searched in the former.
        validation: training items of a sweep that are held back, and are its queries.
        backbone: of images.
        pretrained: whether it has ImageNet's weights.
        shared: up to where ensembles share its layers, which are not trained then.
        stages: after which its layers are frozen and shared, in turn; "none" for nowhere.
        views: databases of so many views are searched, too.
    """

    schedule: str
    data: tuple[str, ...]
    images: str
    bits: tuple[int, ...]
    seeds: int = 1
    epochs: int = 20
    image_epochs: int = 5
    image_items: int | None = 2_000
    image_database: int | None = 10_000
    sweep_items: int | None = 2_000
    backbone: str = "small"
    pretrained: bool = False
    shared: str | None = None
    stages: tuple[str, ...] = ("none", "conv1", "conv3")
    validation: int = 500
    views: int = 1_000_000

    def model(self, method: str, data: str, bits: int, seed: int, **changes: Any) -> Model:
        """A training as this plan has it: vectors for methods that take them."""
        if METHODS[method].takes_vectors and f"{data}-fc7" in DERIVED:
            data = f"{data}-fc7"
        is_ensemble = METHODS[method].kind == "EnsembleDSH"
        epochs = 0 if METHODS[method].takes_vectors else self.epochs
        usual = Model(method, data, bits, seed, epochs=epochs)
        if not usual.on_vectors:  # which have no backbone, so that schedules share their trainings
            usual = replace(
                usual,
                backbone=self.backbone,
                pretrained=self.pretrained,
                freeze=self.shared if is_ensemble else None,
            )
        return replace(usual, **changes)


SCHEDULES: dict[str, Plan] = {
    "quick": Plan("quick", ("cifar10-features",), "cifar10-jpeg", (64,)),
    "full": Plan(
        "full",
        (
            *("cifar10-features", "tiny-imagenet-100-features"),
            *("cifar10", "svhn", "nus-wide", "awa2", "imagenet-100"),
        ),
        "imagenet-100",
        (16, 32, 64, 96, 128, 256),
        seeds=3,
        image_epochs=20,
        image_items=None,
        image_database=None,
        sweep_items=None,
        backbone="alexnet",
        pretrained=True,
        shared="conv3",
        stages=("none", "conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"),
    ),
}
ABOUT = {
    "quick": "features of CIFAR-10 at hand, 64 bits, one seed; sweeps on 2,000 items",
    "full": "all sets, all lengths, three seeds, AlexNet: for a GPU, or a night",
}

"""Which methods there are, and one training of one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Changes = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Method:
    """How a method is made: a class of `faiss_dmih.baselines` if it takes vectors, else one of
    `faiss_dmih.encoders`, with `changes` of its objective."""

    kind: str
    takes_vectors: bool = False
    changes: Changes = ()
    seconds: float = 30.0
    """About what training takes on one busy core: 64 bits, 10,000 vectors, 20 epochs."""


PSI, PHI = "feature_weight", "instance_weight"

METHODS: dict[str, Method] = {
    "LSH": Method("LSH", True, seconds=0.1),
    "ITQ": Method("ITQ", True, seconds=1),
    "SH": Method("SH", True, seconds=0.3),
    "ITQ-CCA": Method("ITQCCA", True, seconds=1),
    "KSH": Method("KSH", True, seconds=30),
    "SDH": Method("SDH", True, seconds=2),
    "LFH": Method("LFH", True, seconds=9),
    "CNNH": Method("CNNH", seconds=32),
    "DeSH": Method("DeSH", seconds=17),
    "DNNH": Method("DNNH", seconds=70),
    "DRSCH": Method("DRSCH", seconds=69),
    "DeepHash": Method("DeepHash", seconds=24),
    "DMIH": Method("DMIH", seconds=43),
    "DMIH, feature level": Method("DMIH", changes=((PHI, 0.0),), seconds=35),
    "DMIH, instance level": Method("DMIH", changes=((PSI, 0.0),), seconds=35),
    "ensemble": Method("EnsembleDSH", seconds=50),
    "ensemble, DMIH's loss": Method("EnsembleDSH", changes=((PSI, 0.1), (PHI, 0.2)), seconds=80),
    "OrthoHash": Method("OrthoHash", seconds=20),
    "OrthoHash, balanced": Method("OrthoHash", changes=((PSI, 0.1), (PHI, 0.2)), seconds=40),
}


RATES = {"small": 2_000, "alexnet": 80, "squeezenet1_0": 280}
"""Images that a busy core makes activations or codes of in a second, about: for estimates."""
SIZES = {"svhn": 630_000, "nus-wide": 195_000, "awa2": 37_000, "imagenet-100": 134_000}
"""Of sets with other than 60,000 images, about: for estimates."""


@dataclass(frozen=True)
class Model:
    """One training: what it depends on, but for data and sources.

    Args:
        method: of METHODS.
        data: name of a set: of `faiss_dmih.data`, or of `sets.DERIVED`.
        bits: length of the codes.
        seed: of the split and of the training.
        epochs: of nets.
        items: training items, at most; None: all of the split's.
        database: items that are searched, at most; None: all of the split's.
        validation: so many items are held back from training, and are the queries: for choosing.
        backbone: of images; vectors are taken as they are.
        freeze, pretrained: as for `DMIH`.
        changes: of the objective, besides the method's.
        grown: of an ensemble, lengths that it has on the way to `bits`.
    """

    method: str
    data: str
    bits: int
    seed: int = 0
    epochs: int = 20
    items: int | None = None
    database: int | None = None
    validation: int = 0
    backbone: str = "small"
    freeze: str | None = None
    pretrained: bool = False
    changes: Changes = ()
    grown: tuple[int, ...] = ()

    @property
    def how(self) -> Method:
        return METHODS[self.method]

    @property
    def title(self) -> str:
        """For people."""
        parts = [self.method, f"{self.bits} bits", self.data]
        parts += [f"{name} {value:g}" for name, value in self.changes if _is_number(value)]
        parts += [str(value) for _, value in self.changes if not _is_number(value)]
        if self.items:
            parts.append(f"{self.items:,} items")
        if self.freeze:
            parts.append(f"frozen to {self.freeze}")
        return ", ".join([*parts, f"seed {self.seed}"])

    @property
    def seconds(self) -> float:
        """An estimate of its training, on one busy core."""
        share = (self.items or 10_000) / 10_000
        if self.how.takes_vectors:
            return self.how.seconds * self.bits / 64
        whole = self.how.seconds * share * self.epochs / 20
        # Images: an epoch of 10,000 took the small net 12 s, AlexNet 390 s.
        images = {"small": 12.0, "alexnet": 390.0}.get(self.backbone, 60.0)
        if self.how.kind == "EnsembleDSH":
            images *= self.bits / 32  # sub-models of 16 bits, each of half of the items
        return whole if self.on_vectors else whole + images * share * self.epochs

    @property
    def on_vectors(self) -> bool:
        """Whether its data are vectors, by their name."""
        return are_vectors(self.data)


def are_vectors(data: str) -> bool:
    """Whether a set is of vectors, by its name.

    >>> are_vectors("cifar10-features"), are_vectors("svhn-fc7"), are_vectors("svhn")
    (True, True, False)
    """
    return data.endswith(("-features", "-fc7"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)

"""In what our settings differ from the papers', in words, for captions."""

from __future__ import annotations

from faiss_dmih.tables.models import are_vectors
from faiss_dmih.tables.plan import Plan
from faiss_dmih.tables.sets import DERIVED

_DATA = {
    "cifar10-features": "cifar10-features: vectors in the place of images, 512 pooled activations "
    "of SqueezeNet each, from images that were compressed as JPEG; nets have one hidden layer; "
    "59,000 in the database, 1,000 queries, 10,000 to train on.",
    "tiny-imagenet-100-features": "tiny-imagenet-100-features: 512 pooled activations of "
    "SqueezeNet, of images of 64 pixels, 100 classes; nets have one hidden layer; 50,000 in the "
    "database, 5,000 queries, 10,000 to train on.",
    "cifar10-jpeg": "cifar10-jpeg: CIFAR-10's images after compression as JPEG, slightly lossy.",
    "awa2": "awa2: other photos of AwA's 50 classes, whose own are no longer published.",
    "imagenet-100": "imagenet-100: 100 classes drawn at random, as which ones the paper drew is "
    "not said.",
}


def of_data(plan: Plan, *data: str) -> tuple[str, ...]:
    """Of these sets, and of the nets."""
    found = [_DATA[name] for name in data if name in _DATA]
    if not all(map(are_vectors, data)):
        net = "AlexNet" if plan.backbone == "alexnet" else f"the backbone {plan.backbone!r}"
        weights = "ImageNet's weights" if plan.pretrained else "random weights at the start"
        found.append(f"Images: {net} with {weights}; the papers have AlexNet, with ImageNet's.")
    if any(f"{name}-fc7" in DERIVED for name in data):
        found.append("Methods that are no nets take AlexNet's activations after fc7.")
    return tuple(found)


MARGIN = (
    "Margin: an eighth of the bits of Hamming's distance, where DMIH has half of them of an "
    "undefined Euclidean one (docs/methods.md)."
)
EDSH_MARGIN = (
    "Margin: an eighth of the bits of Hamming's distance, DeSH's the published half of them; which "
    "one the ensemble paper has it does not say, only that it is at most all bits "
    "(docs/methods.md)."
)
QUIET = 0.3
"""Cores that others keep busy, below which times need no warning."""
TIES = "mAP: expected over orders among equal distances; what the papers do with ties is not said."
SPREAD = "Several seeds: means ± standard deviations; each seed has its own split."


def of_times(busy: float) -> tuple[str, ...]:
    """How they were taken, and how busy others kept the machine, in cores."""
    how = (
        "Times: one thread, all queries in one call, 1,000 at most, all answers equal to "
        "IndexBinaryFlat's. The papers' linear scan is not described and not FAISS's, which is "
        "faster than a plain loop; their database of SVHN is ten times as large as CIFAR-10's."
    )
    if busy < QUIET:
        return (how,)
    return how, f"Others kept up to {busy:.1f} cores busy meanwhile: do not rely on the times."

"""DMIH and DeepHash: one net, one code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from faiss_dmih.encoders.encoder import Architecture, Encoder, Part, register
from faiss_dmih.encoders.objective import Objective, check_labels
from faiss_dmih.encoders.training import Examples, Training, train_head
from faiss_dmih.options import check_cuts, paper_cuts


@register
class DMIH(Encoder):
    """Deep Multi-Index Hashing: codes that are balanced over the tables of multi-index hashing.

    A backbone, one linear layer, tanh; trained with (2) of the paper: triplets, plus psi, which
    spreads the distance of a pair evenly over the substrings, plus phi, which empties overfull
    buckets. Ablations are weights of zero; with both it is `DeepHash`.

    Args:
        bits: length of the codes, a multiple of 8.
        n: size of the database to come, by which the substrings are cut: m = floor(bits / log2 n).
        cuts: substring lengths, instead.
        backbone: of `BACKBONES`; freeze: the stage up to which nothing is trained; pretrained: True
            for torchvision's ImageNet weights, or a file of them.
        objective: losses, weights, margin, k'. By default those that docs/methods.md chooses.
        training: epochs, learning rate, seed, folder for checkpoints.
    """

    default_objective = Objective(feature_weight=0.1, instance_weight=0.2)
    head = "tanh"

    @classmethod
    def objective_for(cls, bits: int) -> Objective:
        """The objective of codes of that length, where none is given."""
        return cls.default_objective

    def __init__(
        self,
        bits: int = 64,
        *,
        n: int = 1_000_000,
        cuts: Sequence[int] | None = None,
        backbone: str = "small",
        freeze: str | None = None,
        pretrained: bool | str | Path = False,
        objective: Objective | None = None,
        training: Training | None = None,
    ) -> None:
        self._bits = check_bits(bits)
        self._cuts = check_cuts(cuts, bits) or paper_cuts(bits, n)
        self.architecture = Architecture(
            backbone,
            freeze,
            pretrained if isinstance(pretrained, bool) else str(pretrained),
            head=self.head,
        )
        self.objective = objective or self.objective_for(bits)
        self.training = training or Training()

    def fit(self, x: Any, labels: Any, *, validation: tuple[Any, Any] | None = None) -> DMIH:
        """Train on images or vectors `x` and their labels.

        Args:
            x: as `Items` takes it.
            labels: int (n,), or bool (n, classes) where items have several.
            validation: items and labels for early stopping; never the queries.

        Raises:
            ValueError, TypeError: labels are missing or of another length.
            FloatingPointError: the loss is not finite; says at which step, and why.
        """
        torch.manual_seed(self.training.seed)
        self.architecture = with_input(self.architecture, x)
        self.trunk, head = self.architecture.build(self._bits)
        self.parts = [Part(head, cuts=self._cuts)]
        self._standardise(self.items(x))
        examples = self._examples(x, labels)
        held_out = None if validation is None else self._examples(*validation)
        train_head(head, self.objective, self._cuts, self.training, examples, held_out)
        return self

    def _examples(self, x: Any, labels: Any) -> Examples:
        items = self.items(x)
        checked = check_labels(labels, len(items))
        return Examples(self.inputs(items, progress=self.training.progress), checked)

    def _arguments(self) -> dict[str, Any]:
        return {"bits": self._bits, "cuts": self._cuts, "objective": asdict(self.objective)}


@register
class DeepHash(DMIH):
    """DMIH without its balance terms: the first term of (2) alone, the papers' baseline."""

    default_objective = Objective()


def check_bits(bits: int) -> int:
    if bits < 8 or bits % 8:
        raise ValueError(f"got bits = {bits}, expected a multiple of 8, at least 8")
    return bits


def with_input(architecture: Architecture, x: Any) -> Architecture:
    """The architecture with the length of the vectors, where it takes vectors."""
    if architecture.backbone != "features":
        return architecture
    shape = np.shape(x)
    if len(shape) != 2:
        raise ValueError(f"got an array of shape {shape}, expected vectors (n, dim)")
    return replace(architecture, input_dim=int(shape[1]))

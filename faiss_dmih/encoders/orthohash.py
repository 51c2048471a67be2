"""OrthoHash: one loss, the angle to a code for each class."""

from __future__ import annotations

from typing import Any

import numpy as np

from faiss_dmih.encoders.dmih import DMIH
from faiss_dmih.encoders.encoder import register
from faiss_dmih.encoders.objective import Objective, check_labels


@register
class OrthoHash(DMIH):
    """Hoe, Ng, Zhang, Chan, Song and Xiang, *One loss for all: deep hashing with a single cosine
    similarity based learning objective*, NeurIPS 2021.

    Each class has a fixed code t_c of -1 and 1 (`losses.targets`); with s = 8, m = 0.2, of an item
    of class y,

        -log(exp(s (cos(h, t_y) - m)) / sum_c exp(s (cos(h, t_c) - m [c = y])))

    Published nets end in a batch normalisation, which keeps bits balanced; here in tanh, as all
    others, so that DMIH's balance terms can be added: ``objective=Objective("orthogonal",
    feature_weight=0.1, instance_weight=0.2)``. Classes are those of the training items: labels
    0 to C - 1, or bool (n, C).

    Arguments are those of `DMIH`.
    """

    default_objective = Objective("orthogonal")

    def fit(self, x: Any, labels: Any, *, validation: tuple[Any, Any] | None = None) -> OrthoHash:
        """As `DMIH.fit`.

        Raises:
            ValueError: also if a label is negative, or validation items have classes that no
                training item can have.
        """
        checked = check_labels(labels, len(x))
        classes = checked.shape[1] if checked.ndim == 2 else int(checked.max(initial=-1)) + 1
        held_out = None
        if validation is not None:
            others = check_labels(validation[1], len(validation[0]))
            held_out = validation[0], _one_hot(others, classes)
        super().fit(x, _one_hot(checked, classes), validation=held_out)
        return self


def _one_hot(labels: Any, classes: int) -> Any:
    """bool (n, classes)."""
    if labels.ndim == 2:
        if labels.shape[1] != classes:
            raise ValueError(f"labels: got {labels.shape[1]} classes, expected {classes}")
        return labels
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"labels: got {labels.min()} to {labels.max()}, expected 0 to {classes - 1}"
        )
    return np.arange(classes) == labels[:, None]

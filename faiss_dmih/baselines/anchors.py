"""Kernel features: how near a vector is to each of some training vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances

from faiss_dmih.baselines.base import Floats


@dataclass(frozen=True)
class Anchors:
    """exp(-||x - a||^2 / (2 width)) for each anchor a, less `offset`.

    at: (anchors, n_features). width: of the square of the distance. offset: (anchors,) or 0.
    """

    at: Floats
    width: float
    offset: Any = 0.0

    @classmethod
    def drawn(cls, x: Floats, count: int, rng: np.random.RandomState, *, centred: bool) -> Anchors:
        """`count` of the vectors, at most all, without repetition.

        The width is the mean square of the distances between vectors and anchors; with `centred`
        the features of x have a mean of zero.
        """
        at = x[rng.permutation(len(x))[:count]]
        anchors = cls(at, float(euclidean_distances(x, at, squared=True).mean()) or 1.0)
        return cls(at, anchors.width, anchors.features(x).mean(0)) if centred else anchors

    def features(self, x: Floats) -> Floats:
        """(n, anchors)."""
        squares = euclidean_distances(x, self.at, squared=True)
        return np.asarray(np.exp(-squares / (2 * self.width)) - self.offset)


def check_count(name: str, value: Any) -> int:
    """A count that a method was asked for. Raises ValueError."""
    if not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"got {name} = {value!r}, expected an integer, at least 1")
    return int(value)

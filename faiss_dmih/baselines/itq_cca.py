"""ITQ-CCA: iterative quantisation of canonical correlations with the labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import eigh
from sklearn.utils import check_random_state

from faiss_dmih.baselines.base import Floats, HashingEstimator
from faiss_dmih.baselines.itq import itq_rotation, padded
from faiss_dmih.similarity import indicator


class ITQCCA(HashingEstimator):
    """Gong, Lazebnik, Gordo and Perronnin, *Iterative quantization: a Procrustean approach to
    learning binary codes for large-scale image retrieval*, PAMI 2013, section on supervision: as
    `ITQ`, with canonical correlation analysis in the place of PCA. With vectors X and label
    indicators Y, both centred, the directions w_k solve

        X^T Y (Y^T Y + rho I)^-1 Y^T X w = lambda^2 (X^T X + rho I) w

    and are scaled by their correlations lambda_k; rho = `regularisation`, 1e-4 as published, here
    times the mean of the diagonal of X^T X, and of Y^T Y, so that it means the same for vectors of
    any scale.

    There are as many correlations as there are classes, less one, and the published code asks for
    n_bits directions all the same: those beyond have lambda = 0, are scaled to nothing, and the
    rotation spreads the first over all bits. So it is here, explicitly: columns of zeros, after the
    directions whose lambda is not zero. scikit-learn's CCA refuses more directions than classes.

    Args:
        regularisation: rho, above.

    Attributes:
        mean_: (n_features,). components_: directions and rotation, (n_bits, n_features).
        correlations_: the lambda_k, (at most n_bits,).

    >>> y = np.arange(100) % 3
    >>> x = np.random.default_rng(0).normal(size=(100, 5)) + np.eye(3, 5)[y]
    >>> hashing = ITQCCA(16, random_state=0).fit(x, y)
    >>> hashing.transform(x).shape, len(hashing.correlations_)
    ((100, 2), 2)
    """

    _supervised = True

    def __init__(
        self, n_bits: int = 64, *, regularisation: float = 1e-4, random_state: Any = None
    ) -> None:
        super().__init__(n_bits, random_state=random_state)
        self.regularisation = regularisation

    def _fit(self, x: Floats, y: Any) -> None:
        self.mean_ = x.mean(0)
        x = x - self.mean_
        directions, self.correlations_ = canonical(x, indicator(y), self.regularisation)
        kept = min(len(self.correlations_), int(self.n_bits))
        self.correlations_ = self.correlations_[:kept]
        scaled = padded(directions[:, :kept] * self.correlations_, int(self.n_bits))
        rotation = itq_rotation(x @ scaled, check_random_state(self.random_state))
        self.components_ = (scaled @ rotation).T

    def _decide(self, x: Floats) -> Floats:
        return np.asarray((x - self.mean_) @ self.components_.T)


def canonical(x: Floats, y: Any, regularisation: float) -> tuple[Floats, Floats]:
    """Directions (n_features, r) of centred x and their correlations (r,), largest first; those
    that are zero but for rounding are left out."""
    y = y - y.mean(0)

    def covariance(a: Floats) -> Floats:
        c = a.T @ a
        scale = np.trace(c) / len(c) or 1.0
        return np.asarray(c + regularisation * scale * np.eye(len(c)))

    between = x.T @ y
    squares, directions = eigh(between @ np.linalg.solve(covariance(y), between.T), covariance(x))
    squares, directions = squares[::-1], directions[:, ::-1]
    r = int((squares > 1e-9).sum())
    return directions[:, :r], np.sqrt(squares[:r])

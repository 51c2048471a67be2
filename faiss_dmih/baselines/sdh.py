"""SDH: supervised discrete hashing."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from sklearn.utils import check_random_state

from faiss_dmih.baselines.anchors import Anchors, check_count
from faiss_dmih.baselines.base import Floats, HashingEstimator
from faiss_dmih.similarity import indicator

RIDGE = 1e-8
"""Of the mean of the diagonal, for anchors that are nearly the same."""


class SDH(HashingEstimator):
    """Shen, Shen, Liu and Shen, *Supervised discrete hashing*, CVPR 2015.

    Codes B in {-1, 1}^(n x n_bits) from which the labels Y (n, classes) are regressed, and which
    kernel features K predict:

        min ||Y - B W||^2 + lambda ||W||^2 + nu ||B - K P||^2

    in turn over
        W = (B^T B + lambda I)^-1 B^T Y
        P = (K^T K)^-1 K^T B
        B, bit by bit, given the others (discrete cyclic coordinate descent):
            z = sign(q - B' W' w),   Q = Y W^T + nu K P
        with w the bit's row of W, q its column of Q, and B', W' without that bit,
    until B no longer changes, or `max_iter` times. The code of x is the sign of K(x) P. B starts at
    random; passes over the bits go on until nothing changes, at most `PASSES`. The kernel is the
    Gaussian of `Anchors`, whose width the paper tunes by hand; K^T K has a ridge of 1e-8 of its
    mean diagonal.

    Args:
        n_anchors: of the kernel, drawn from the vectors; 1,000 as published.
        label_weight: lambda. fit_weight: nu. Published: 1 and 1e-5.
        max_iter: rounds over W, P and B; 5 as published.

    Attributes:
        anchors_: `Anchors`. components_: P, (n_bits, anchors). n_iter_: rounds there were.

    >>> y = np.arange(100) % 3
    >>> x = np.random.default_rng(0).normal(size=(100, 5)) + 3 * np.eye(3, 5)[y]
    >>> SDH(16, random_state=0).fit(x, y).transform(x).shape
    (100, 2)
    """

    _supervised = True

    def __init__(
        self,
        n_bits: int = 64,
        *,
        n_anchors: int = 1000,
        label_weight: float = 1.0,
        fit_weight: float = 1e-5,
        max_iter: int = 5,
        random_state: Any = None,
    ) -> None:
        super().__init__(n_bits, random_state=random_state)
        self.n_anchors = n_anchors
        self.label_weight = label_weight
        self.fit_weight = fit_weight
        self.max_iter = max_iter

    def _fit(self, x: Floats, y: Any) -> None:
        count = check_count("n_anchors", self.n_anchors)
        rounds = check_count("max_iter", self.max_iter)
        rng = check_random_state(self.random_state)
        labels = indicator(y).astype(np.float64)
        self.anchors_ = Anchors.drawn(x, count, rng, centred=False)
        k = self.anchors_.features(x)
        gram = k.T @ k
        gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
        factor = cho_factor(gram)
        b = np.where(rng.standard_normal((len(x), int(self.n_bits))) > 0, 1.0, -1.0)
        p = cho_solve(factor, k.T @ b)
        for self.n_iter_ in range(1, rounds + 1):
            inner = b.T @ b + self.label_weight * np.eye(b.shape[1])
            w = np.asarray(np.linalg.solve(inner, b.T @ labels), np.float64)
            new = discrete_descent(b, w, labels @ w.T + self.fit_weight * (k @ p))
            changed = not np.array_equal(new, b)
            b = new
            p = cho_solve(factor, k.T @ b)
            if not changed:
                break
        self.components_ = p.T

    def _decide(self, x: Floats) -> Floats:
        return np.asarray(self.anchors_.features(x) @ self.components_.T)


PASSES = 10


def discrete_descent(b: Floats, w: Floats, q: Floats) -> Floats:
    """Codes (n, bits) that lower ||Y - B W||^2 + nu ||B - K P||^2, bit by bit, from `b`."""
    b = b.copy()
    for _ in range(PASSES):
        before = b.copy()
        for bit in range(b.shape[1]):
            others = b @ (w @ w[bit]) - b[:, bit] * (w[bit] @ w[bit])
            b[:, bit] = np.where(q[:, bit] - others > 0, 1.0, -1.0)
        if np.array_equal(b, before):
            break
    return b

"""ITQ: iterative quantisation."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.utils import check_random_state

from faiss_dmih.baselines.base import Floats, HashingEstimator

ITERATIONS = 50
"""As published."""


class ITQ(HashingEstimator):
    """Gong and Lazebnik, *Iterative quantization: a Procrustean approach to learning binary codes*,
    CVPR 2011: PCA to n_bits dimensions, then the rotation R that minimises the quantisation error
    ||B - V R||^2 of the projected vectors V (`itq_rotation`).

    PCA gives at most as many dimensions as vectors have. With more bits, V has columns of zeros
    after those, and the rotation spreads the others over all bits: codes are signs on a learnt
    tight frame.

    `faiss.ITQMatrix` is not used: in FAISS 1.15.1 its step from B^T V = U S W^T is not to
    W U^T, which minimises the error, and it stays near the random rotation it begins with
    (docs/methods.md).

    Attributes:
        mean_: (n_features,). components_: PCA and rotation, (n_bits, n_features).

    >>> x = np.random.default_rng(0).normal(size=(100, 20))
    >>> ITQ(16, random_state=0).fit_transform(x).shape
    (100, 2)
    """

    def _fit(self, x: Floats, y: Any) -> None:
        pca = PCA(min(int(self.n_bits), *x.shape), svd_solver="covariance_eigh").fit(x)
        self.mean_ = pca.mean_
        projection = padded(pca.components_.T, int(self.n_bits))
        rng = check_random_state(self.random_state)
        rotation = itq_rotation((x - self.mean_) @ projection, rng)
        self.components_ = (projection @ rotation).T

    def _decide(self, x: Floats) -> Floats:
        return np.asarray((x - self.mean_) @ self.components_.T)


def padded(projection: Floats, bits: int) -> Floats:
    """With columns of zeros after its own, `bits` in all."""
    return np.pad(projection, ((0, 0), (0, bits - projection.shape[1])))


def itq_rotation(v: Floats, rng: np.random.RandomState) -> Floats:
    """The rotation R (bits, bits) of centred projections v (n, bits): from a random one, in turn

        B = sign(V R),   R = W U^T  where  B^T V = U S W^T

    which are the minima of ||B - V R||^2 for R and for B.
    """
    r: Floats = np.linalg.qr(rng.standard_normal((v.shape[1],) * 2))[0]
    for _ in range(ITERATIONS):
        b = np.where(v @ r > 0, 1.0, -1.0)
        u, _, wt = np.linalg.svd(b.T @ v)
        r = np.asarray((u @ wt).T)
    return r

"""SH: spectral hashing."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from faiss_dmih.baselines.base import Floats, HashingEstimator


class SH(HashingEstimator):
    """Weiss, Torralba and Fergus, *Spectral hashing*, NIPS 2008: eigenfunctions of the Laplacian of
    a uniform distribution on a box, whose axes are the directions of PCA.

    Along an axis on which the training vectors reach from a to b they are

        sin(pi / 2 + k pi / (b - a) (v - a)),   k = 1, 2, ...

    with eigenvalues that grow with k / (b - a). The n_bits with the smallest eigenvalues, over all
    axes, become bits; the constant one (k = 0) is left out, and so are products over several axes,
    which would be functions of the others. PCA keeps n_bits axes, at most as many as there are. As
    in the authors' code, a and b are the least and the largest value seen. There is nothing random
    in it: random_state has no effect.

    Attributes:
        mean_: (n_features,). components_: of PCA, (axes, n_features). lows_: the a, (axes,).
        axes_: of each bit, (n_bits,). frequencies_: k pi / (b - a) of each bit, (n_bits,), growing.

    >>> x = np.random.default_rng(0).uniform(size=(100, 5)) * [9, 4, 1, 1, 1]
    >>> SH(8).fit(x).axes_
    array([0, 0, 1, 0, 0, 1, 0, 0])
    """

    def _fit(self, x: Floats, y: Any) -> None:
        bits = int(self.n_bits)
        pca = PCA(min(bits, *x.shape), svd_solver="covariance_eigh").fit(x)
        self.mean_, self.components_ = pca.mean_, pca.components_
        v = pca.transform(x)
        self.lows_ = v.min(0)
        extent = v.max(0) - self.lows_
        # Less than rounding makes of a constant is no extent.
        axes = np.flatnonzero(extent > 1e-12 * np.abs(x).max())
        frequencies = np.pi * np.arange(1, bits + 1)[:, None] / extent[axes]
        chosen = np.argsort(frequencies, axis=None, kind="stable")[:bits]
        self.axes_ = axes[chosen % len(axes)]
        self.frequencies_ = frequencies.ravel()[chosen]

    def _decide(self, x: Floats) -> Floats:
        v = (x - self.mean_) @ self.components_.T - self.lows_
        return np.asarray(np.sin(np.pi / 2 + self.frequencies_ * v[:, self.axes_]))

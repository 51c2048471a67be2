"""ITQ: iterative quantisation."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from sklearn.utils import check_random_state

from faiss_dmih.baselines.base import Floats, HashingEstimator
from faiss_dmih.baselines.lsh import SEEDS
from faiss_dmih.data.binarize import Itq, one_thread


class ITQ(HashingEstimator):
    """Gong and Lazebnik, *Iterative quantization: a Procrustean approach to learning binary codes*,
    CVPR 2011: PCA to n_bits dimensions, then the rotation R that minimises the quantisation error
    ||B - V R||^2 of the projected vectors V, alternately by B = sign(V R) and by R from the
    singular value decomposition of B^T V.

    It is `faiss.ITQTransform`: 50 iterations (5 above 256 bits), and centred vectors are made of
    unit length first, which the paper leaves to the features. PCA gives at most as many dimensions
    as vectors have. With more bits, these are mapped into n_bits dimensions by a random matrix with
    orthonormal columns, which keeps all distances, and the rotation is learnt there.

    Attributes:
        mean_: (n_features,). projection_: what comes before PCA, (n_features, k), or None.
        components_: PCA and rotation, (n_bits, n_features or k). intercept_: (n_bits,).

    >>> x = np.random.default_rng(0).normal(size=(100, 20))
    >>> ITQ(16, random_state=0).fit_transform(x).shape
    (100, 2)
    """

    def _fit(self, x: Floats, y: Any) -> None:
        seed = int(check_random_state(self.random_state).randint(SEEDS))
        learnt = Itq(x.astype(np.float32), int(self.n_bits), seed, limit=len(x))
        self.mean_, self.projection_, self.components_, self.intercept_ = learnt.steps

    def _decide(self, x: Floats) -> Floats:
        v = x - self.mean_
        if self.projection_ is not None:
            v = v @ self.projection_
        norms = np.linalg.norm(v, axis=1, keepdims=True)
        v = v / np.where(norms == 0, 1, norms)
        return np.asarray(v @ self.components_.T + self.intercept_)


def itq_rotation(v: Floats, seed: int) -> Floats:
    """ITQ's rotation of projected, centred vectors v (n, bits), by `faiss.ITQMatrix`: codes are the
    signs of v @ R, R being (bits, bits)."""
    itq = faiss.ITQMatrix(v.shape[1])
    itq.seed = seed
    with one_thread():
        itq.train(np.ascontiguousarray(v, dtype=np.float32))
    rotation = faiss.vector_to_array(itq.A).reshape(v.shape[1], -1).T
    return np.asarray(rotation, np.float64)

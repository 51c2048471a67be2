"""LSH: random hyperplanes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from faiss_dmih.baselines.base import Floats, HashingEstimator
from faiss_dmih.data.binarize import Lsh

SEEDS = 1 << 31


class LSH(HashingEstimator):
    """Random hyperplanes (Charikar, *Similarity estimation techniques from rounding algorithms*,
    2002): bit i is set where w_i . x > t_i.

    It is `faiss.IndexLSH` with a random rotation: the w_i are orthonormal (where there are more
    bits than dimensions, a random tight frame), and t_i is the median of w_i . x over the training
    vectors. In the definition the w_i are independent and t_i = 0. The medians take the place of
    centring, which vectors need whose components are all positive, as activations are; orthogonal
    w_i have less variance.

    Attributes:
        components_: the w_i, (n_bits, n_features). thresholds_: the t_i, (n_bits,).

    >>> x = np.random.default_rng(0).normal(size=(100, 5))
    >>> LSH(16, random_state=0).fit_transform(x).shape
    (100, 2)
    """

    def _fit(self, x: Floats, y: Any) -> None:
        seed = int(check_random_state(self.random_state).randint(SEEDS))
        learnt = Lsh(x.astype(np.float32), int(self.n_bits), seed, limit=len(x))
        self.components_, self.thresholds_ = learnt.hyperplanes

    def _decide(self, x: Floats) -> Floats:
        return np.asarray(x @ self.components_.T - self.thresholds_)

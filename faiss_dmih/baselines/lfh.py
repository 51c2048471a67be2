"""LFH: latent factor hashing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.utils import check_random_state
from threadpoolctl import threadpool_limits

from faiss_dmih.baselines.anchors import check_count
from faiss_dmih.baselines.base import Floats, HashingEstimator
from faiss_dmih.similarity import Similarity


class LFH(HashingEstimator):
    """Zhang, Zhang, Li and Guo, *Supervised hashing with latent factor models*, SIGIR 2014.

    Latent factors U (n, n_bits) of the training vectors maximise the posterior of their pairwise
    similarities s_ij in {0, 1}, with theta_ij = U_i . U_j / 2 and a prior of variance beta:

        L = sum_ij (s_ij theta_ij - log(1 + exp(theta_ij))) - ||U||^2 / (2 beta)

    row by row, each moved to the maximum of a quadratic lower bound of L:

        U_i <- U_i - g H^-1
        g = sum_j (s_ij - sigma(theta_ij)) U_j - U_i / beta
        H = -1/8 sum_j U_j^T U_j - I / beta

    The stochastic variant, which the paper takes for large sets: in each iteration a random set of
    items is chosen, whose similarities to all are taken as known, and no others. So j runs over the
    chosen ones for the other items i, which do not depend on each other, and over all for the
    chosen ones, which are moved one after the other. i = j is left out. Then a ridge regression of
    U on the vectors gives W, and the code of x is the sign of (x - mean) W.

    U starts at the scores of PCA, brought to a variance of 1 over all, with normal random numbers
    where there are more bits than dimensions.

    Args:
        n_chosen: items whose similarities are used in an iteration; None: as many as bits, as
            published. With all of them it is the full variant, which costs n^2 n_bits.
        beta: variance of the prior. regression_weight: the ridge. Published for CIFAR-10: 30 and 1.
        max_iter: 50 as published.

    Attributes:
        regression_: scikit-learn's `Ridge`, of U on vectors. n_iter_: max_iter.

    >>> y = np.arange(100) % 3
    >>> x = np.random.default_rng(0).normal(size=(100, 5)) + 3 * np.eye(3, 5)[y]
    >>> LFH(16, random_state=0).fit(x, y).transform(x).shape
    (100, 2)
    """

    _supervised = True

    def __init__(
        self,
        n_bits: int = 64,
        *,
        n_chosen: int | None = None,
        beta: float = 30.0,
        regression_weight: float = 1.0,
        max_iter: int = 50,
        random_state: Any = None,
    ) -> None:
        super().__init__(n_bits, random_state=random_state)
        self.n_chosen = n_chosen
        self.beta = beta
        self.regression_weight = regression_weight
        self.max_iter = max_iter

    def _fit(self, x: Floats, y: Any) -> None:
        bits = int(self.n_bits)
        chosen = bits if self.n_chosen is None else check_count("n_chosen", self.n_chosen)
        rng = check_random_state(self.random_state)
        similar = Similarity(y)
        u = rng.standard_normal((len(x), bits))
        scores = PCA(min(bits, *x.shape), svd_solver="covariance_eigh").fit_transform(x)
        u[:, : scores.shape[1]] = scores / (scores.std() or 1.0)
        self.n_iter_ = check_count("max_iter", self.max_iter)
        with threadpool_limits(1):  # many small products: threads gain nothing
            for _ in range(self.n_iter_):
                ascend(u, similar, rng.permutation(len(x))[:chosen], self.beta)
        self.regression_ = Ridge(alpha=self.regression_weight).fit(x, u)

    def _decide(self, x: Floats) -> Floats:
        return np.asarray(self.regression_.predict(x))


def ascend(u: Floats, similar: Similarity, chosen: NDArray[np.int64], beta: float) -> None:
    """One iteration, in place: the rows of u that were not chosen, then the others."""
    bits = u.shape[1]
    s = (similar.rows(chosen) + 1) / 2  # (chosen, n)
    few = u[chosen]
    others = np.setdiff1d(np.arange(len(u)), chosen)
    rest = u[others]
    gradient = (s[:, others].T - expit(rest @ few.T / 2)) @ few - rest / beta
    bound = few.T @ few / 8 + np.eye(bits) / beta
    u[others] = rest + np.linalg.solve(bound, gradient.T).T
    squares = u.T @ u
    for number, i in enumerate(chosen):
        squares -= np.outer(u[i], u[i])
        slope = s[number] - expit(u @ u[i] / 2)
        slope[i] = 0
        gradient = slope @ u - u[i] / beta
        u[i] += np.linalg.solve(squares / 8 + np.eye(bits) / beta, gradient)
        squares += np.outer(u[i], u[i])

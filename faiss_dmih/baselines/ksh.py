"""KSH: supervised hashing with kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import eigh
from scipy.special import expit
from sklearn.utils import check_random_state
from threadpoolctl import threadpool_limits

from faiss_dmih.baselines.anchors import Anchors, check_count
from faiss_dmih.baselines.base import Floats, HashingEstimator
from faiss_dmih.similarity import Similarity, indicator

RIDGE = 1e-8
"""Of the mean of the diagonal: kernel features are nearly dependent where anchors are near."""


class KSH(HashingEstimator):
    """Liu, Wang, Ji, Jiang and Chang, *Supervised hashing with kernels*, CVPR 2012.

    Bit k is the sign of K(x) a_k, K(x) being centred kernel features. The codes H of l labelled
    vectors are to have inner products r S, r = n_bits, S = 1 for two that share a label and -1
    otherwise:

        min || sum_k h_k h_k^T - r S ||^2,   h_k = sign(K a_k)

    bit by bit: with the residue R = r S - sum of h_t h_t^T of the bits so far, a_k maximises
    h^T R h. It starts at the spectral relaxation, the first eigenvector of

        K^T R K a = lambda K^T K a,   scaled so that ||K a||^2 = l

    then the sign is smoothed into phi(z) = 2 / (1 + exp(-z)) - 1, and -phi^T R phi is descended
    along its gradient

        -K^T ((R b) * (1 - b * b)),   b = phi(K a)

    by Nesterov's accelerated method, its step found by backtracking. Of start and end, the one with
    the larger h^T R h is kept.

    The kernel is the authors' Gaussian (`Anchors`); K^T K has a ridge of 1e-8 of its mean diagonal,
    for anchors that are nearly the same; descent ends after 500 steps, or where a step lowers the
    objective by less than l / 100, as in their code.

    Args:
        n_anchors: of the kernel, drawn from the vectors; 300 as published.
        n_labelled: vectors whose labels are used, drawn from all; 2,000, the more of the published
            two settings. Cost grows with it, by bits.

    Attributes:
        anchors_: `Anchors`. components_: the a_k, (n_bits, anchors).

    >>> y = np.arange(100) % 3
    >>> x = np.random.default_rng(0).normal(size=(100, 5)) + 3 * np.eye(3, 5)[y]
    >>> KSH(16, random_state=0).fit(x, y).transform(x).shape
    (100, 2)
    """

    _supervised = True

    def __init__(
        self,
        n_bits: int = 64,
        *,
        n_anchors: int = 300,
        n_labelled: int = 2000,
        random_state: Any = None,
    ) -> None:
        super().__init__(n_bits, random_state=random_state)
        self.n_anchors = n_anchors
        self.n_labelled = n_labelled

    def _fit(self, x: Floats, y: Any) -> None:
        count, labelled = (
            check_count(name, getattr(self, name)) for name in ("n_anchors", "n_labelled")
        )
        rng = check_random_state(self.random_state)
        self.anchors_ = Anchors.drawn(x, count, rng, centred=True)
        chosen = rng.permutation(len(x))[:labelled]
        k = self.anchors_.features(x[chosen])
        similar = Similarity(indicator(y)[chosen])
        with threadpool_limits(1):  # many small products: threads gain nothing
            self.components_ = greedy(k, similar, int(self.n_bits))

    def _decide(self, x: Floats) -> Floats:
        return np.asarray(self.anchors_.features(x) @ self.components_.T)


def greedy(k: Floats, similar: Similarity, bits: int) -> Floats:
    """The a_k, (bits, anchors), of kernel features (l, anchors)."""
    components = np.empty((bits, k.shape[1]))
    h = np.empty((len(k), bits))
    gram = k.T @ k
    metric = gram + RIDGE * (np.trace(gram) / len(gram) or 1.0) * np.eye(len(gram))
    relaxed = bits * k.T @ (similar @ k)  # K^T R K
    for bit in range(bits):
        before = h[:, :bit]

        def residue(b: Floats, before: Floats = before) -> Floats:
            return np.asarray(bits * (similar @ b) - before @ (before.T @ b))

        start = eigh(relaxed, metric, subset_by_index=[len(gram) - 1] * 2)[1][:, 0]
        start = start * np.sqrt(len(k)) / (np.linalg.norm(k @ start) or 1.0)
        both = start, descend(k, residue, start)
        signs = [np.where(k @ a > 0, 1.0, -1.0) for a in both]
        better = int(signs[1] @ residue(signs[1]) > signs[0] @ residue(signs[0]))
        components[bit], h[:, bit] = both[better], signs[better]
        seen = k.T @ h[:, bit]
        relaxed -= np.outer(seen, seen)
    return components


def smoothed(residue: Callable[[Floats], Floats], z: Floats) -> tuple[float, Floats]:
    """-phi^T R phi at phi = phi(z), and its gradient by z = K a."""
    b = 2 * expit(z) - 1
    rb = residue(b)
    return -float(b @ rb), -rb * (1 - b * b)


def descend(
    k: Floats, residue: Callable[[Floats], Floats], a: Floats, *, steps: int = 500
) -> Floats:
    """Nesterov's method on `smoothed`, from a."""
    # Scores z = K a move as a does, so that a step costs two products with K.
    z = k @ a
    before, z_before, cost = a, z, smoothed(residue, z)[0]
    momentum, steepness = 1.0, 1.0
    for _ in range(steps):
        after = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        share = (momentum - 1) / after
        v, z_v = a + share * (a - before), z + share * (z - z_before)
        at_v, by_score = smoothed(residue, z_v)
        gradient = k.T @ by_score
        square, down = float(gradient @ gradient), k @ gradient
        for _ in range(50):
            there = smoothed(residue, z_v - down / steepness)[0]
            if there <= at_v - square / (2 * steepness):
                break
            steepness *= 2
        else:
            return a
        before, z_before, momentum = a, z, after
        a, z = v - gradient / steepness, z_v - down / steepness
        if abs(cost - there) <= 0.01 * len(k):
            return a
        cost = there
    return a

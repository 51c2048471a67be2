"""CNNH: codes first, then a net that says them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from faiss_dmih.encoders.dmih import DMIH
from faiss_dmih.encoders.encoder import register
from faiss_dmih.encoders.objective import Objective, check_labels
from faiss_dmih.similarity import Similarity

Floats = NDArray[np.float64]

SWEEPS = 5
"""Passes over all entries of H."""


@register
class CNNH(DMIH):
    """Xia, Pan, Lai, Liu and Yan, *Supervised hashing for image retrieval via image representation
    learning*, AAAI 2014, in two stages: codes of the training items are factors of their similarity
    matrix S in {-1, 1}^(n x n),

        min || S - H H^T / bits ||^2,   H in [-1, 1]^(n x bits)

    by coordinate descent with Newton's steps (`factorise`); then a net is trained to say the signs
    of H, by the cross-entropy of each bit. This is CNNH without the classes that CNNH+ adds.

    Validation items have the codes that most training items with their labels have.

    Arguments are those of `DMIH`.
    """

    default_objective = Objective("codes")

    def fit(self, x: Any, labels: Any, *, validation: tuple[Any, Any] | None = None) -> CNNH:
        """As `DMIH.fit`."""
        checked = check_labels(labels, len(x))
        rng = np.random.default_rng(self.training.seed)
        similar = Similarity(checked)
        wanted = factorise(similar, self._bits, rng) > 0
        held_out = None
        if validation is not None:
            others = check_labels(validation[1], len(validation[0]))
            held_out = validation[0], _by_labels(checked, wanted, others)
        super().fit(x, wanted, validation=held_out)
        return self


def factorise(
    similar: Similarity, bits: int, rng: np.random.Generator, sweeps: int = SWEEPS
) -> Floats:
    """H (n, bits) in [-1, 1] that lowers f = ||H H^T - bits * S||^2.

    Entries are taken row by row, rows in a random order; with L = H H^T - bits * S each moves by
    Newton's step, or as far as the bounds allow:

        -f' / f'',   f' = 4 L_i . H_j,   f'' = 4 (||H_j||^2 + H_ij^2 + L_ii)

    H_j being column j. L is never made: L_i . H_j = H_i . (H^T H)_j - bits * (S H)_ij, and of S H
    sums over items with the same labels are kept.
    """
    h = rng.uniform(-1, 1, (similar.n, bits))
    squares, sums = h.T @ h, similar.sums(h)
    for _ in range(sweeps):
        for i in rng.permutation(similar.n):
            row, group = h[i], similar.group[i]
            before = row.copy()
            wanted = bits * (similar.table[group] @ sums)
            others = squares - np.outer(row, row)
            norm = float(row @ row)
            itself = bits * similar.table[group, group]
            for j in range(bits):
                entry = float(row[j])
                slope = float(others[j] @ row) + entry * norm - wanted[j]
                bend = float(others[j, j]) + 2 * entry * entry + norm - itself
                # Where f bends down there is no least point: as far as the bounds allow.
                step = -slope / bend if bend > 0 else -2 * np.sign(slope)
                new = min(1.0, max(-1.0, entry + step))
                row[j] = new
                norm += new * new - entry * entry
            squares = others + np.outer(row, row)
            sums[group] += row - before
    return h


def _by_labels(labels: Any, wanted: NDArray[np.bool_], others: Any) -> NDArray[np.bool_]:
    """Codes of items with these other labels: of each bit, what most of the training items have."""
    if others.shape[1:] != labels.shape[1:]:
        raise ValueError(
            f"validation labels: got shape {others.shape}, expected as many classes as in "
            f"training, where it is {labels.shape}"
        )
    _, groups = np.unique(np.concatenate([labels, others]), axis=0, return_inverse=True)
    groups = groups.reshape(-1)
    here, there = groups[: len(labels)], groups[len(labels) :]
    count = np.bincount(here, minlength=groups.max() + 1)
    if (count[there] == 0).any():
        raise ValueError(
            "validation: got items with labels that no training item has, so there are no codes "
            "for them: draw validation items from the classes that are trained on"
        )
    votes = np.zeros((len(count), wanted.shape[1]))
    np.add.at(votes, here, np.where(wanted, 1, -1))
    return np.asarray(votes[there] > 0)

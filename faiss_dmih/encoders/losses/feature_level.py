"""DMIH's balance at feature level: psi of (1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from faiss_dmih.encoders.losses.distance import SCALE, mean, pairs, substring_distances


def feature_level_loss(h: Tensor, cuts: Sequence[int], *, scale: float = SCALE) -> Tensor:
    """Mean over the batch's pairs of psi, which wants a pair's distance spread evenly over the
    substrings:

        psi(h, q) = sum_j max(0, r' - D_j) + max(0, D_j - (r' + 1)),   r' = floor(D_H(h, q) / m)

    D_j is the distance in substring j. The paper leaves open which D makes r': here it is the
    Hamming distance of the binarised codes, through which no gradient goes.

    Args:
        h: relaxed codes (n, l).
        cuts: lengths of the m substrings; they sum to l.
        scale: of ||.||^2 in D_j.

    >>> h = torch.tensor([[1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, 1.0, 1.0]])
    >>> feature_level_loss(h, [2, 2])  # D_H = 2, so one bit each; all are in the first: 0 + 1
    tensor(1.)
    """
    d = substring_distances(h, cuts, scale)
    signs = torch.where(h > 0, 1.0, -1.0).detach()
    hamming = (h.shape[1] - signs @ signs.T) / 2
    even = torch.div(hamming, len(cuts), rounding_mode="floor")
    psi = (torch.relu(even - d) + torch.relu(d - (even + 1))).sum(0)
    return mean(psi, pairs(len(h), h.device))

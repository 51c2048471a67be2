"""DMIH's balance at feature level: psi of (1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from faiss_dmih.encoders.losses.distance import SCALE, mean, pairs, substring_distances


def feature_level_loss(h: Tensor, cuts: Sequence[int], *, scale: float = SCALE) -> Tensor:
    """Mean over the batch's pairs of psi, which wants a pair's distance spread evenly over the
    substrings:

        psi(h, q) = sum_j max(0, r' - D_j) + max(0, D_j - (r' + 1)),   r' = floor(D(h, q) / m)

    D_j is the distance in substring j, D the sum of all. The paper leaves open which D makes r':
    here it is that of the relaxed codes, through which no gradient goes. With the Hamming distance
    of the binarised codes psi would want what they lack to it, which is that all outputs saturate:
    they then repeat themselves (docs/methods.md).

    Args:
        h: relaxed codes (n, l).
        cuts: lengths of the m substrings; they sum to l.
        scale: of ||.||^2 in D_j.

    >>> h = torch.tensor([[1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, 1.0, 1.0]])
    >>> feature_level_loss(h, [2, 2])  # D = 2, so one bit each; all are in the first: 0 + 1
    tensor(1.)
    """
    d = substring_distances(h, cuts, scale)
    even = torch.div(d.detach().sum(0), len(cuts), rounding_mode="floor")
    psi = (torch.relu(even - d) + torch.relu(d - (even + 1))).sum(0)
    return mean(psi, pairs(len(h), h.device))

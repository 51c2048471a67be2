"""The pair-wise loss with a margin: EDSH's (6), after Liu et al. 2016."""

from __future__ import annotations

import torch
from torch import Tensor

from faiss_dmih.encoders.losses.distance import SCALE, distances, mean, pairs


def pairwise_loss(h: Tensor, similar: Tensor, margin: float, *, scale: float = SCALE) -> Tensor:
    """Mean over the batch's pairs of D(h_i, h_j) if they are similar, else max(0, margin - D).

    Args:
        h: relaxed codes (n, l).
        similar: bool (n, n), symmetric.
        margin: in bits, at most l.
        scale: of ||.||^2 in D.

    >>> h = torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
    >>> pairwise_loss(h, torch.tensor([[True, False], [False, True]]), margin=1.5)
    tensor(0.5000)
    """
    d = distances(h, scale)
    return mean(torch.where(similar, d, torch.relu(margin - d)), pairs(len(h), h.device))

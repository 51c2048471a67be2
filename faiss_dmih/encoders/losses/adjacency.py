"""How far similar items are apart: the regulariser of Zhang et al. 2015."""

from __future__ import annotations

from torch import Tensor

from faiss_dmih.encoders.losses.distance import SCALE, distances, mean, pairs


def adjacency_loss(h: Tensor, similar: Tensor, *, scale: float = SCALE) -> Tensor:
    """Mean over the batch's similar pairs of D(h_i, h_j): tr(H^T L H), L being the Laplacian of the
    graph of similar items, but for the scale.

    Args:
        h: relaxed codes (n, l).
        similar: bool (n, n), symmetric.
        scale: of ||.||^2 in D.

    >>> import torch
    >>> h = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> similar = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    >>> adjacency_loss(h, similar)
    tensor(1.)
    """
    return mean(distances(h, scale), similar & pairs(len(h), h.device))

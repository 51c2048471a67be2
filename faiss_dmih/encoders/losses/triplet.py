"""The triplet loss: DMIH's first term of (2), and EDSH's (7)."""

from __future__ import annotations

import torch
from torch import Tensor

from faiss_dmih.encoders.losses.distance import SCALE, distances


def triplet_loss(h: Tensor, similar: Tensor, margin: float, *, scale: float = SCALE) -> Tensor:
    """Mean over all triplets of max(0, margin + D(a, p) - D(a, n)).

    A triplet is an anchor a, another item p similar to it, and an item n that is not.

    Args:
        h: relaxed codes (n, l).
        similar: bool (n, n), symmetric; the diagonal is not looked at.
        margin: in bits; DMIH takes l / 2.
        scale: of ||.||^2 in D.

    >>> h = torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.0, 1.0]])
    >>> similar = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    >>> triplet_loss(h, similar, margin=1.5)  # D(a, p) = 0, D(a, n) = 1
    tensor(0.5000)
    """
    d = distances(h, scale)
    others = ~torch.eye(len(h), dtype=torch.bool, device=h.device)
    positive, negative = similar & others, ~similar & others
    # Of an anchor, the sum over p and n of max(0, v_p - u_n), v_p = margin + D(a, p) and
    # u_n = D(a, n), is linear between the changes of who exceeds whom: sum_p v_p c_p -
    # sum_n u_n c_n, where c counts for each the other side's that it exceeds, or is exceeded by.
    # Sorting counts them; the n^3 triplets are never written down.
    v, u = margin + d, d
    with torch.no_grad():
        sorted_u = torch.where(negative, u, torch.inf).sort(1).values
        sorted_v = torch.where(positive, v, -torch.inf).sort(1).values
        exceeds = torch.searchsorted(sorted_u, v.contiguous()) * positive
        exceeded = (len(h) - torch.searchsorted(sorted_v, u.contiguous(), right=True)) * negative
        triplets = (positive.sum(1) * negative.sum(1)).sum()
    return ((v * exceeds).sum() - (u * exceeded).sum()) / triplets.clamp(min=1)

"""Distances between relaxed codes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SCALE = 0.25
"""Of the squared Euclidean distance: at the corners of [-1, 1]^l the result is Hamming's."""


def distances(h: Tensor, scale: float = SCALE) -> Tensor:
    """All pairs of h (n, l): scale * ||h_i - h_j||^2, (n, n)."""
    squares = (h * h).sum(1)
    return scale * (squares[:, None] + squares[None, :] - 2 * h @ h.T).clamp(min=0)


def substring_distances(h: Tensor, cuts: Sequence[int], scale: float = SCALE) -> Tensor:
    """The same in each of the m substrings, (m, n, n)."""
    return torch.stack([distances(part, scale) for part in h.split(list(cuts), 1)])


def pairs(n: int, device: torch.device) -> Tensor:
    """Which entries of an (n, n) matrix are the unordered pairs, each once: bool."""
    return torch.ones(n, n, dtype=torch.bool, device=device).triu(1)


def mean(values: Tensor, where: Tensor) -> Tensor:
    """Of the values at those places; zero if there are none."""
    return (values * where).sum() / where.sum().clamp(min=1)

"""How far outputs are from -1 and 1: the regulariser of Liu et al. 2016."""

from __future__ import annotations

from torch import Tensor


def quantisation_loss(h: Tensor) -> Tensor:
    """Mean over items of || |h| - 1 ||_1, the sum over bits of how far |h| is from 1.

    Args:
        h: outputs (n, l), of any size.

    >>> import torch
    >>> quantisation_loss(torch.tensor([[1.0, -1.5], [0.25, -1.0]]))
    tensor(0.6250)
    """
    return (h.abs() - 1).abs().sum() / max(len(h), 1)

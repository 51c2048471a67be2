"""How well outputs say given codes: stage 2 of Xia et al. 2014."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST = 1e-6
"""Probability of a bit."""


def codes_loss(h: Tensor, codes: Tensor) -> Tensor:
    """Mean over items and bits of the cross-entropy of a bit, (1 + h) / 2 being the probability
    that it is set.

    With h = tanh(z) that is the logistic loss of 2 z.

    Args:
        h: relaxed codes (n, l) in [-1, 1].
        codes: bool (n, l), the bits wanted.

    >>> codes_loss(torch.tensor([[0.0, 1.0]]), torch.tensor([[True, True]]))  # log(2) / 2
    tensor(0.3466)
    """
    # An output that is -1 or 1 but for rounding has no gradient by tanh either.
    share = torch.where(codes, 1 + h, 1 - h) / 2
    return -share.clamp(min=SMALLEST).log().sum() / max(h.numel(), 1)

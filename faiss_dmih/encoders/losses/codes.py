"""How well outputs say given codes: stage 2 of Xia et al. 2014."""

from __future__ import annotations

import torch
from torch import Tensor


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
    if len(h) == 0:
        return h.sum()
    share = (1 + h.float()) / 2
    return torch.nn.functional.binary_cross_entropy(share, codes.to(share.dtype))

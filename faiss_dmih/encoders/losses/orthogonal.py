"""One target code per class, and the angle to it: the loss of Hoe et al. 2021."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

SCALE = 8.0
MARGIN = 0.2
"""Scale s and margin m that the authors' code takes by default."""


def orthogonal_loss(
    h: Tensor, classes: Tensor, *, margin: float = MARGIN, scale: float = SCALE
) -> Tensor:
    """Mean over items of the cross-entropy of scale * (cos(h, t_c) - margin if the item is of c)
    over the classes c, t_c being their `targets`.

    An item of several classes is to be of each with the same probability. An item of none counts
    for nothing.

    Args:
        h: relaxed codes (n, l).
        classes: bool (n, C).
        margin: in units of the cosine.
        scale: of the cosine, the inverse of a temperature.

    >>> h = targets(2, 8)[:1]
    >>> orthogonal_loss(h, torch.tensor([[True, False]]), margin=0.0, scale=1.0)  # log(1 + 1 / e)
    tensor(0.3133)
    """
    t = targets(classes.shape[1], h.shape[1]).to(h)
    cosine = torch.nn.functional.normalize(h, dim=1) @ t.T / h.shape[1] ** 0.5
    belongs = classes.to(h)
    logs = (scale * (cosine - margin * belongs)).log_softmax(1)
    of_items = -(belongs * logs).sum(1) / belongs.sum(1).clamp(min=1)
    return of_items.sum() / classes.any(1).sum().clamp(min=1)


@lru_cache(maxsize=16)
def targets(classes: int, bits: int) -> Tensor:
    """Codes of -1 and 1 (classes, bits), the same for every call: rows of Hadamard's matrix, half
    of whose entries differ between any two, where bits are a power of 2 and at least as many as
    classes; otherwise random ones.

    >>> t = targets(3, 8)
    >>> (t @ t.T).tolist()
    [[8.0, 0.0, 0.0], [0.0, 8.0, 0.0], [0.0, 0.0, 8.0]]
    """
    random = torch.Generator().manual_seed(bits)
    if bits & (bits - 1) == 0 and bits >= classes:
        rows = torch.ones(1, 1)
        while len(rows) < bits:
            rows = torch.cat([torch.cat([rows, rows], 1), torch.cat([rows, -rows], 1)])
        # Columns are negated at random: the first row and the first column are ones.
        signs = torch.randint(0, 2, (bits,), generator=random) * 2 - 1
        chosen = torch.randperm(bits, generator=random)[:classes]
        return rows[chosen] * signs
    return (torch.randint(0, 2, (classes, bits), generator=random) * 2 - 1).float()

"""DMIH's balance at instance level: phi of section 4.2.1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from faiss_dmih.encoders.losses.distance import SCALE, mean, pairs, substring_distances


def instance_level_loss(
    h: Tensor,
    cuts: Sequence[int],
    bucket: Tensor,
    group: Tensor,
    subgroup: Tensor,
    *,
    scale: float = SCALE,
) -> Tensor:
    """Mean of phi over the pairs that share an overfull bucket, once for each table where they do:

        phi = D_j                 for two of the same subgroup
              max(0, 1 - D_j)     for two of the same group, in different subgroups
              max(0, 2 - D_j)     for two of different groups

    D_j is their distance in the table's substring. The gradient of ||h - g||^2 vanishes at h = g:
    phi cannot part identical relaxed codes by itself.

    Args:
        h: relaxed codes (n, l).
        cuts: lengths of the m substrings.
        bucket: (n, m) int, the overfull bucket of each item in each table, -1 where it is in none.
        group: (n,) int, items with the same full code.
        subgroup: (n,) int, which part of its group an item was put into.
        scale: of ||.||^2 in D_j.

    >>> h = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    >>> phi = lambda group, subgroup: instance_level_loss(
    ...     h, [2], torch.tensor([[7], [7]]), torch.tensor(group), torch.tensor(subgroup))
    >>> phi([0, 0], [0, 0]), phi([0, 0], [0, 1]), phi([0, 1], [0, 0])
    (tensor(0.2500), tensor(0.7500), tensor(1.7500))
    """
    d = substring_distances(h, cuts, scale)
    by_table = bucket.T
    together = (by_table[:, :, None] == by_table[:, None, :]) & (by_table[:, :, None] >= 0)
    same_group = group[:, None] == group[None, :]
    same_subgroup = same_group & (subgroup[:, None] == subgroup[None, :])
    phi = torch.where(same_subgroup, d, torch.relu(torch.where(same_group, 1.0, 2.0) - d))
    return mean(phi, together & pairs(len(h), h.device))

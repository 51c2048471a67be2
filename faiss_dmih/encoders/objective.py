"""What a head is trained for: the weighted sum of losses, (2) of the DMIH paper and its parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from faiss_dmih.encoders.losses import (
    adjacency_loss,
    codes_loss,
    feature_level_loss,
    instance_level_loss,
    orthogonal_loss,
    pairwise_loss,
    quantisation_loss,
    triplet_loss,
)
from faiss_dmih.encoders.losses.distance import SCALE

LOSSES = ("triplet", "pairwise", "codes", "orthogonal")


@dataclass(frozen=True)
class Objective:
    """min loss + feature_weight * psi + instance_weight * phi, and the regularisers of others.

    Args:
        loss: "triplet", (2)'s first term and EDSH's (7); "pairwise", EDSH's (6); "codes", for
            which the codes of the training items are given in the place of labels (CNNH); or
            "orthogonal", for which labels are bool (n, classes) (OrthoHash).
        margin: in bits; None: an eighth of the bits of the head. That is DMIH's epsilon = l / 2 if
            its Euclidean distances are ||.||^2 without a scale, four times Hamming's.
        scale: of ||.||^2 in all distances; 1/4 makes them Hamming's at the corners.
        feature_weight: lambda, of psi. instance_weight: beta, of phi. The paper takes
            0.1 for both, of sums; here terms are means.
        bucket_limit: k'; buckets with more items are overfull.
        bucket_share: of each batch, drawn from overfull buckets if there is phi.
        quantisation_weight: of `quantisation_loss` (DeSH).
        adjacency_weight: of `adjacency_loss` (DRSCH).
    """

    loss: str = "triplet"
    margin: float | None = None
    scale: float = SCALE
    feature_weight: float = 0.0
    instance_weight: float = 0.0
    bucket_limit: int = 20
    bucket_share: float = 0.25
    quantisation_weight: float = 0.0
    adjacency_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"unknown loss {self.loss!r}: expected one of {', '.join(LOSSES)}")
        if self.bucket_limit < 1:
            raise ValueError(f"bucket_limit: got {self.bucket_limit}, expected at least 1")
        if not 0 <= self.bucket_share < 1:
            raise ValueError(f"bucket_share: got {self.bucket_share}, expected 0 to below 1")
        for name in (
            *("feature_weight", "instance_weight"),
            *("quantisation_weight", "adjacency_weight"),
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 0")

    def terms(
        self,
        h: Tensor,
        labels: Tensor,
        cuts: tuple[int, ...],
        snapshot: tuple[Tensor, Tensor, Tensor] | None,
    ) -> dict[str, Tensor]:
        """The terms of a batch, unweighted, by name; `total` is their weighted sum.

        `labels` are as `similarity` takes them, for the loss "codes" bool (n, bits), for
        "orthogonal" bool (n, classes). `snapshot`
        holds bucket, group and subgroup of the batch's items; without it, no phi.
        """
        margin = h.shape[1] / 8 if self.margin is None else self.margin
        if self.loss == "codes":
            if labels.shape != h.shape:
                raise ValueError(
                    f"got labels of shape {tuple(labels.shape)}, expected codes "
                    f"{tuple(h.shape)}: the loss 'codes' is CNNH's"
                )
            terms = {"codes": codes_loss(h, labels)}
        elif self.loss == "orthogonal":
            terms = {"orthogonal": orthogonal_loss(h, labels)}
        else:
            main = triplet_loss if self.loss == "triplet" else pairwise_loss
            terms = {self.loss: main(h, similarity(labels), margin, scale=self.scale)}
        total = terms[self.loss]
        if self.quantisation_weight > 0:
            terms["quantisation"] = quantisation_loss(h)
            total = total + self.quantisation_weight * terms["quantisation"]
        if self.adjacency_weight > 0:
            terms["adjacency"] = adjacency_loss(h, similarity(labels), scale=self.scale)
            total = total + self.adjacency_weight * terms["adjacency"]
        if self.feature_weight > 0:
            terms["psi"] = feature_level_loss(h, cuts, scale=self.scale)
            total = total + self.feature_weight * terms["psi"]
        if self.instance_weight > 0 and snapshot is not None:
            terms["phi"] = instance_level_loss(h, cuts, *snapshot, scale=self.scale)
            total = total + self.instance_weight * terms["phi"]
        return {**terms, "total": total}


def check_labels(labels: object, n: int) -> NDArray[np.int64] | NDArray[np.bool_]:
    """Labels int (n,), or bool (n, classes) where an item has several.

    >>> check_labels([0, 1, 1], 3)
    array([0, 1, 1])
    """
    if labels is None:
        raise ValueError("labels are missing: supervised hashing needs one per item")
    array = np.asarray(labels)
    if array.ndim not in (1, 2) or len(array) != n:
        raise ValueError(
            f"labels: got shape {array.shape}, expected ({n},), or ({n}, classes) of bool where "
            f"items have several: there are {n} items"
        )
    if array.ndim == 1:
        if array.dtype.kind not in "iu":
            raise TypeError(f"labels: got dtype {array.dtype}, expected integers")
        return array.astype(np.int64)
    if array.dtype != np.bool_ and not np.isin(array, (0, 1)).all():
        raise TypeError(f"labels (n, classes): got dtype {array.dtype}, expected bool")
    return array.astype(np.bool_)


def similarity(labels: Tensor) -> Tensor:
    """Which pairs are similar, bool (n, n): the same label, or one in common.

    >>> import torch
    >>> similarity(torch.tensor([3, 5, 3])).tolist()
    [[True, False, True], [False, True, False], [True, False, True]]
    """
    if labels.ndim == 1:
        return labels[:, None] == labels[None, :]
    as_float = labels.float()
    return as_float @ as_float.T > 0

"""The losses, one per file, on a batch of relaxed codes h (n, bits) in [-1, 1].

Distances are ||h - g||^2 / 4 by default, which is the Hamming distance where h and g are corners of
the cube: margins are in bits. Every loss is a mean, over what its docstring says, so that weights
between losses mean the same for all batch sizes; where there is nothing to take the mean of, it is
zero, with a gradient of zero.
"""

from faiss_dmih.encoders.losses.adjacency import adjacency_loss
from faiss_dmih.encoders.losses.codes import codes_loss
from faiss_dmih.encoders.losses.feature_level import feature_level_loss
from faiss_dmih.encoders.losses.instance_level import instance_level_loss
from faiss_dmih.encoders.losses.orthogonal import orthogonal_loss, targets
from faiss_dmih.encoders.losses.pairwise import pairwise_loss
from faiss_dmih.encoders.losses.quantisation import quantisation_loss
from faiss_dmih.encoders.losses.triplet import triplet_loss

__all__ = [
    "adjacency_loss",
    "codes_loss",
    "feature_level_loss",
    "instance_level_loss",
    "orthogonal_loss",
    "pairwise_loss",
    "quantisation_loss",
    "targets",
    "triplet_loss",
]

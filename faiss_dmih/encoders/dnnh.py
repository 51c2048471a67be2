"""DNNH: divide and encode."""

from __future__ import annotations

from faiss_dmih.encoders.dmih import DMIH
from faiss_dmih.encoders.encoder import register
from faiss_dmih.encoders.objective import Objective


@register
class DNNH(DMIH):
    """Lai, Pan, Liu and Yan, *Simultaneous feature learning and hash coding with deep neural
    networks*, CVPR 2015: triplets on bits that each have features of their own.

    The features of an image are cut into one slice of 50 per bit; each slice becomes one bit by a
    linear layer, a sigmoid and a piece-wise threshold (`nets.Divided`, `nets.thresholded`). With
    F in [0, 1]^bits the loss of a triplet is

        max(0, 1 - ||F - F-||^2 + ||F - F+||^2)

    that is, in this package's distances, the triplet loss with a margin of 1 bit, for codes of any
    length. That margin is met by few bits, and leaves most of the others constant
    (docs/methods.md); so the default here is that of the other triplet losses, an eighth of the
    bits, and `Objective(margin=1)` is the published one. As the backbones here end in other numbers
    of features, a linear layer of 50 per bit with rectified units comes before the slices.

    Arguments are those of `DMIH`.
    """

    default_objective = Objective()
    head = "divided"

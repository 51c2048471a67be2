"""DeSH: deep supervised hashing."""

from __future__ import annotations

from faiss_dmih.encoders.dmih import DMIH
from faiss_dmih.encoders.encoder import register
from faiss_dmih.encoders.objective import Objective


@register
class DeSH(DMIH):
    """Liu, Wang, Shan and Chen, *Deep supervised hashing for fast image retrieval*, CVPR 2016
    (there DSH): pairs drawn together or pushed apart, and outputs drawn to -1 and 1.

    Of a pair with outputs b_1, b_2 of k bits, y = 0 if they are similar, else 1:

        (1 - y) / 2 ||b_1 - b_2||^2 + y / 2 max(m - ||b_1 - b_2||^2, 0)
            + alpha (|| |b_1| - 1 ||_1 + || |b_2| - 1 ||_1),   m = 2 k, alpha = 0.01

    In this package's distances, a quarter of ||.||^2, the margin is k / 2 bits, and the objective
    is half of this: `Objective("pairwise", margin=bits / 2, quantisation_weight=0.01)`. There is no
    activation, as published: the regulariser takes its place, so relaxed codes have no bounds.

    Arguments are those of `DMIH`.
    """

    head = "linear"

    @classmethod
    def objective_for(cls, bits: int) -> Objective:
        return Objective("pairwise", margin=bits / 2, quantisation_weight=0.01)

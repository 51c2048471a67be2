"""DRSCH: bit-scalable hashing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from faiss_dmih.encoders.dmih import DMIH
from faiss_dmih.encoders.encoder import register
from faiss_dmih.encoders.objective import Objective


@register
class DRSCH(DMIH):
    """Zhang, Lin, Zhang, Zuo and Zhang, *Bit-scalable deep hashing with regularized similarity
    learning for image retrieval and person re-identification*, TIP 2015: triplets on weighted bits,
    and similar items drawn together.

    Each bit has a learnt weight w_k, with which its output is multiplied; distances are of the
    products, D(h, g) = sum_k w_k^2 (h_k - g_k)^2 / 4, and the loss is

        mean over triplets of max(0, margin + D(a, p) - D(a, n)) + lambda * tr(H^T L H)

    L being the Laplacian of the graph of similar items. Their authors' code has a margin of 5 for
    64 bits, and weights the regulariser with 0.001 beside a sum over triplets; here are the margin
    of the other methods, an eighth of the bits, and a mean over similar pairs times 0.01.

    **Codes are the signs, and plain Hamming search ignores the weights**: the paper shortens codes
    by dropping bits of small weight, and searches with tables of weights. `bit_weights` has them.

    Arguments are those of `DMIH`.
    """

    default_objective = Objective(adjacency_weight=0.01)
    head = "weighted"

    @property
    def bit_weights(self) -> NDArray[np.float32]:
        """w_k^2 of each bit, float32 (bits,)."""
        (part,) = self._fitted()
        weights: NDArray[np.float32] = part.head.weights.detach().square().numpy()
        return weights

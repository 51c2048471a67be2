"""How much the bits of a set of codes repeat each other.

>>> import numpy as np
>>> from faiss_dmih.codes import pack
>>> xb = pack(np.array([[0, 0, 1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]]))
>>> mean_absolute_correlation(xb)  # three bits vary, and each tells the others
Correlation(value=1.0, constant_bits=5)
>>> distinct_codes(xb)
2
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from faiss_dmih.codes import check_codes, unpack
from faiss_dmih.metrics.ranking import Floats, blocks, mean
from faiss_dmih.reference import hamming

_BLOCK = 1 << 14


class Correlation(NamedTuple):
    """Mean absolute correlation between bits."""

    value: float
    """In [0, 1]; NaN where fewer than two bits vary."""
    constant_bits: int
    """Bits that are the same in all codes, and left out."""


def correlation_matrix(xb: ArrayLike) -> Floats:
    """Pearson's correlation of each two bits over codes uint8 (n, bits / 8): (bits, bits).

    A bit that is the same in all codes has no variance and hence no correlation: its row and column
    are NaN. Bits are counted in integers, so equal bits have correlation 1 exactly.

    >>> correlation_matrix(np.array([[0b00], [0b11]], dtype=np.uint8))[:2, :2]
    array([[1., 1.],
           [1., 1.]])
    """
    codes = check_codes(xb, None, "xb")
    n, bits = len(codes), 8 * codes.shape[1]
    ones, differ = np.zeros(bits, np.int64), np.zeros((bits, bits), np.int64)
    for block in blocks(n, _BLOCK):
        columns = unpack(codes[block]).T
        ones += columns.sum(axis=1)
        packed = np.packbits(columns, axis=1)
        differ += hamming(packed, packed)
    both = (ones[:, None] + ones - differ) // 2  # codes in which bits i and j are set
    covariance = n * both - np.outer(ones, ones)  # times n^2
    variance = covariance.diagonal().astype(np.float64)
    # The root of a square is exact: |C| is 1 for equal bits, and never more.
    scale = np.sqrt(np.outer(variance, variance))
    out = np.full((bits, bits), np.nan)
    np.divide(covariance, scale, out=out, where=scale > 0)
    return out


def mean_absolute_correlation(xb: ArrayLike) -> Correlation:
    """mAC of codes uint8 (n, bits / 8); equation (1) of the paper on ensembles:

        mAC = 2 / (k (k - 1)) * sum_i sum_{j > i} |C_ij|

    with C_ij the correlation of bits i and j. The paper takes all bits; here k counts those that
    vary, because the others have no correlation.
    """
    return of_matrix(correlation_matrix(xb))


def of_matrix(correlation: Floats) -> Correlation:
    """mAC of a matrix that `correlation_matrix` has made."""
    varies = ~np.isnan(correlation.diagonal())
    pairs = np.triu(np.outer(varies, varies), k=1)
    return Correlation(mean(np.abs(correlation[pairs])), int((~varies).sum()))


def distinct_codes(xb: ArrayLike) -> int:
    """How many different codes there are among codes uint8 (n, bits / 8)."""
    codes = check_codes(xb, None, "xb")
    return len(np.unique(codes.view(f"V{codes.shape[1]}").ravel()))

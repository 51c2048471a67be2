"""What an answer is worth, against the answer of IndexBinaryFlat.

D is (nq, k) distances, I is (nq, k) ids, -1 where there are fewer than k codes. Hamming distances
tie massively, so there are two measures of an approximate answer:

- *recall@k* counts returned ids that are among the exact answer's k ids. An index that returns
  another code at the same distance as the k-th loses here.
- *distance recall@k* counts returned codes that are no farther than the true k-th distance. Any
  choice among ties is right here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def difference(D: Array, I: Array, D_true: Array, I_true: Array) -> str:
    """Empty if both arrays are equal bit for bit, else where they differ first."""
    for got, true, name in ((D, D_true, "D"), (I, I_true, "I")):
        if got.shape != true.shape or got.dtype != true.dtype:
            return f"{name} is {got.dtype}{got.shape}, expected {true.dtype}{true.shape}"
    wrong = (D_true != D) | (I_true != I)
    if not wrong.any():
        return ""
    q, rank = np.argwhere(wrong)[0]
    return (
        f"answer differs from IndexBinaryFlat's in {wrong.sum()} of {wrong.size} places, first at "
        f"query {q}, rank {rank}: got (D, I) = ({D[q, rank]}, {I[q, rank]}), expected "
        f"({D_true[q, rank]}, {I_true[q, rank]})"
    )


def recall(I: Array, I_true: Array) -> float:
    """Fraction of the true ids that were returned, over all queries."""
    found = sum(
        np.isin(true[true >= 0], got[got >= 0]).sum() for got, true in zip(I, I_true, strict=True)
    )
    return _fraction(found, (I_true >= 0).sum())


def distance_recall(D: Array, I: Array, D_true: Array, I_true: Array) -> float:
    """Fraction of the slots filled with a code no farther than the true k-th distance."""
    kth = np.where(I_true >= 0, D_true, -1).max(axis=1, keepdims=True)
    return _fraction(((I >= 0) & (kth >= D)).sum(), (I_true >= 0).sum())


def _fraction(part: Any, whole: Any) -> float:
    return float(part) / float(whole) if whole else 1.0

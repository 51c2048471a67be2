"""What an answer is worth, against the answer of IndexBinaryFlat.

D is (nq, k) distances, I is (nq, k) ids, -1 where there are fewer than k codes. Hamming distances
tie massively, so there are two measures of an approximate answer:

- *recall@k* counts returned ids that are among the exact answer's k ids. An index that returns
  another code at the same distance as the k-th loses here.
- *distance recall@k* counts returned codes that are no farther than the true k-th distance. Any
  choice among ties is right here.

The answer of a range search is lims (nq + 1,), D and I (lims[nq],): the answers to query i are at
lims[i] to lims[i + 1]. It has one recall, the fraction of the true ids that were returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def difference(D: Array, I: Array, D_true: Array, I_true: Array) -> str:
    """Empty if both arrays are equal bit for bit, else where they differ first."""
    if odd := _odd_array(("D", "I"), (D, I), (D_true, I_true)):
        return odd
    wrong = (D_true != D) | (I_true != I)
    if not wrong.any():
        return ""
    q, rank = np.argwhere(wrong)[0]
    return (
        f"{_DIFFERS} {wrong.sum()} of {wrong.size} places, first at "
        f"query {q}, rank {rank}: got (D, I) = ({D[q, rank]}, {I[q, rank]}), expected "
        f"({D_true[q, rank]}, {I_true[q, rank]})"
    )


def range_difference(answer: Sequence[Array], truth: Sequence[Array]) -> str:
    """The same for the answers of range searches, (lims, D, I)."""
    counts, true_counts = np.diff(answer[0]), np.diff(truth[0])
    if len(counts) == len(true_counts) and (counts != true_counts).any():
        q = int(np.argmax(counts != true_counts))
        return (
            f"{_DIFFERS} how many codes are within the radius, first for query {q}: "
            f"got {counts[q]}, expected {true_counts[q]}"
        )
    if odd := _odd_array(("lims", "D", "I"), answer, truth):
        return odd
    (lims, D, I), (_, D_true, I_true) = answer, truth
    wrong = (D_true != D) | (I_true != I)
    if not wrong.any():
        return ""
    at = int(np.argmax(wrong))
    q = int(np.searchsorted(lims, at, side="right")) - 1
    return (
        f"{_DIFFERS} {wrong.sum()} of {wrong.size} places, first at query {q}, "
        f"place {at - int(lims[q])}: got (D, I) = ({D[at]:g}, {I[at]}), expected "
        f"({D_true[at]:g}, {I_true[at]})"
    )


_DIFFERS = "answer differs from IndexBinaryFlat's in"


def _odd_array(names: Sequence[str], answer: Sequence[Array], truth: Sequence[Array]) -> str:
    for got, true, name in zip(answer, truth, names, strict=True):
        if got.shape != true.shape or got.dtype != true.dtype:
            return f"{name} is {got.dtype}{got.shape}, expected {true.dtype}{true.shape}"
    return ""


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


def range_recall(answer: Sequence[Array], truth: Sequence[Array]) -> float:
    """Fraction of the ids within the radius that were returned, over all queries."""
    (lims, _, I), (lims_true, _, I_true) = answer, truth
    found = sum(
        np.isin(I_true[lims_true[q] : lims_true[q + 1]], I[lims[q] : lims[q + 1]]).sum()
        for q in range(len(lims_true) - 1)
    )
    return _fraction(found, len(I_true))


def _fraction(part: Any, whole: Any) -> float:
    return float(part) / float(whole) if whole else 1.0

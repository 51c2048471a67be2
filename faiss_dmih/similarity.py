"""Which items are similar: those that have the same label, or one in common.

The matrix of n items has one row for each different set of labels, so it is kept by those: products
with it cost n, not n^2, where labels are few.

>>> s = Similarity([0, 1, 0])
>>> s @ np.array([1.0, 10.0, 100.0])
array([ 91., -91.,  91.])
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def indicator(labels: Any) -> NDArray[np.bool_]:
    """Labels as bool (n, classes).

    Args:
        labels: (n,), any values that can be sorted, one per item; or 0/1 (n, classes), where items
            have several, or none.

    >>> indicator(["cat", "dog", "cat"]).astype(int)
    array([[1, 0],
           [0, 1],
           [1, 0]])
    """
    y = np.asarray(labels)
    if y.ndim == 1:
        if y.dtype.kind == "f" and not np.array_equal(y, np.rint(y)):
            raise ValueError("y: got numbers that are no integers, expected labels of classes")
        classes, numbers = np.unique(y, return_inverse=True)
        return np.asarray(np.arange(len(classes)) == numbers[:, None])
    if y.ndim != 2 or not np.isin(y, (0, 1)).all():
        raise ValueError(
            f"y: got an array of shape {y.shape}, expected labels (n,), or 0/1 (n, classes) where "
            "items have several"
        )
    return y.astype(np.bool_)


class Similarity:
    """The matrix S (n, n): 1 where two items share a label, else -1.

    Args:
        labels: as `indicator` takes them.

    Attributes:
        n: items. group: int64 (n,), items with the same set of labels.
        table: float64 (groups, groups), S between groups.
    """

    def __init__(self, labels: Any) -> None:
        y = indicator(labels)
        self.n = len(y)
        sets, group = np.unique(y, axis=0, return_inverse=True)
        self.group = group.reshape(-1).astype(np.int64)
        shared = sets.astype(np.float64)
        self.table: Floats = np.where(shared @ shared.T > 0, 1.0, -1.0)

    def sums(self, x: Floats) -> Floats:
        """Of the rows of x (n, k), by group: (groups, k)."""
        out = np.zeros((len(self.table), x.shape[1]))
        np.add.at(out, self.group, x)
        return out

    def __matmul__(self, x: Floats) -> Floats:
        """S @ x, for x (n,) or (n, k)."""
        if x.ndim == 1:
            by_group = np.bincount(self.group, x, len(self.table))
            return np.asarray((self.table @ by_group)[self.group])
        return np.asarray((self.table @ self.sums(x))[self.group])

    def rows(self, chosen: NDArray[np.int64]) -> Floats:
        """S[chosen], (len(chosen), n)."""
        return self.table[self.group[chosen]][:, self.group]

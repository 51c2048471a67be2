"""Answers of several shards as one.

A neighbour is one integer, its distance above its id: what is smaller is nearer, and of what is
equally near has the smaller id. Sorting them is merging.

>>> keys = pack(np.array([[3, 3]], np.int32), np.array([[9, 4]], np.int64))
>>> D, I = unpack(nearest([keys, keys + 1], 3))
>>> D.tolist(), I.tolist()
([[3, 3, 3]], [[4, 5, 9]])
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ID_BITS = 50
"""Of an id; a distance takes 13 more, for codes of up to 4,096 bits."""
NOBODY = np.iinfo(np.int64).max

Keys = NDArray[np.int64]
Ranges = tuple[NDArray[np.int64], NDArray[np.int16], NDArray[np.int64]]
"""lims (nq + 1,), distances and ids, as of range_search."""


def pack(D: NDArray[np.int32], I: NDArray[np.int64]) -> Keys:
    """Of neighbours as search has them; -1 among the ids is nobody."""
    return np.where(I < 0, NOBODY, D.astype(np.int64) << ID_BITS | I)


def unpack(keys: Keys) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """D and I as search has them."""
    nobody = keys == NOBODY
    D = np.where(nobody, np.iinfo(np.int32).max, keys >> ID_BITS).astype(np.int32)
    return D, np.where(nobody, -1, keys & ((1 << ID_BITS) - 1))


def nearest(lists: Sequence[Keys], k: int) -> Keys:
    """The k smallest of each row (nq, k) of several lists, which have at least k columns in all."""
    if len(lists) == 1 and lists[0].shape[1] == k:
        return lists[0]
    joined = np.concatenate(lists, axis=1)
    if joined.shape[1] > 2 * k:
        joined = np.partition(joined, k - 1, axis=1)[:, :k]
    joined.sort(axis=1)
    return joined[:, :k]


def union(found: Sequence[Ranges], nq: int) -> Ranges:
    """Of range searches for the same nq queries; ids ascend within each."""
    if not found:
        return np.zeros(nq + 1, np.int64), np.empty(0, np.int16), np.empty(0, np.int64)
    if len(found) == 1:
        return found[0]
    counts = [np.diff(lims) for lims, _, _ in found]
    query = np.concatenate([np.repeat(np.arange(nq), n) for n in counts])
    D = np.concatenate([D for _, D, _ in found])
    I = np.concatenate([I for _, _, I in found])
    order = np.lexsort((I, query))
    lims = np.concatenate([[0], np.cumsum(np.sum(counts, axis=0))]).astype(np.int64)
    return lims, D[order], I[order]

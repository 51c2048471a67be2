"""The oracle: exact Hamming search by brute force, in numpy.

It is here to be obviously right, not to be fast. Tests and benchmarks compare every answer with
it, bit for bit. Answers are ordered by (distance, id); of the codes tied at the k-th distance those
with the smallest ids win. Work goes block by block, so that memory stays bounded for any number of
codes.

>>> import numpy as np
>>> xb = np.array([[0b0000], [0b0111], [0b0001], [0b1000]], dtype=np.uint8)
>>> xq = np.array([[0b0000]], dtype=np.uint8)
>>> hamming(xq, xb)
array([[0, 3, 1, 1]], dtype=int32)
>>> D, I = knn(xb, xq, k=3)
>>> D, I
(array([[0, 1, 1]], dtype=int32), array([[0, 2, 3]]))
>>> lims, D, I = range_search(xb, xq, radius=2)
>>> lims, D, I
(array([0, 3], dtype=uint64), array([0., 1., 1.], dtype=float32), array([0, 2, 3]))
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .codes import check_codes

Number = TypeVar("Number", bound=np.generic)

NO_ID = -1
NO_DISTANCE = 2**31 - 1
"""What fills the places of an answer for which there is no code, as in FAISS."""

# A block of distances is 16 x 16,384 int32 = 1 MiB: it stays in cache.
_QUERY_BLOCK = 16
_CODE_BLOCK = 1 << 14


def hamming(xa: ArrayLike, xb: ArrayLike) -> NDArray[np.int32]:
    """All Hamming distances between two sets of packed codes: int32 `(len(xa), len(xb))`.

    >>> codes = np.array([[255, 0], [255, 3], [0, 255]], dtype=np.uint8)
    >>> hamming(codes[:1], codes)
    array([[ 0,  2, 16]], dtype=int32)
    """
    a, b = _check_pair(xa, xb, "xa", "xb")
    # One 8-byte word of all pairs at a time: no array is ever larger than the result.
    a_words, b_words = _words(a), _words(b)
    distances = np.zeros((len(a), len(b)), dtype=np.int32)
    for word in range(a_words.shape[1]):
        distances += _popcount(a_words[:, word, None] ^ b_words[None, :, word])
    return distances


def knn(
    xb: ArrayLike, xq: ArrayLike, k: int, *, mask: ArrayLike | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The k nearest codes of `xb` for each query: `D` int32 and `I` int64, both `(nq, k)`.

    `mask` (bool, one per code) leaves out the codes for which it is false. Places without a code
    hold id -1 and distance 2147483647.

    >>> xb = np.array([[0], [1], [3]], dtype=np.uint8)
    >>> knn(xb, xb[:1], k=2, mask=[True, False, True])
    (array([[0, 2]], dtype=int32), array([[0, 2]]))
    >>> D, I = knn(xb, xb[:1], k=4)
    >>> D.tolist(), I.tolist()
    ([[0, 1, 2, 2147483647]], [[0, 1, 2, -1]])
    """
    if k <= 0:
        raise ValueError(f"got k = {k}, expected at least 1")
    b, q = _check_pair(xb, xq, "xb", "xq")
    allowed = _check_mask(mask, len(b))
    D = np.full((len(q), k), NO_DISTANCE, dtype=np.int32)
    I = np.full((len(q), k), NO_ID, dtype=np.int64)
    for row, first_id, distances in _distances_by_block(b, q):
        # Ids only grow from block to block, so a tie with the k-th distance found so far loses.
        here = allowed[first_id : first_id + len(distances)]
        found = np.flatnonzero((distances < D[row, -1]) & here)
        together = np.concatenate([D[row], distances[found]])
        ids = np.concatenate([I[row], first_id + found])
        # A stable sort keeps ascending ids among equal distances.
        nearest = np.argsort(together, kind="stable")[:k]
        D[row], I[row] = together[nearest], ids[nearest]
    return D, I


def range_search(
    xb: ArrayLike, xq: ArrayLike, radius: int, *, mask: ArrayLike | None = None
) -> tuple[NDArray[np.uint64], NDArray[np.float32], NDArray[np.int64]]:
    """All codes of `xb` at a distance below `radius` (strictly), for each query.

    Returns `lims` uint64 `(nq + 1,)`, `D` float32 and `I` int64: the answer for query `i` is
    `I[lims[i]:lims[i + 1]]`, by ascending id. `mask` is as in `knn`.

    >>> xb = np.array([[0], [1], [3]], dtype=np.uint8)
    >>> range_search(xb, xb[:2], radius=2)[0]
    array([0, 2, 5], dtype=uint64)
    """
    b, q = _check_pair(xb, xq, "xb", "xq")
    allowed = _check_mask(mask, len(b))
    D: list[list[NDArray[Any]]] = [[] for _ in range(len(q))]
    I: list[list[NDArray[Any]]] = [[] for _ in range(len(q))]
    for row, first_id, distances in _distances_by_block(b, q):
        here = allowed[first_id : first_id + len(distances)]
        found = np.flatnonzero((distances < radius) & here)
        D[row].append(distances[found])
        I[row].append(first_id + found)
    lims = np.zeros(len(q) + 1, dtype=np.uint64)
    lims[1:] = np.cumsum([sum(map(len, parts)) for parts in I])
    return lims, _flat(D, np.float32), _flat(I, np.int64)


def _distances_by_block(
    xb: NDArray[np.uint8], xq: NDArray[np.uint8]
) -> Iterator[tuple[int, int, NDArray[np.int32]]]:
    """For each query and each block of codes: the query, the block's first id, the distances.

    A query meets the blocks in ascending order of their ids.
    """
    for first_query in range(0, len(xq), _QUERY_BLOCK):
        queries = xq[first_query : first_query + _QUERY_BLOCK]
        for first_id in range(0, len(xb), _CODE_BLOCK):
            block = hamming(queries, xb[first_id : first_id + _CODE_BLOCK])
            for row, distances in enumerate(block, start=first_query):
                yield row, first_id, distances


_BITS_OF_BYTE = np.array([byte.bit_count() for byte in range(256)], dtype=np.uint8)


def _popcount(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    bits: NDArray[np.uint8]
    if hasattr(np, "bitwise_count"):
        bits = np.bitwise_count(words)
    else:  # numpy before 2.0
        bytes_of_word = words.view(np.uint8).reshape(*words.shape, 8)
        bits = _BITS_OF_BYTE[bytes_of_word].sum(axis=-1, dtype=np.uint8)
    return bits


def _flat(parts_of_rows: list[list[NDArray[Any]]], dtype: type[Number]) -> NDArray[Number]:
    parts = [part for parts in parts_of_rows for part in parts]
    return np.concatenate([np.empty(0, dtype), *parts]).astype(dtype)


def _words(codes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The same codes as 8-byte words, with zeros after the last byte."""
    n, code_size = codes.shape
    padded = np.zeros((n, -(-code_size // 8) * 8), dtype=np.uint8)
    padded[:, :code_size] = codes
    return padded.view(np.uint64)


def _check_pair(
    xa: ArrayLike, xb: ArrayLike, name_a: str, name_b: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    a = check_codes(xa, None, name_a)
    return a, check_codes(xb, a.shape[1], name_b)


def _check_mask(mask: ArrayLike | None, n: int) -> NDArray[np.bool_]:
    if mask is None:
        return np.ones(n, dtype=np.bool_)
    allowed = np.asarray(mask)
    if allowed.dtype != np.bool_:
        raise TypeError(f"mask: got dtype {allowed.dtype}, expected bool")
    if allowed.shape != (n,):
        raise ValueError(f"mask: got shape {allowed.shape}, expected ({n},): one per code of xb")
    return allowed

"""How codes spread over the hash tables of multi-index hashing, and what a search then costs.

`cuts` are the lengths in bits of the consecutive substrings, one table each, as `IndexDMIH.cuts`.
An item lies in one bucket of every table: that of its substring.

>>> import numpy as np
>>> xb = np.array([[0x00], [0x01], [0x10], [0x11]], dtype=np.uint8)
>>> [sizes.tolist() for sizes in bucket_sizes(xb, [4, 4])]
[[2, 2], [2, 2]]
>>> bucket_entropy(xb, [4, 4]).bits
1.0
>>> expected_candidates(xb, xb[:1], [4, 4], k=1).entries.tolist()
[2]
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from faiss_dmih.codes import check_codes
from faiss_dmih.metrics.ranking import (
    CODE_BLOCK,
    QUERY_BLOCK,
    Counts,
    blocks,
    count_rows,
    mean,
)
from faiss_dmih.options import check_cuts
from faiss_dmih.reference import hamming

Keys = NDArray[np.uint64]


class BucketEntropy(NamedTuple):
    """Equation (3) of *Deep Multi-Index Hashing*, for each table."""

    per_table: tuple[float, ...]
    """Entropy of the bucket of a random item, natural logarithm; NaN without items."""

    @property
    def nats(self) -> float:
        """The mean over tables: E(H) with the natural logarithm."""
        return mean(np.array(self.per_table))

    @property
    def bits(self) -> float:
        """The mean over tables: E(H) with the logarithm to base 2."""
        return self.nats / math.log(2)


class BucketHistogram(NamedTuple):
    """Buckets by size, in powers of two: place i stands for 2^i to 2^(i + 1) - 1 items."""

    buckets: Counts
    """How many buckets have such a size."""
    items: Counts
    """How many items lie in them."""


class Candidates(NamedTuple):
    """What plain multi-index hashing looks at, for each query: int64 (nq,)."""

    entries: Counts
    """Items met in buckets. An item met in several tables counts once for each."""
    buckets: Counts
    """Buckets looked up, empty ones included."""


def bucket_sizes(xb: ArrayLike, cuts: Sequence[int]) -> list[Counts]:
    """For each table the sizes of its buckets that are not empty, the largest first: int64.

    Args:
        xb: codes uint8 (n, bits / 8).
        cuts: substring lengths in bits, which sum to `bits`, each in [1, 26].

    Raises:
        TypeError, ValueError: `xb` are no codes, or `cuts` do not fit them.
    """
    codes, lengths = _check(xb, cuts)
    counts = [np.unique(keys, return_counts=True)[1] for keys in _keys(codes, lengths)]
    return [np.sort(sizes)[::-1].astype(np.int64) for sizes in counts]


def entropy(sizes: Sequence[Counts]) -> BucketEntropy:
    """The entropy of tables that have buckets of these sizes."""
    out = []
    for table in sizes:
        p = table / max(table.sum(), 1)
        # Sizes are at least 1, so the logarithm exists; + 0.0 makes -0.0 of one bucket 0.0.
        out.append(float(-(p * np.log(p)).sum()) + 0.0 if len(p) else math.nan)
    return BucketEntropy(tuple(out))


def bucket_entropy(xb: ArrayLike, cuts: Sequence[int]) -> BucketEntropy:
    """How evenly the items fill the tables; equation (3) of *Deep Multi-Index Hashing*:

        E(H) = -1/m * sum_j sum_i p_j(i) log p_j(i),    p_j(i) = n_j(i) / n,

    over tables j and buckets i. The paper does not name the base of the logarithm: here are both.
    No table exceeds min(log n, log 2^bits of its substring). Arguments are those of `bucket_sizes`.
    """
    return entropy(bucket_sizes(xb, cuts))


def bucket_histogram(sizes: Counts) -> BucketHistogram:
    """Count the buckets of one table by size.

    >>> bucket_histogram(np.array([5, 1, 1]))
    BucketHistogram(buckets=array([2, 0, 1]), items=array([2, 0, 5]))
    """
    exponents = np.frexp(sizes)[1] - 1
    # Sums of integers below 2^53: exact in float64.
    items = np.bincount(exponents, weights=sizes).astype(np.int64)
    return BucketHistogram(np.bincount(exponents).astype(np.int64), items)


@dataclass(frozen=True, eq=False)
class Probing:
    """What lies around the queries in each table; from it, what a search looks at.

    Plain multi-index hashing is the papers' progressive search (`IndexDMIH(mode="mih")`): table
    after table at radius 0, then table after table at radius 1, and so on. Step s visits the
    buckets of table s mod m whose keys differ from the query's in exactly floor(s / m) bits. After
    s steps every item at a distance < s has been met. So a search for everything within a
    distance r takes r + 1 steps, and one for the k nearest as many if r is the distance of the
    k-th: only then is it certain that no nearer item is left. A search ends in any case when a
    table has been visited entirely.
    """

    distances: Counts
    """Items at each distance 0 .. bits from each query: int64 (nq, bits + 1)."""
    near: tuple[Counts, ...]
    """For table j, entries at each distance 0 .. cuts[j] from the query's substring."""
    cuts: tuple[int, ...]

    @classmethod
    def of(
        cls,
        xb: ArrayLike,
        xq: ArrayLike,
        cuts: Sequence[int],
        *,
        distances: Counts | None = None,
    ) -> Probing:
        """Compare all queries with all items, and with all keys of the tables.

        Args:
            xb: codes of the database, uint8 (n, bits / 8).
            xq: codes of the queries, uint8 (nq, bits / 8).
            cuts: substring lengths in bits, which sum to `bits`, each in [1, 26].
            distances: `Ranking.items` of the same codes, where they have been counted already.

        Raises:
            TypeError, ValueError: codes are no codes, or `cuts` do not fit them.
        """
        b, lengths = _check(xb, cuts)
        q = check_codes(xq, b.shape[1], "xq")
        if distances is None:
            distances = _weighted_distances(q, b, np.ones(len(b)), 8 * b.shape[1])
        near = []
        tables = zip(_keys(b, lengths), _keys(q, lengths), lengths, strict=True)
        for of_items, of_queries, length in tables:
            # Items that share a bucket are compared once.
            keys, sizes = np.unique(of_items, return_counts=True)
            near.append(_weighted_distances(_bytes(of_queries), _bytes(keys), sizes, length))
        return cls(distances, tuple(near), lengths)

    def knn(self, k: int) -> Candidates:
        """Until the k nearest are certain; where there are fewer items, until all have been met.

        Raises:
            ValueError: k < 1.
        """
        if operator.index(k) < 1:
            raise ValueError(f"got k = {k}, expected at least 1")
        # The first radius within which there are k items; past the last one if there never are.
        return self._to((np.cumsum(self.distances, axis=1) < k).sum(axis=1))

    def within(self, radius: int) -> Candidates:
        """Until everything at a distance <= `radius` is certain to have been met.

        Raises:
            ValueError: `radius` < 0.
        """
        if operator.index(radius) < 0:
            raise ValueError(f"got radius = {radius}, expected at least 0")
        return self._to(np.full(len(self.distances), radius))

    def _to(self, radius: Counts) -> Candidates:
        """To the distance `radius[i]` for query i."""
        m = len(self.cuts)
        # The steps after which a table has been visited entirely: table j takes step r m + j.
        last = min(length * m + j for j, length in enumerate(self.cuts))
        steps = np.minimum(radius, last) + 1
        entries, buckets = np.zeros((2, len(radius)), np.int64)
        for j, (near, length) in enumerate(zip(self.near, self.cuts, strict=True)):
            rings = (steps + m - 1 - j) // m  # how many of the steps are table j's
            choices = [math.comb(length, r) for r in range(length + 1)]
            entries += _first(near, rings)
            buckets += _first(np.broadcast_to(choices, near.shape), rings)
        return Candidates(entries, buckets)


def expected_candidates(
    xb: ArrayLike,
    xq: ArrayLike,
    cuts: Sequence[int],
    *,
    k: int | None = None,
    radius: int | None = None,
) -> Candidates:
    """What plain multi-index hashing looks at to find the k nearest, or all within `radius`.

    As `Probing.knn` and `Probing.within` count it: the `probes` and `candidates` that
    `faiss_dmih.stats()` adds up for `IndexDMIH(mode="mih", cuts=cuts)`, per query. Distances
    <= `radius` are within: what `range_search` is asked for by `radius + 1`. Their mean over the
    queries estimates what another query of the kind will cost.

    Raises:
        TypeError: neither or both of `k` and `radius` are given.
        ValueError: k < 1, `radius` < 0, or `cuts` do not fit the codes.
    """
    if k is not None and radius is None:
        return Probing.of(xb, xq, cuts).knn(k)
    if radius is not None and k is None:
        return Probing.of(xb, xq, cuts).within(radius)
    raise TypeError(f"got k = {k} and radius = {radius}, expected one of them")


def _first(counts: NDArray[Any], rings: Counts) -> Counts:
    """For each row the sum of its first `rings[i]` entries."""
    sums = np.cumsum(np.pad(counts, ((0, 0), (1, 0))), axis=1, dtype=np.int64)
    return np.take_along_axis(sums, rings[:, None], axis=1)[:, 0]


def _weighted_distances(
    xq: NDArray[np.uint8], xb: NDArray[np.uint8], weights: NDArray[Any], bits: int
) -> Counts:
    """What the rows of `xb` at each distance from each row of `xq` weigh: int64 (nq, bits + 1)."""
    out = np.zeros((len(xq), bits + 1))  # of integers below 2^53: exact
    for items in blocks(len(xb), CODE_BLOCK):
        for queries in blocks(len(xq), QUERY_BLOCK):
            distances = hamming(xq[queries], xb[items])
            out[queries] += count_rows(distances, bits + 1, weights[items])
    return out.astype(np.int64)


def _keys(codes: NDArray[np.uint8], cuts: Sequence[int]) -> Iterator[Keys]:
    """The substrings of all codes as numbers, for one table after the other: uint64 (n,)."""
    begin = 0
    for length in cuts:
        end = begin + length
        # 26 bits lie in 5 bytes at the most.
        touched = codes[:, begin // 8 : -(-end // 8)]
        window = np.zeros((len(codes), 8), np.uint8)
        window[:, : touched.shape[1]] = touched
        word = window.view("<u8")[:, 0]
        yield (word >> np.uint64(begin % 8)) & np.uint64((1 << length) - 1)
        begin = end


def _bytes(keys: Keys) -> NDArray[np.uint8]:
    """Numbers as packed codes of 64 bits."""
    return keys.view(np.uint8).reshape(len(keys), 8)


def _check(xb: ArrayLike, cuts: Sequence[int]) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    codes = check_codes(xb, None, "xb")
    checked = check_cuts(cuts, 8 * codes.shape[1])
    if checked is None:
        raise TypeError("got cuts = None, expected a list of substring lengths in bits")
    return codes, checked

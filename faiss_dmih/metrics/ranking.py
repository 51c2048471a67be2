"""How good a Hamming ranking is, whatever the order among items at the same distance.

Codes of b bits have b + 1 distances, so most items of a database are tied with others and a ranking
by distance is no order but a list of *levels*. Every figure here is the exact expectation over all
orders within the levels, each as likely as any other, after McSherry and Najork (*Computing
information retrieval performance measures efficiently in the presence of tied scores*, 2008). Only
two counts per query and level enter: items, and relevant ones. `Ranking` holds them; the functions
are for those who want one figure.

An item is relevant to a query if their labels are equal or, with several labels each, if they
share one. Where no item of the database is relevant to a query its average precision is 0 / 0. Such
a query is left out of all figures of this module, and `without_relevant` says how many there were.
A figure for which no query is left is NaN.

>>> import numpy as np
>>> xb = np.array([[0b0000], [0b0001], [0b0010]], dtype=np.uint8)
>>> xq = np.array([[0b0000]], dtype=np.uint8)
>>> found = mean_average_precision(xb, xq, [7, 7, 4], [7])  # the last two are tied
>>> round(found.lowest, 4), round(found.value, 4), found.highest
(0.8333, 0.9167, 1.0)
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from faiss_dmih.codes import check_codes
from faiss_dmih.reference import hamming

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

# A block of distances is 16 x 16,384: what is made of it stays in cache.
QUERY_BLOCK = 16
CODE_BLOCK = 1 << 14

_CURVE_RANKS = 200


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """Mean average precision, and how much of it is up to the order among ties."""

    value: float
    """The mean over queries of the expected average precision."""
    lowest: float
    """The same if within each distance all irrelevant items came first."""
    highest: float
    """The same if within each distance all relevant items came first."""
    per_query: Floats
    """The expected average precision of each query (nq,); NaN where no item is relevant."""
    without_relevant: int
    """Queries that are left out, because no item is relevant to them."""


class Curve(NamedTuple):
    """Precision and recall where the answer ends at each of `at`, three arrays of one length."""

    at: Counts
    """Ranks (items answered) or radii (distances answered, this one included)."""
    precision: Floats
    recall: Floats


class WithinRadius(NamedTuple):
    """What looking up everything within a Hamming radius gives, on average over queries."""

    precision: float
    """Relevant items among those found; 0 for a query that finds nothing."""
    recall: float
    items: float
    """How many are found."""
    empty: int
    """Queries that find nothing."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """For each query and each distance 0 .. bits: how many items, how many relevant ones."""

    items: Counts
    """int64 (nq, bits + 1)."""
    relevant: Counts
    """int64 (nq, bits + 1)."""

    @classmethod
    def of(cls, xb: ArrayLike, xq: ArrayLike, yb: ArrayLike, yq: ArrayLike) -> Ranking:
        """Compare all queries with all items, block by block.

        Args:
            xb: codes of the database, uint8 (n, bits / 8).
            xq: codes of the queries, uint8 (nq, bits / 8).
            yb: labels of the database: integers (n,), or bool (n, classes) for several each.
            yq: labels of the queries, of the same kind.

        Raises:
            TypeError: codes are not uint8, labels neither integers nor bool.
            ValueError: shapes do not fit.
        """
        b = check_codes(xb, None, "xb")
        q = check_codes(xq, b.shape[1], "xq")
        of_items, of_queries = _check_labels(yb, yq, len(b), len(q))
        kinds = 2 * (8 * b.shape[1] + 1)
        counts = np.zeros((len(q), kinds), np.int64)
        for items in blocks(len(b), CODE_BLOCK):
            for queries in blocks(len(q), QUERY_BLOCK):
                kind = 2 * hamming(q[queries], b[items])
                kind += _relevant(of_queries[queries], of_items[items])
                counts[queries] += count_rows(kind, kinds)
        return cls(items=counts[:, 0::2] + counts[:, 1::2], relevant=counts[:, 1::2])

    @property
    def without_relevant(self) -> int:
        """Queries to which no item is relevant."""
        return int((~self._judged).sum())

    @property
    def _judged(self) -> NDArray[np.bool_]:
        return np.asarray(self.relevant.any(axis=1))

    def average_precision(self, at: int | None = None) -> AveragePrecision:
        """Mean average precision over the whole ranking, or over its first `at` places.

        A query with R relevant items has, over the places i of the ranking up to `at`,

            AP = 1 / min(R, at) * sum_i [item at i is relevant] * (relevant at 1 .. i) / i

        Consider a level of n items, r of them relevant, behind N items, R' of them relevant. The
        item at its place t is relevant with probability r / n; if it is, each of the t - 1 before
        it in the level is with probability (r - 1) / (n - 1). So the level adds on average

            r / n * sum_t (R' + 1 + (t - 1) (r - 1) / (n - 1)) / (N + t),    t = 1 .. T,

        where T = min(n, at - N) of its places count. With h = sum_t 1 / (N + t), a difference of
        harmonic numbers, the sum is (R' + 1) h + (T - (N + 1) h) (r - 1) / (n - 1). Nothing is
        approximated; rounding is below 1e-8 for a million items.

        Raises:
            ValueError: `at` < 1.
        """
        cut = self._n if at is None else _check_rank(at, "at")
        n, r = self.items, self.relevant
        before, relevant_before = np.cumsum(n, axis=1) - n, np.cumsum(r, axis=1) - r
        places = np.clip(cut - before, 0, n)
        harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, self._n + 1))])

        def run(relevant: Counts, first: Counts) -> Floats:
            """What so many relevant items in a row add, with `first` items before them."""
            # sum_t (R' + t) / (N + t) = x + (R' - N) h
            h = harmonic[first + relevant] - harmonic[first]
            return np.asarray((relevant + (relevant_before - first) * h).sum(axis=1))

        h = harmonic[before + places] - harmonic[before]
        others = (r - 1) / np.maximum(n - 1, 1)
        level = r / np.maximum(n, 1)
        level *= (relevant_before + 1) * h + others * (places - (before + 1) * h)
        irrelevant = n - r
        lowest = run(np.maximum(places - irrelevant, 0), before + irrelevant)
        highest = run(np.minimum(places, r), before)

        judged = self._judged
        best = np.minimum(r.sum(axis=1), cut)[judged]
        lowest, highest = lowest[judged] / best, highest[judged] / best
        per_query = np.full(len(n), np.nan)
        per_query[judged] = np.clip(level.sum(axis=1)[judged] / best, lowest, highest)
        return AveragePrecision(
            value=mean(per_query[judged]),
            lowest=mean(lowest),
            highest=mean(highest),
            per_query=per_query,
            without_relevant=self.without_relevant,
        )

    def precision_at(self, ns: Sequence[int]) -> Floats:
        """Expected share of relevant items among the first N, for each N: float64 (len(ns),).

        Of a level that N cuts, each item is as likely to be within as any other. Where N exceeds
        the database the places without an item count as irrelevant ones.

        Raises:
            ValueError: an N < 1.
        """
        return self.precision_recall(ns).precision

    def precision_recall(self, ranks: Sequence[int] | None = None) -> Curve:
        """Expected precision and recall of the first N items, means over queries, for each N.

        `ranks` are the N, by default about 200 from 1 to the size of the database, as far apart
        as they are large. This is the curve "of Hamming ranking" that the papers plot.
        """
        if ranks is None:
            ends = np.geomspace(1, max(self._n, 1), _CURVE_RANKS).round().astype(np.int64)
            at = np.unique(ends)
        else:
            at = np.array([_check_rank(rank, "ranks") for rank in ranks], np.int64)
        judged = self._judged
        precision, recall = np.zeros((2, len(at)))
        for items, relevant in zip(self.items[judged], self.relevant[judged], strict=True):
            # Linear in N within a level. Empty levels would be steps of no width.
            filled = items > 0
            ends, found = np.cumsum(items[filled]), np.cumsum(relevant[filled])
            expected = np.interp(at, np.append(0, ends), np.append(0, found))
            precision += expected / at
            recall += expected / found[-1]
        queries = judged.sum() or np.nan
        return Curve(at, precision / queries, recall / queries)

    def precision_recall_by_radius(self) -> Curve:
        """Precision and recall of everything within each radius 0 .. bits: no order, no ties.

        Precision is pooled: relevant items over items, each summed over the queries, because a
        single query may find nothing. It is NaN below the first radius at which any item is found.
        Recall is the mean over queries.
        """
        items = np.cumsum(self.items[self._judged], axis=1)
        relevant = np.cumsum(self.relevant[self._judged], axis=1)
        found = items.sum(axis=0)
        precision = np.full(len(found), np.nan)
        np.divide(relevant.sum(axis=0), found, out=precision, where=found > 0)
        recall = [mean(share) for share in (relevant / relevant[:, -1:]).T]
        return Curve(np.arange(len(found)), precision, np.array(recall))

    def within(self, radius: int = 2) -> WithinRadius:
        """What is found within a distance <= `radius`.

        As usual where "precision within Hamming radius 2" is reported, a query that finds nothing
        has precision 0.

        Raises:
            ValueError: `radius` < 0.
        """
        if radius < 0:
            raise ValueError(f"got radius = {radius}, expected at least 0")
        items = self.items[self._judged, : radius + 1].sum(axis=1)
        relevant = self.relevant[self._judged, : radius + 1].sum(axis=1)
        return WithinRadius(
            precision=mean(relevant / np.maximum(items, 1)),
            recall=mean(relevant / self.relevant[self._judged].sum(axis=1)),
            items=mean(items),
            empty=int((items == 0).sum()),
        )

    @property
    def _n(self) -> int:
        return int(self.items.sum(axis=1).max(initial=0))


def mean_average_precision(
    xb: ArrayLike, xq: ArrayLike, yb: ArrayLike, yq: ArrayLike, *, at: int | None = None
) -> AveragePrecision:
    """`Ranking.average_precision` of codes and labels as `Ranking.of` takes them.

    >>> x = np.array([[0], [1], [255]], dtype=np.uint8)
    >>> mean_average_precision(x, x, [0, 0, 1], [0, 0, 1]).value
    1.0
    """
    return Ranking.of(xb, xq, yb, yq).average_precision(at)


def precision_at(
    xb: ArrayLike, xq: ArrayLike, yb: ArrayLike, yq: ArrayLike, ns: Sequence[int]
) -> Floats:
    """`Ranking.precision_at` of codes and labels as `Ranking.of` takes them.

    >>> xb = np.array([[0], [1], [2], [4]], dtype=np.uint8)
    >>> precision_at(xb, xb[:1], [5, 5, 6, 6], [5], [1, 2]).round(3)
    array([1.   , 0.667])
    """
    return Ranking.of(xb, xq, yb, yq).precision_at(ns)


def precision_recall(
    xb: ArrayLike,
    xq: ArrayLike,
    yb: ArrayLike,
    yq: ArrayLike,
    *,
    ranks: Sequence[int] | None = None,
) -> Curve:
    """`Ranking.precision_recall` of codes and labels as `Ranking.of` takes them."""
    return Ranking.of(xb, xq, yb, yq).precision_recall(ranks)


def precision_recall_by_radius(xb: ArrayLike, xq: ArrayLike, yb: ArrayLike, yq: ArrayLike) -> Curve:
    """`Ranking.precision_recall_by_radius` of codes and labels as `Ranking.of` takes them."""
    return Ranking.of(xb, xq, yb, yq).precision_recall_by_radius()


def precision_within_radius(
    xb: ArrayLike, xq: ArrayLike, yb: ArrayLike, yq: ArrayLike, radius: int = 2
) -> WithinRadius:
    """`Ranking.within` of codes and labels as `Ranking.of` takes them.

    >>> xb = np.array([[0], [3], [255]], dtype=np.uint8)
    >>> precision_within_radius(xb, xb[:1], [5, 6, 5], [5])
    WithinRadius(precision=0.5, recall=0.5, items=2.0, empty=0)
    """
    return Ranking.of(xb, xq, yb, yq).within(radius)


def mean(values: NDArray[Any]) -> float:
    """The mean as a float; NaN, without a warning, of nothing."""
    return float(values.mean()) if len(values) else float("nan")


def blocks(n: int, size: int) -> Iterator[slice]:
    """Slices that cover n rows, `size` at a time."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def count_rows(
    kinds: NDArray[np.int32], count: int, weights: NDArray[Any] | None = None
) -> NDArray[Any]:
    """How often each of 0 .. count - 1 occurs in each row of `kinds`: (rows, count).

    `weights`, one per column, are what an occurrence counts for: then float64, otherwise int64.
    """
    rows = len(kinds)
    places = kinds + np.arange(rows, dtype=np.int64)[:, None] * count
    if weights is not None:
        weights = np.broadcast_to(weights, kinds.shape).ravel()
    return np.bincount(places.ravel(), weights, rows * count).reshape(rows, count)


def _relevant(of_queries: NDArray[Any], of_items: NDArray[Any]) -> NDArray[np.bool_]:
    """Which items are relevant to which queries, by labels of `_check_labels`."""
    if of_items.ndim == 1:
        return np.asarray(of_queries[:, None] == of_items)
    shared = np.zeros((len(of_queries), len(of_items)), np.bool_)
    for word in range(of_items.shape[1]):
        shared |= (of_queries[:, word, None] & of_items[:, word]) != 0
    return shared


def _check_labels(
    yb: ArrayLike, yq: ArrayLike, n: int, nq: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Labels, one for each row as given, several as sets of bits: uint64 (rows, classes / 64)."""
    out = []
    for name, given, rows in (("yb", yb, n), ("yq", yq, nq)):
        labels = np.asarray(given)
        if labels.shape == (0,):
            labels = labels.astype(np.int64)  # an empty list has numpy's default, float64
        if (labels.ndim, labels.dtype.kind) not in ((1, "i"), (1, "u"), (2, "b")):
            raise TypeError(
                f"{name}: got dtype {labels.dtype} and shape {labels.shape}, expected integers "
                "(n,), one label each, or bool (n, classes), several each; "
                "make the latter of zeros and ones by .astype(bool)"
            )
        if len(labels) != rows:
            raise ValueError(f"{name}: got {len(labels)} labels, expected {rows}: one per code")
        out.append(labels)
    of_items, of_queries = out
    if of_items.shape[1:] != of_queries.shape[1:]:
        raise ValueError(
            f"got labels of shape {of_items.shape} for the database and {of_queries.shape} for "
            "the queries, expected the same kind and the same number of classes"
        )
    return _as_words(of_items), _as_words(of_queries)


def _as_words(labels: NDArray[Any]) -> NDArray[Any]:
    if labels.ndim == 1:
        return labels
    padded = np.pad(labels, ((0, 0), (0, -labels.shape[1] % 64)))
    return np.packbits(padded, axis=1).view(np.uint64)


def _check_rank(rank: int, name: str) -> int:
    if operator.index(rank) < 1:
        raise ValueError(f"{name}: got {rank}, expected at least 1: so many places of a ranking")
    return operator.index(rank)

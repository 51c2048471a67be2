"""Hash tables and what searching them costs: against plain loops and against the index."""

from __future__ import annotations

import math
from collections import Counter
from itertools import count

import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from strategies import Case, Codes, cases

import faiss_dmih
from faiss_dmih import metrics
from faiss_dmih.codes import unpack
from faiss_dmih.reference import hamming


def substrings(x: Codes, cuts: tuple[int, ...]) -> list[list[tuple[bool, ...]]]:
    """For each table the substring of each code."""
    ends = np.cumsum(cuts)
    return [
        [tuple(row[end - length : end]) for row in unpack(x).tolist()]
        for end, length in zip(ends, cuts, strict=True)
    ]


def draw_cuts(data: st.DataObject, case: Case) -> tuple[int, ...]:
    d = case.d
    return data.draw(strategies.cuts(d)) or tuple([13] * (d // 13) + [d % 13] * (d % 13 > 0))


@given(cases(biggest_d=96, sizes=(0, 1, 2, 60, 300)), st.data())
def test_buckets_and_their_entropy(case: Case, data: st.DataObject) -> None:
    cuts = draw_cuts(data, case)
    buckets = [Counter(table) for table in substrings(case.xb, cuts)]
    expected = [sorted(table.values(), reverse=True) for table in buckets]
    assert [sizes.tolist() for sizes in metrics.bucket_sizes(case.xb, cuts)] == expected
    found = metrics.bucket_entropy(case.xb, cuts)
    if not case.n:
        assert np.isnan([*found.per_table, found.nats, found.bits]).all()
        return
    of_tables = []
    for table in buckets:
        shares = [size / case.n for size in table.values()]
        of_tables.append(-sum(p * math.log2(p) for p in shares))
    assert np.array(found.per_table) / math.log(2) == pytest.approx(of_tables, abs=1e-12)
    mean = sum(of_tables) / len(of_tables)
    assert (found.bits, found.nats) == pytest.approx((mean, mean * math.log(2)), abs=1e-12)


@given(st.lists(st.integers(1, 70), max_size=30))
def test_histogram(sizes: list[int]) -> None:
    buckets, items = metrics.bucket_histogram(np.array(sizes, np.int64))
    assert len(buckets) == len(items) == max(sizes, default=0).bit_length()
    for i in range(len(buckets)):
        there = [size for size in sizes if 2**i <= size < 2 ** (i + 1)]
        assert (buckets[i], items[i]) == (len(there), sum(there))


def looked_at(
    xb: Codes, query: Codes, cuts: tuple[int, ...], *, k: int | None, radius: int
) -> tuple[int, int]:
    """Entries and buckets of a progressive search, as docs/algorithm.md describes it.

    It ends when the k-th distance of what has been met is below the number of steps, or, without
    k, when that exceeds the radius; and when all items have been met in a table.
    """
    distances = hamming(query[None], xb)[0]
    tables = [np.array(table).reshape(len(xb), -1) for table in substrings(xb, cuts)]
    keys = [np.array(table[0]) for table in substrings(query[None], cuts)]
    met: set[int] = set()
    entries = buckets = 0
    for step in count():
        table, ring = step % len(cuts), step // len(cuts)
        nearest = sorted(distances[list(met)])
        if k is not None and len(nearest) >= k:
            radius = nearest[k - 1]
        if radius < step:
            break
        there = np.flatnonzero((tables[table] != keys[table]).sum(axis=1) == ring)
        met |= set(there.tolist())
        entries += len(there)
        buckets += math.comb(cuts[table], ring)
        if ring == cuts[table]:
            break
    return entries, buckets


@given(cases(biggest_d=72, sizes=(1, 2, 40)), st.data())
def test_candidates_by_a_search_step_by_step(case: Case, data: st.DataObject) -> None:
    cuts = draw_cuts(data, case)
    xq = case.xq[:4]
    k = data.draw(st.one_of(st.none(), strategies.ks(case.n)))
    radius = None if k else data.draw(strategies.radii(case.d))
    found = metrics.expected_candidates(case.xb, xq, cuts, k=k, radius=radius)
    end = case.d if radius is None else radius
    expected = [looked_at(case.xb, query, cuts, k=k, radius=end) for query in xq]
    pairs = zip(found.entries.tolist(), found.buckets.tolist(), strict=True)
    assert list(pairs) == expected


@given(cases(biggest_d=256, sizes=(2049, 4097)), st.data())
def test_candidates_are_those_that_the_index_counts(case: Case, data: st.DataObject) -> None:
    """Of near queries: others would have the index enumerate all of the largest tables' keys."""
    cuts = draw_cuts(data, case)
    index = faiss_dmih.IndexDMIH(case.d, mode="mih", cuts=cuts)
    index.add(case.xb)
    index.compact()  # tables for a few thousand codes, too
    xq = case.xb[:7].copy()
    xq[1::2, 0] ^= 5
    k = data.draw(st.one_of(st.none(), st.integers(1, 100)))
    radius = None if k else data.draw(st.integers(0, 8))
    faiss_dmih.reset_stats()
    if k is not None:
        index.search(xq, k)
    else:
        assert radius is not None
        index.range_search(xq, radius + 1)
    stats = faiss_dmih.stats()
    found = metrics.expected_candidates(case.xb, xq, cuts, k=k, radius=radius)
    assert (found.entries.sum(), found.buckets.sum()) == (stats["candidates"], stats["probes"])
    assert stats["scanned"] == stats["fallbacks"] == 0


def test_distances_may_be_those_of_a_ranking() -> None:
    rng = np.random.default_rng(0)
    xb, xq = rng.integers(0, 256, (500, 8), np.uint8), rng.integers(0, 256, (9, 8), np.uint8)
    ranking = metrics.Ranking.of(xb, xq, np.zeros(500, int), np.zeros(9, int))
    assert (metrics.Probing.of(xb, xq, [16] * 4).distances == ranking.items).all()


def test_what_does_not_fit() -> None:
    xb = np.zeros((3, 2), np.uint8)
    with pytest.raises(ValueError, match="cuts must sum to d = 16 bits"):
        metrics.bucket_entropy(xb, [8, 9])
    with pytest.raises(TypeError, match="got cuts = None, expected a list of substring lengths"):
        metrics.bucket_sizes(xb, None)  # type: ignore[arg-type]
    for wrong in ({}, {"k": 1, "radius": 1}):
        with pytest.raises(TypeError, match="expected one of them"):
            metrics.expected_candidates(xb, xb, [8, 8], **wrong)
    with pytest.raises(ValueError, match="got k = 0, expected at least 1"):
        metrics.expected_candidates(xb, xb, [8, 8], k=0)
    with pytest.raises(ValueError, match="got radius = -1, expected at least 0"):
        metrics.expected_candidates(xb, xb, [8, 8], radius=-1)
    with pytest.raises(ValueError, match="xq: got codes of 1 bytes, expected 2"):
        metrics.expected_candidates(xb, xb[:, :1], [8, 8], k=1)

"""Who shares an overfull bucket, by the paper's words in plain loops; and what batches hold."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from faiss_dmih.encoders.buckets import BucketSampler, Snapshot, members_of_buckets, take_snapshot


@st.composite
def code_sets(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...], int]:
    cuts = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    n, distinct = draw(st.integers(1, 80)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    bits = rng.random((distinct, sum(cuts))) < 0.5
    return bits[rng.integers(0, distinct, n)], cuts, draw(st.integers(1, 9))


def key(bits: np.ndarray, cuts: tuple[int, ...], table: int) -> tuple[bool, ...]:
    first = sum(cuts[:table])
    return tuple(bits[first : first + cuts[table]].tolist())


def check(snapshot: Snapshot, bits: np.ndarray, cuts: tuple[int, ...], limit: int) -> None:
    n = len(bits)
    numbers = set()
    for table in range(len(cuts)):
        sizes = Counter(key(row, cuts, table) for row in bits)
        overfull = {k for k, size in sizes.items() if size > limit}
        by_key: dict[tuple[bool, ...], int] = {}
        for i in range(n):
            k = key(bits[i], cuts, table)
            if k not in overfull:
                assert snapshot.bucket[i, table] == -1
            else:
                assert by_key.setdefault(k, int(snapshot.bucket[i, table])) >= 0
                assert by_key[k] == snapshot.bucket[i, table]
        assert not numbers & set(by_key.values())
        numbers |= set(by_key.values())
    assert snapshot.overfull == len(numbers)
    groups: dict[bytes, int] = {}
    for i in range(n):
        assert groups.setdefault(bits[i].tobytes(), int(snapshot.group[i])) == snapshot.group[i]
    assert len(set(groups.values())) == len(groups)
    for group in groups.values():
        sizes = np.bincount(snapshot.subgroup[snapshot.group == group])
        count = int(sizes.sum())
        assert len(sizes) == (-(-count // limit) if count > limit else 1)
        assert sizes.max() - sizes.min() <= 1
        assert sizes.max() <= max(limit, 1)


@given(codes=code_sets(), seed=st.integers(0, 100))
def test_a_snapshot(codes: tuple[np.ndarray, tuple[int, ...], int], seed: int) -> None:
    bits, cuts, limit = codes
    first = take_snapshot(bits, cuts, limit, np.random.default_rng(seed))
    check(first, bits, cuts, limit)
    # Some items change their codes; who keeps company keeps the subgroup, as far as sizes allow.
    moved = bits.copy()
    moved[:: seed % 5 + 2] = bits[0]
    second = take_snapshot(moved, cuts, limit, np.random.default_rng(seed + 1), first)
    check(second, moved, cuts, limit)


def test_subgroups_persist() -> None:
    """Also when a whole group changes its code together."""
    bits = np.zeros((100, 8), np.bool_)
    first = take_snapshot(bits, (4, 4), 20, np.random.default_rng(0))
    assert np.bincount(first.subgroup).tolist() == [20] * 5
    flipped = bits.copy()
    flipped[:, 3] = True
    second = take_snapshot(flipped, (4, 4), 20, np.random.default_rng(1), first)
    np.testing.assert_array_equal(second.subgroup, first.subgroup)
    # Twenty leave: four subgroups remain, and most of the others stay where they were.
    left = flipped.copy()
    left[:20] = True
    third = take_snapshot(left, (4, 4), 20, np.random.default_rng(2), second)
    stayed = third.subgroup[20:] == second.subgroup[20:]
    assert np.bincount(third.subgroup[20:]).tolist() == [20] * 4
    assert stayed.mean() > 0.7


@given(
    n=st.integers(1, 200),
    batch_size=st.integers(1, 50),
    share=st.sampled_from([0.0, 0.25, 0.9]),
    seed=st.integers(0, 100),
)
def test_batches_hold_everybody_once(n: int, batch_size: int, share: float, seed: int) -> None:
    bits = np.random.default_rng(seed).random((5, 8)) < 0.5
    bits = bits[np.random.default_rng(seed).integers(0, 5, n)]
    snapshot = take_snapshot(bits, (4, 4), 7, np.random.default_rng(seed))
    sampler = BucketSampler(n, batch_size, share, seed)
    batches = list(sampler.epoch(3, snapshot))
    assert len(batches) == len(sampler)
    assert set(np.concatenate(batches).tolist()) == set(range(n))
    for batch in batches:
        assert len(np.unique(batch)) == len(batch) <= batch_size
    again = list(BucketSampler(n, batch_size, share, seed).epoch(3, snapshot))
    for one, other in zip(batches, again, strict=True):
        np.testing.assert_array_equal(one, other)
    if share == 0:
        assert sum(map(len, batches)) == n


def test_batches_have_pairs_of_overfull_buckets() -> None:
    """Without the share there are hardly any; another epoch has others."""
    rng = np.random.default_rng(0)
    bits = rng.random((2000, 20)) < 0.5
    bits[:30] = bits[0]
    snapshot = take_snapshot(bits, (20,), 20, rng)
    assert snapshot.overfull == 1
    (members,) = members_of_buckets(snapshot)
    assert sorted(members.tolist()) == list(range(30))

    def of_the_bucket(share: float) -> float:
        batches = BucketSampler(2000, 40, share, 0).epoch(0, snapshot)
        return float(np.mean([(batch < 30).sum() for batch in batches]))

    assert of_the_bucket(0) < 1
    assert of_the_bucket(0.25) > 5
    first, second = (next(BucketSampler(2000, 40, 0.25, 0).epoch(e, snapshot)) for e in (0, 1))
    assert not np.array_equal(first, second)


def test_no_overfull_buckets() -> None:
    bits = np.eye(6, dtype=np.bool_)
    snapshot = take_snapshot(bits, (3, 3), 5, np.random.default_rng(0))
    assert snapshot.overfull == 0
    assert members_of_buckets(snapshot) == []
    assert sum(len(b) for b in BucketSampler(6, 4, 0.5, 0).epoch(0, snapshot)) == 6

"""Overfull buckets of the training set, as DMIH's balance at instance level needs them.

Buckets are a property of all training codes, a batch sees few of them. So once an epoch all are
encoded, and it is written down who shares an overfull bucket with whom; batches then draw a share
of their items from such buckets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class Snapshot:
    """Of n training items, by their codes at one time.

    bucket: int64 (n, m), the overfull bucket of each item in each table, numbered over all tables;
    -1 where its bucket is not overfull. group: int64 (n,), items with the same full code.
    subgroup: int64 (n,), from 0 within a group.
    """

    bucket: NDArray[np.int64]
    group: NDArray[np.int64]
    subgroup: NDArray[np.int64]

    @property
    def overfull(self) -> int:
        """How many buckets are overfull."""
        return int(self.bucket.max(initial=-1)) + 1


def take_snapshot(
    bits: Bits,
    cuts: Sequence[int],
    limit: int,
    rng: np.random.Generator,
    before: Snapshot | None = None,
) -> Snapshot:
    """Who is in which overfull bucket, group and subgroup.

    Args:
        bits: the codes, bool (n, l).
        cuts: lengths of the substrings.
        limit: k' of the paper; a bucket with more items is overfull, a group with more of them is
            split at random into ceil(items / k') subgroups of equal size.
        rng: for these splits.
        before: the last snapshot. Items keep their subgroups where most of their group was one
            group before, so that what has been pulled apart is not put together again.
    """
    n = len(bits)
    group = _numbers(bits)
    bucket = np.full((n, len(cuts)), -1, np.int64)
    first = numbered = 0
    for j, length in enumerate(cuts):
        key = _numbers(bits[:, first : first + length])
        is_full = np.bincount(key, minlength=1) > limit
        number = np.where(is_full, np.cumsum(is_full) - 1 + numbered, -1)
        bucket[:, j] = number[key]
        numbered += int(is_full.sum())
        first += length
    subgroup = np.zeros(n, np.int64)
    order = np.argsort(group, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if len(members) > limit:
            kept = np.full(len(members), -1) if before is None else _kept(members, before)
            subgroup[members] = _split(kept, limit, rng)
    return Snapshot(bucket, group, subgroup)


def _numbers(rows: Bits) -> NDArray[np.int64]:
    """Rows numbered by what they hold."""
    packed = np.packbits(rows, axis=1)
    _, number = np.unique(packed, axis=0, return_inverse=True)
    return number.reshape(-1).astype(np.int64)


def _kept(members: NDArray[np.int64], before: Snapshot) -> NDArray[np.int64]:
    """The old subgroups of those members whose old group is that of most of them; else -1."""
    old = before.group[members]
    groups, counts = np.unique(old, return_counts=True)
    most = groups[np.argmax(counts)]
    return np.where(old == most, before.subgroup[members], -1)


def _split(kept: NDArray[np.int64], limit: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Subgroups of equal size, as many members as can staying in theirs."""
    n = len(kept)
    parts = -(-n // limit)
    room = np.full(parts, n // parts)
    room[: n % parts] += 1
    out = np.full(n, -1, np.int64)
    for at in rng.permutation(n):
        part = kept[at]
        if 0 <= part < parts and room[part] > 0:
            out[at], room[part] = part, room[part] - 1
    left = rng.permutation(np.repeat(np.arange(parts), room))
    out[out < 0] = left
    return out


class BucketSampler:
    """Batches of item numbers: all items once an epoch, and beside them items of overfull buckets.

    Args:
        n: items.
        batch_size: items of a batch.
        share: of a batch that is drawn from overfull buckets, `together` items of one at a time, so
            that phi has pairs. Without overfull buckets batches are smaller by that share.
        seed: batches depend on it and on the epoch alone.
    """

    together = 4

    def __init__(self, n: int, batch_size: int, share: float, seed: int) -> None:
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self.drawn = min(int(share * batch_size), batch_size - 1)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-self.n // (self.batch_size - self.drawn))

    def epoch(self, number: int, snapshot: Snapshot | None) -> Iterator[NDArray[np.int64]]:
        """The batches of epoch `number`."""
        rng = np.random.default_rng([self.seed, number])
        everyone = np.array_split(rng.permutation(self.n), len(self))
        buckets = [] if snapshot is None or self.drawn == 0 else members_of_buckets(snapshot)
        for base in everyone:
            extra = list[NDArray[np.int64]]()
            for _ in range(self.drawn // self.together if buckets else 0):
                chosen = buckets[rng.integers(len(buckets))]
                extra.append(rng.choice(chosen, min(self.together, len(chosen)), replace=False))
            # Nobody twice in a batch: a pair of one item is at distance 0 whatever it learns.
            yield np.unique(np.concatenate([base, *extra]))


def members_of_buckets(snapshot: Snapshot) -> list[NDArray[np.int64]]:
    """Items of each overfull bucket."""
    item, table = np.nonzero(snapshot.bucket >= 0)
    number = snapshot.bucket[item, table]
    order = np.argsort(number, kind="stable")
    return np.split(item[order], np.flatnonzero(np.diff(number[order])) + 1) if len(item) else []

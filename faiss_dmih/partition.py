"""Which bits go into which hash table: permutations of the bits of codes, learned from a sample.

Hamming distances do not change when the bits of all codes are permuted alike, so that a table may
be addressed by any bits. `IndexDMIH.train` learns such a partition and searches by it; what comes
in and what goes out is not permuted. docs/algorithm.md says what each strategy is worth.

>>> from faiss_dmih import IndexDMIH
>>> xb = np.random.default_rng(0).integers(0, 256, (10_000, 8), dtype=np.uint8)
>>> index = IndexDMIH(64)
>>> index.train(xb, strategy="data-driven")
>>> index.add(xb)
>>> index.partition.cuts
(13, 13, 13, 13, 12)
>>> index.search(xb[:2], k=1)[1].ravel().tolist()
[0, 1]

Other indexes than `IndexDMIH` can be given permuted codes, and be asked with permuted queries:

>>> partition = learn_partition(xb, n=len(xb), strategy="data-driven")
>>> partition.permute(xb[:1]).shape
(1, 8)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from faiss_dmih.codes import unpack
from faiss_dmih.options import MAX_SUBSTRING_BITS, check_cuts, even_cuts, paper_cuts

Bits = NDArray[np.uint8]
Floats = NDArray[np.float64]

DEFAULT = {"auto": "cost", "mih": "data-driven"}
"""The strategy where none is named, by the mode of the index: in mode `mih` equal codes are kept
apart and tables are probed in turns, which is not what `cost` reckons with."""

LONG = 1024
"""Bits of a code, beyond which nothing is learned unless a strategy is named."""

SAMPLE = 20_000
"""Codes that are looked at, at most."""

# What probing costs, in buckets looked up, as in engine/front.hpp: an entry with its signature, and
# a code compared; of the entries one in ten is, about.
_ENTRY = 0.1 + 1.0 / 10
_PAIRS = 1 << 21
_PAIR_BYTES = 1 << 27
# Bits of pairs that are listed. `cost` has as good results with as few; `entropy`, which decides on
# the few pairs that are still equal, has not.
_LISTED, _LISTED_EQUAL = 1 << 19, 1 << 21
_EXCHANGES, _CANDIDATES, _WORTHWHILE = 100, 32, 5e-4
_UNEVEN = 2


@dataclass(frozen=True)
class Partition:
    """The bits ``order[:cuts[0]]`` make the first substring, the next ``cuts[1]`` the second, ...

    ``order`` is a permutation of range(d), ``cuts`` sum to d.

    >>> Partition((1, 0, 2, 3, 4, 5, 6, 7), (4, 4)).permute(np.array([[1]], np.uint8)).tolist()
    [[2]]
    """

    order: tuple[int, ...]
    cuts: tuple[int, ...]

    @property
    def substrings(self) -> tuple[tuple[int, ...], ...]:
        """The bits of each, ascending as ``order`` has them."""
        ends = np.cumsum(self.cuts)
        return tuple(self.order[end - cut : end] for end, cut in zip(ends, self.cuts, strict=True))

    def permute(self, x: ArrayLike) -> NDArray[np.uint8]:
        """Codes (n, d/8) uint8 whose bit i is bit ``order[i]`` of the same code of ``x``."""
        codes = np.asarray(x)
        out = np.empty(codes.shape, np.uint8)
        chunk = 1 << 14
        for at in range(0, len(codes), chunk):
            bits = unpack(codes[at : at + chunk])[:, self.order]
            out[at : at + chunk] = np.packbits(bits, axis=1, bitorder="little")
        return out


def learn_partition(
    codes: ArrayLike,
    n: int,
    strategy: str = DEFAULT["auto"],
    *,
    m: int | None = None,
    cuts: Sequence[int] | None = None,
    random_state: int = 0,
) -> Partition:
    """Which bits shall go into which substring, and how many.

    Args:
        codes: a sample (n_sample, d/8) uint8; of more than 20,000 some are drawn. Equal ones
            count once, as in tables.
        n: number of codes that the index is going to hold.
        strategy: a name of `STRATEGIES`.
        m: number of substrings, by default that of the papers, floor(d / log2(n)) or more.
        cuts: their lengths, where the strategy may not choose them.
        random_state: seed of what is drawn. The same arguments give the same partition.

    Raises:
        ValueError: an unknown strategy, no codes, or cuts that do not sum to d.
        TypeError: codes that are not uint8.

    >>> xb = np.random.default_rng(0).integers(0, 256, (1000, 8), dtype=np.uint8)
    >>> partition = learn_partition(xb, 1_000_000, "data-driven")
    >>> partition.cuts, sorted(partition.order) == list(range(64))
    ((16, 16, 16, 16), True)
    """
    check_strategy(strategy)
    bits = unpack(_drawn(np.asarray(codes), random_state)).view(np.uint8)
    if len(bits) == 0:
        raise ValueError("a partition is learned from codes: got none")
    d = bits.shape[1]
    if m is not None and (cuts is not None or not -(-d // MAX_SUBSTRING_BITS) <= m <= d):
        raise ValueError(
            f"got m = {m}"
            + ("" if cuts is None else f" and cuts = {tuple(cuts)}, expected one")
            + f": substrings of {d} bits are {-(-d // MAX_SUBSTRING_BITS)} to {d}, of at most "
            f"{MAX_SUBSTRING_BITS} bits each"
        )
    fixed = check_cuts(cuts, d)
    even = fixed or (paper_cuts(d, n) if m is None else even_cuts(d, m))
    bits = np.unique(bits, axis=0)
    rng = np.random.default_rng([random_state, 1])
    found = STRATEGIES[strategy](_Task(bits, n, even, fixed is not None, rng))
    # The order of bits within a substring does not matter.
    order = tuple(int(bit) for substring in found for bit in sorted(substring))
    return Partition(order, tuple(len(substring) for substring in found))


def _drawn(codes: NDArray[np.uint8], random_state: int = 0) -> NDArray[np.uint8]:
    if len(codes) <= SAMPLE:
        return codes
    rng = np.random.default_rng(random_state)
    return codes[np.sort(rng.choice(len(codes), SAMPLE, replace=False))]


def default_strategy(mode: str, d: int) -> str:
    """Where none is named. Codes of more than `LONG` bits stay as they are: learning would take up
    to minutes, and who trains an index as a matter of course would not know why."""
    return DEFAULT[mode] if d <= LONG else "contiguous"


def check_strategy(strategy: str) -> None:
    """ValueError for a name that is not one of `STRATEGIES`."""
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}: expected one of {', '.join(STRATEGIES)}")


@dataclass
class _Task:
    bits: Bits
    n: int
    cuts: tuple[int, ...]
    fixed: bool  # these cuts; otherwise as many
    rng: np.random.Generator

    @property
    def d(self) -> int:
        return int(self.bits.shape[1])

    def may_grow(self, lengths: list[int]) -> list[int]:
        """Which substrings may have one bit more: those of fixed cuts are filled; others may be
        two bits longer or shorter than even ones, if their tables stay within what those of
        paper_cuts may take."""
        if self.fixed:
            return [j for j, cut in enumerate(self.cuts) if lengths[j] < cut]
        shortest = max(min(self.cuts) - _UNEVEN, 1)
        longest = min(max(self.cuts) + _UNEVEN, MAX_SUBSTRING_BITS)
        left = self.d - sum(lengths)
        short = [max(shortest - length, 0) for length in lengths]
        if left <= sum(short):
            return [j for j, missing in enumerate(short) if missing]
        offsets = 4.0 * sum(2.0 ** max(length, shortest) for length in lengths)
        even = 4.0 * sum(2.0**cut for cut in self.cuts)
        spare = max(8.0 * self.n * len(lengths), even, 2.0**20) - offsets
        open_ = [j for j, length in enumerate(lengths) if length < longest]
        small = [j for j in open_ if lengths[j] < max(self.cuts) or 4.0 * 2.0 ** lengths[j] < spare]
        return small or open_


Lists = list[list[int]]


def _contiguous(task: _Task) -> Lists:
    """Bits as they come: Norouzi, Punjani and Fleet 2014, for codes whose bits are alike."""
    ends = np.cumsum(task.cuts)
    return [list(range(end - cut, end)) for end, cut in zip(ends, task.cuts, strict=True)]


def _data_driven(task: _Task) -> Lists:
    """Correlated bits apart: minimise the sum of |corr(a, b)| over pairs within substrings.

    After Wan et al. (*Data driven multi-index hashing*, 2013) and Liu et al. (*Data-oriented
    multi-index hashing*, 2015): codes fill the buckets of a table evenly where the bits of its
    substring are independent, which correlation stands for. Bits are dealt out greedily, those that
    are correlated most with others first, and then swapped while that helps, as Kernighan and Lin
    (1970) partition graphs; that is ours, not the papers'. Lengths are given.
    """
    correlation = _correlation(task.bits)
    lists: Lists = [[] for _ in task.cuts]
    within = np.zeros((len(lists), task.d))  # of a bit with those of a substring
    for bit in np.argsort(-correlation.sum(axis=1), kind="stable"):
        open_ = [j for j, cut in enumerate(task.cuts) if len(lists[j]) < cut]
        j = min(open_, key=lambda j: (within[j, bit], len(lists[j]) - task.cuts[j]))
        lists[j].append(int(bit))
        within[j] += correlation[bit]
    of = np.empty(task.d, np.intp)
    for j, members in enumerate(lists):
        of[members] = j
    while True:
        # What moving bit a to the substring of b adds, b to that of a, and that they leave each
        # other.
        moved = within[of][:, :].T - within[of, np.arange(task.d)][:, None]
        gain = moved + moved.T - 2 * correlation
        gain[of[:, None] == of[None, :]] = 0
        best = np.argmin(gain, axis=1)
        saved = gain[np.arange(task.d), best]
        if saved.min() > -1e-9:
            break
        # The best one; and others as long as they are of other substrings, which it leaves as they
        # were.
        touched: set[int] = set()
        for a in np.argsort(saved, kind="stable"):
            b, i, j = best[a], int(of[a]), int(of[best[a]])
            if saved[a] > -1e-9 or i in touched or j in touched:
                continue
            touched |= {i, j}
            change = correlation[b] - correlation[a]
            within[i] += change
            within[j] -= change
            of[a], of[b] = of[b], of[a]
    return [np.flatnonzero(of == j).tolist() for j in range(len(lists))]


def _correlation(bits: Bits) -> Floats:
    """|corr| of all pairs of bits, 0 with themselves and for those that never change."""
    x = bits.astype(np.float32)
    x -= x.mean(axis=0)
    norm = np.sqrt((x * x).sum(axis=0))
    x /= np.where(norm > 0, norm, 1)
    out: Floats = np.abs(x.T @ x).astype(np.float64)
    np.fill_diagonal(out, 0)
    return out


def _entropy(task: _Task) -> Lists:
    """Substrings that tell equally much: bits that say little share a longer one.

    Greedily, the substring of the least entropy gets the bit that adds most to it. Entropy is that
    of collisions, -log2 of the probability that two codes have the same substring (Renyi's of
    order 2): what it is 2 to the power of divides n where a bucket's expected size is asked, and
    it can be told from a sample smaller than the number of buckets. Bits that add nothing go where
    the shortest tables are.
    """
    pairs = _Pairs(task, _PAIRS, _LISTED_EQUAL)
    m = len(task.cuts)
    lists: Lists = [[] for _ in range(m)]
    apart = [np.zeros(pairs.shape, bool) for _ in range(m)]
    equal = np.full(m, 1.0)
    left = list(range(task.d))
    while left:
        open_ = task.may_grow([len(members) for members in lists])
        j = min(open_, key=lambda j: (-equal[j], len(lists[j])))
        differ, scale = pairs.listed(np.flatnonzero(~apart[j]), np.array(left))
        remain = scale * (len(differ) - differ.sum(axis=0))
        best = int(np.argmin(remain))
        if remain[best] > 0.995 * scale * len(differ):
            j = min(open_, key=lambda j: len(lists[j]))
        bit = left.pop(best)
        lists[j].append(bit)
        apart[j] |= pairs.differ(bit).astype(bool)
        equal[j] = 1 - apart[j].mean()
    return lists


def _cost(task: _Task) -> Lists:
    """The least expected cost of probing, by local search.

    The cost is that of engine/front.cpp: C(b, r) buckets for radius r in a substring of b bits, and
    for each code met in them an entry, at times a comparison. How many are met is told from pairs
    of the sample: n times the share of those that differ in r bits of the substring, for r = 0 and
    1, beyond by C(b, r) of the latter. A search for neighbours at distance t takes the t + 1
    cheapest rings; the logarithm of what they cost is averaged over the distances up to d/8. Begins
    with the better of contiguous and data-driven, and swaps two bits while that makes it cheaper.
    What was found must be cheaper for other pairs, too, or is dropped. Lengths are given: where
    they may change, the model finds shapes that it takes to be cheap and that searches do not.
    """
    pairs = _Pairs(task, _PAIRS, _LISTED)
    starts = [_contiguous(task), _data_driven(task)]
    states = [_Costs(task, pairs, start) for start in starts]
    state = min(states, key=_Costs.total)
    start = starts[states.index(state)]
    for _ in range(_EXCHANGES):
        if not state.improve():
            break
    others = _Pairs(task, _PAIRS, _LISTED)
    found = _Costs(task, others, state.lists).total()
    return state.lists if found < _Costs(task, others, start).total() else start


class _Pairs:
    """Pairs of codes of the sample, at most so many. The sample is cut into blocks of two halves,
    and the codes of one half are paired with all of the other: far more pairs than codes, of all
    codes."""

    def __init__(self, task: _Task, most: int, listed: int) -> None:
        self._listed = listed
        bits = task.bits[task.rng.permutation(len(task.bits))]
        if len(bits) == 1:
            bits = np.repeat(bits, 2, axis=0)
        half = len(bits) // 2
        side = min(max(min(most, _PAIR_BYTES // len(task.cuts)) // half, 1), half)
        blocks = half // side
        self.shape = (blocks, side, side)
        self._rng = task.rng
        # One row per code, and one per bit.
        self._a, self._b = bits[: blocks * side], bits[half : half + blocks * side]
        self._bits_a = self._a.T.copy().reshape(-1, blocks, side, 1)
        self._bits_b = self._b.T.copy().reshape(-1, blocks, 1, side)
        self.count = blocks * side * side

    def differ(self, bit: int) -> Bits:
        """Of all pairs, whether they differ in a bit."""
        out: Bits = self._bits_a[bit] ^ self._bits_b[bit]
        return out

    def listed(self, pairs: NDArray[np.intp], columns: NDArray[np.intp]) -> tuple[Bits, float]:
        """The bits, out of `columns`, in which these pairs differ; of many only some, and how many
        each of those stands for."""
        scale, most = 1.0, self._listed // len(columns)
        if len(pairs) > most:
            scale = len(pairs) / most
            pairs = pairs[self._rng.integers(0, len(pairs), most)]
        a, within = np.divmod(pairs, self.shape[2])
        b = a // self.shape[1] * self.shape[2] + within
        differ: Bits = self._a[a][:, columns] ^ self._b[b][:, columns]
        return differ, scale


class _Costs:
    """Substrings, and what probing tables of them is expected to cost."""

    def __init__(self, task: _Task, pairs: _Pairs, lists: Lists) -> None:
        self.task, self.pairs = task, pairs
        self.lists = [list(members) for members in lists]
        self.steps = task.d // 8 + 1
        self.radii = -(-self.steps // len(lists)) + 1
        d, m = task.d, len(lists)
        self.distance = [np.zeros(pairs.shape, np.uint8) for _ in lists]
        for out, members in zip(self.distance, self.lists, strict=True):
            for bit in members:
                out += pairs.differ(bit)
        self.lengths = np.array([len(members) for members in lists])
        self.of = np.empty(d, np.intp)
        # Shares of pairs at distance 0 and 1 in a substring, and were bit a of it another one.
        self.now = np.zeros((2, m))
        self.swapped = np.zeros((2, d, d))
        for j in range(m):
            self._count(j)

    def _count(self, j: int) -> None:
        members = self.lists[j]
        self.of[members] = j
        distance = self.distance[j].ravel()
        per = 1 / self.pairs.count
        near = np.flatnonzero(distance <= 2)
        zero, one, two = (near[distance[near] == r] for r in range(3))
        everything = np.arange(self.task.d)
        a = np.array(members)
        (x0, s0), (x1, s1), (x2, s2) = (self.pairs.listed(p, everything) for p in (zero, one, two))
        f0, f1, f2 = (x.astype(np.float32) for x in (x0, x1, x2))
        s0, s1, s2 = s0 * per, s1 * per, s2 * per
        n0, n1 = len(zero) * per, len(one) * per
        self.now[:, j] = n0, n1
        differ0 = s0 * f0.sum(axis=0)  # equal here, but not in another bit
        differ1 = s1 * f1.sum(axis=0)
        both1 = s1 * (f1[:, a].T @ f1)  # differ in a alone of this substring, and in another bit
        both2 = s2 * (f2[:, a].T @ f2)
        alone1, alone2 = differ1[a], s2 * f2[:, a].sum(axis=0)
        self.swapped[0, a] = n0 - differ0 + alone1[:, None] - both1
        self.swapped[1, a] = (
            differ0 + (n1 - differ1 - alone1[:, None] + both1) + both1 + alone2[:, None] - both2
        )

    def prices(self, shares: Floats, lengths: NDArray[np.intp]) -> Floats:
        """Of the rings of substrings: (2, count) and (count,) to (count, radii + 1)."""
        buckets, entries = self._rings(lengths)
        met = entries * np.stack([shares[min(r, 1)] for r in range(self.radii + 1)], axis=-1)
        out: Floats = np.where(buckets > 0, buckets + np.minimum(met, _ENTRY * self.task.n), np.inf)
        return out

    def _rings(self, lengths: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Of rings of substrings of these lengths: buckets, 0 where there is no such ring; and what
        entries cost in them, times the share of pairs that is measured."""
        buckets = np.array(
            [[math.comb(int(b), r) for r in range(self.radii + 1)] for b in lengths], np.float64
        )
        measured = np.minimum(np.arange(self.radii + 1), 1)
        return buckets, _ENTRY * self.task.n * buckets / buckets[:, measured]

    def total(self) -> float:
        """The mean, over the distances up to d/8, of the logarithm of the cost."""
        return float(self._totals(self.prices(self.now, self.lengths)[None])[0])

    def _totals(self, prices: Floats) -> Floats:
        cheapest = np.sort(prices.reshape(len(prices), -1), axis=1)[:, : self.steps]
        out: Floats = np.log(np.cumsum(cheapest, axis=1)).mean(axis=1)
        return out

    def improve(self) -> bool:
        """The best swap; False where none helps."""
        of, lengths = self.of, self.lengths
        now = self.prices(self.now, lengths)
        # First about: by what the total grows by with the price of each ring.
        order = np.argsort(now, axis=None, kind="stable")[: self.steps]
        growth = np.zeros(now.size)
        costs = np.cumsum(now.ravel()[order])
        growth[order] = np.cumsum(1 / costs[::-1])[::-1]
        growth = growth.reshape(now.shape) * self._rings(lengths)[1]
        near, far = growth[:, 0], growth[:, 1:].sum(axis=1)
        old = near * self.now[0] + far * self.now[1]
        change = near[of, None] * self.swapped[0] + far[of, None] * self.swapped[1]
        change -= old[of, None]
        change = change + change.T
        change[of[:, None] == of] = np.inf
        # Then exactly, the most promising ones.
        most = min(2 * _CANDIDATES, change.size - 1)
        promising = np.argpartition(change, most, axis=None)[:most]
        a, b = np.divmod(promising, self.task.d)
        a, b = a[(a < b) & (of[a] != of[b])], b[(a < b) & (of[a] != of[b])]
        if len(a) == 0:
            return False
        tables = np.repeat(now[None], len(a), axis=0)
        each = np.arange(len(a))
        tables[each, of[a]] = self.prices(self.swapped[:, a, b], lengths[of[a]])
        tables[each, of[b]] = self.prices(self.swapped[:, b, a], lengths[of[b]])
        totals = self._totals(tables)
        best = int(np.argmin(totals))
        if totals[best] > self._totals(now[None])[0] - _WORTHWHILE:
            return False
        self._swap(int(a[best]), int(b[best]))
        return True

    def _swap(self, a: int, b: int) -> None:
        i, j = int(self.of[a]), int(self.of[b])
        for bit, source, target in ((a, i, j), (b, j, i)):
            differ = self.pairs.differ(bit)
            self.distance[source] -= differ
            self.distance[target] += differ
            self.lists[source].remove(bit)
            self.lists[target].append(bit)
        self._count(i)
        self._count(j)


STRATEGIES: dict[str, Callable[[_Task], Lists]] = {
    "contiguous": _contiguous,
    "data-driven": _data_driven,
    "entropy": _entropy,
    "cost": _cost,
}


def learned(
    codes: NDArray[np.uint8], n: int, cuts: Sequence[int], fixed: bool, strategy: str
) -> Partition | None:
    """For an index that cuts ``n`` codes into ``cuts``, and must if they are ``fixed``; None where
    bits had best stay as they are."""
    partition = (
        learn_partition(codes, n, strategy, cuts=cuts)
        if fixed
        else learn_partition(codes, n, strategy, m=len(cuts))
    )
    unchanged = partition.order == tuple(range(len(partition.order)))
    return None if unchanged and partition.cuts == tuple(cuts) else partition


def _learned(
    codes: memoryview, d: int, n: int, cuts: list[int], fixed: int, mode: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the native index calls when FAISS trains it (engine/training.cpp)."""
    with codes:  # no exception's traceback may keep what is FAISS's
        rows = _drawn(np.frombuffer(codes, np.uint8).reshape(-1, d // 8)).copy()
    found = learned(rows, n, cuts, bool(fixed), default_strategy(mode, d))
    return ((), ()) if found is None else (found.order, found.cuts)

"""Hypothesis strategies: sets of codes and queries in the shapes where indexes go wrong.

A `Case` is a few numbers from which its arrays are made, so that a failing one prints as a line
that reproduces it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

Codes = NDArray[np.uint8]

COMMON_D = (8, 16, 24, 32, 64, 72, 96, 128, 256, 512)
BIG_D = (1016, 1024, 2048, 4096)
# Around the widths of SIMD blocks and the length of a tail.
SIZES = (0, 1, 2, 3, 63, 64, 65, 127, 511, 512, 513, 1023, 1025, 4097, 8191, 8193, 10_000)
QUERY_COUNTS = (0, 1, 1, 2, 3, 7, 16, 33, 100, 130, 300)

# Byte distances of all pairs of an example: bounds the time that an example takes.
_MAX_WORK = 1 << 24


def _uniform(rng: np.random.Generator, n: int, code_size: int) -> Codes:
    return rng.integers(0, 256, (n, code_size), dtype=np.uint8)


def _noise(rng: np.random.Generator, n: int, code_size: int) -> Codes:
    """Each bit set with probability 1/16."""
    return np.bitwise_and.reduce([_uniform(rng, n, code_size) for _ in range(4)])


def _clustered(rng: np.random.Generator, n: int, code_size: int) -> Codes:
    centres = _uniform(rng, max(1, n // 50), code_size)
    return centres[rng.integers(0, len(centres), n)] ^ _noise(rng, n, code_size)


def _duplicates(rng: np.random.Generator, n: int, code_size: int) -> Codes:
    """A few distinct codes, some of them repeated far more often than others."""
    distinct = _uniform(rng, max(1, n // 20), code_size)
    return distinct[(len(distinct) * rng.random(n) ** 3).astype(np.intp)]


def _all_equal(rng: np.random.Generator, n: int, code_size: int) -> Codes:
    return np.repeat(_uniform(rng, 1, code_size), n, axis=0)


def _complements(rng: np.random.Generator, n: int, code_size: int) -> Codes:
    """Half of the codes are the complements of the others: distances reach d."""
    half = _uniform(rng, n - n // 2, code_size)
    return rng.permutation(np.concatenate([half, ~half[: n // 2]]), axis=0)


def _constant_bit(rng: np.random.Generator, n: int, code_size: int) -> Codes:
    codes = _uniform(rng, n, code_size)
    codes[:, rng.integers(code_size)] |= np.uint8(1 << rng.integers(8))
    return codes


def _one_bucket(rng: np.random.Generator, n: int, code_size: int) -> Codes:
    """Half of the codes agree in their first half: one bucket of a table holds them."""
    codes = _uniform(rng, n, code_size)
    codes[rng.random(n) < 0.5, : -(-code_size // 2)] = 0x5A
    return codes


def _few_bits(rng: np.random.Generator, n: int, code_size: int) -> Codes:
    """Codes near zero: most distances are tied with others."""
    return _noise(rng, n, code_size) & _uniform(rng, n, code_size)


CODES: dict[str, Callable[[np.random.Generator, int, int], Codes]] = {
    "uniform": _uniform,
    "clustered": _clustered,
    "duplicates": _duplicates,
    "all equal": _all_equal,
    "complements": _complements,
    "constant bit": _constant_bit,
    "one bucket": _one_bucket,
    "few bits": _few_bits,
}


def make_queries(rng: np.random.Generator, xb: Codes, nq: int) -> Codes:
    """A mix of stored codes, stored codes with bits flipped, complements of them, uniform codes."""
    n, code_size = xb.shape
    xq = _uniform(rng, nq, code_size)
    if n:
        kind = rng.integers(0, 4, nq)
        stored = xb[rng.integers(0, n, nq)]
        xq = np.where((kind == 0)[:, None], stored, xq)
        xq = np.where((kind == 1)[:, None], stored ^ _noise(rng, nq, code_size), xq)
        xq = np.where((kind == 2)[:, None], ~stored, xq)
    return xq


@dataclass(frozen=True)
class Case:
    """n codes of d bits and nq queries."""

    d: int
    n: int
    nq: int
    kind: str
    seed: int

    @property
    def code_size(self) -> int:
        return self.d // 8

    @cached_property
    def xb(self) -> Codes:
        codes = CODES[self.kind](np.random.default_rng(self.seed), self.n, self.code_size)
        return np.ascontiguousarray(codes)

    @cached_property
    def xq(self) -> Codes:
        return make_queries(np.random.default_rng([self.seed, 1]), self.xb, self.nq)


def dims(biggest: int = 4096) -> st.SearchStrategy[int]:
    common = st.sampled_from([d for d in COMMON_D if d <= biggest])
    multiples = st.integers(1, min(biggest, 600) // 8).map(lambda bytes_: bytes_ * 8)
    big = [d for d in BIG_D if d <= biggest]
    return st.one_of(common, common, multiples, st.sampled_from(big) if big else common)


@st.composite
def cases(draw: st.DrawFn, biggest_d: int = 4096, sizes: tuple[int, ...] = SIZES) -> Case:
    d = draw(dims(biggest_d))
    n = draw(st.sampled_from(sizes))
    affordable = [nq for nq in QUERY_COUNTS if n * nq * d // 8 <= _MAX_WORK]
    return Case(
        d=d,
        n=n,
        nq=draw(st.sampled_from(affordable)),
        kind=draw(st.sampled_from(sorted(CODES))),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def ks(n: int) -> st.SearchStrategy[int]:
    """k from 1 to beyond n."""
    edges = [k for k in (1, 2, 5, 10, 100, n - 1, n, n + 1, n + 7) if k > 0]
    return st.one_of(st.sampled_from(edges), st.integers(1, n + 3))


def radii(d: int) -> st.SearchStrategy[int]:
    return st.one_of(st.sampled_from([0, 1, 2, d // 4, d // 2, d, d + 1]), st.integers(0, d + 1))


@st.composite
def cuts(draw: st.DrawFn, d: int) -> tuple[int, ...] | None:
    """None, (nearly) equal substrings, or substrings of all lengths.

    Lengths stay below 14 bits, because an index may lay out a table of 2^length places for each.
    """
    shape = draw(st.sampled_from(["none", "even", "uneven"]))
    if shape == "none":
        return None
    shortest = max(1, d // 64) if d <= 512 else 10
    if shape == "even":
        m = -(-d // draw(st.integers(shortest, 13)))
        return tuple(d // m + (j < d % m) for j in range(m))
    lengths = list[int]()
    while (left := d - sum(lengths)) > 0:
        lengths.append(min(left, draw(st.integers(shortest, 13))))
    return tuple(lengths)


def batches(n: int) -> st.SearchStrategy[list[int]]:
    """Sizes of the adds that bring n codes in: one, or several, some of them empty."""
    cut_points = st.lists(st.integers(0, n), max_size=5).map(sorted)
    return cut_points.map(lambda at: np.diff([0, *at, n]).tolist())

"""Codes drawn from known distributions. All functions are seeded and return packed codes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint8]

_CHUNK = 1 << 16


def uniform(n: int, d: int, rng: np.random.Generator) -> Codes:
    """(n, d/8) codes of independent fair bits: the hardest case for any index."""
    return rng.integers(0, 256, size=(n, d // 8), dtype=np.uint8)


def flip_bits(codes: Codes, flips: int, rng: np.random.Generator) -> Codes:
    """A copy of `codes` (n, d/8) with exactly `flips` random bits of each code inverted."""
    n, width = codes.shape
    order = rng.random((n, 8 * width), dtype=np.float32).argsort(axis=1)
    mask = np.packbits(order < flips, axis=1, bitorder="little")
    return codes ^ mask


def planted(xb: Codes, nq: int, rng: np.random.Generator) -> Codes:
    """(nq, d/8) queries, each `d // 16` flips away from a random row of `xb`.

    Among uniform codes of 64 bits or more that row is nearly always the nearest one.
    """
    return flip_bits(xb[rng.integers(0, len(xb), nq)], 8 * xb.shape[1] // 16, rng)


def clustered(
    n: int, nq: int, d: int, rng: np.random.Generator, *, flip_probability: float = 0.1
) -> tuple[Codes, Codes]:
    """(n, d/8) database and (nq, d/8) queries around the same n // 256 (at least 1) random centres.

    Each code is a random centre with every bit inverted with probability `flip_probability`.
    """
    centres = uniform(max(1, n // 256), d, rng)
    out = centres[rng.integers(0, len(centres), n + nq)]
    for start in range(0, n + nq, _CHUNK):
        block = out[start : start + _CHUNK]
        noise = rng.random((len(block), d), dtype=np.float32) < flip_probability
        block ^= np.packbits(noise, axis=1, bitorder="little")
    return out[:n], out[n:]

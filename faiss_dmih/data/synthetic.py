"""Codes drawn from known distributions. All functions are seeded and return packed codes.

`GENERATORS` names the sets: a database and queries of one or more kinds, all of it determined by
the numbers n, nq, d, the options and the state of `rng`. The first two are what any index is
compared on; `perceptual` and `learned` look like what such codes are used for; the others are
where indexes go wrong.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint8]
Queries = dict[str, Codes]

HELD_OUT, NEAR_DUPLICATE, PLANTED = "held-out", "near-duplicate", "planted"

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


def add_noise(
    codes: Codes, probability: float | npt.NDArray[Any], rng: np.random.Generator
) -> None:
    """Invert, in place, every bit of `codes` (n, d/8) with `probability`: one, or (n,) of them."""
    n, width = codes.shape
    probabilities = np.broadcast_to(np.asarray(probability, np.float32), n)
    for start in range(0, n, _CHUNK):
        block = codes[start : start + _CHUNK]
        limits = probabilities[start : start + _CHUNK, None]
        noise = rng.random((len(block), 8 * width), dtype=np.float32) < limits
        block ^= np.packbits(noise, axis=1, bitorder="little")


def planted(xb: Codes, nq: int, rng: np.random.Generator, flips: int | None = None) -> Codes:
    """(nq, d/8) queries, each `flips` (default: d // 16) bits away from a random row of `xb`.

    Among uniform codes of 64 bits or more that row is nearly always the nearest one.
    """
    if flips is None:
        flips = 8 * xb.shape[1] // 16
    return flip_bits(_rows(xb, nq, rng), flips, rng)


def clustered(
    n: int, nq: int, d: int, rng: np.random.Generator, *, flip_probability: float = 0.1
) -> tuple[Codes, Codes]:
    """(n, d/8) database and (nq, d/8) queries around the same n // 256 (at least 1) random centres.

    Each code is a random centre with every bit inverted with probability `flip_probability`.
    """
    out = _rows(uniform(max(1, n // 256), d, rng), n + nq, rng)
    add_noise(out, flip_probability, rng)
    return out[:n], out[n:]


def _rows(codes: Codes, count: int, rng: np.random.Generator) -> Codes:
    """`count` random rows, each as likely as any other; a copy."""
    return codes[rng.integers(0, len(codes), count)]


@dataclass(frozen=True)
class Generator:
    """`make(n, nq, d, rng, **options)` gives a database and its queries of all `kinds`."""

    make: Callable[..., tuple[Codes, Queries]]
    kinds: tuple[str, ...]

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that `make` takes; each has a default."""
        parameters = inspect.signature(self.make).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


GENERATORS: dict[str, Generator] = {}
_Make = Callable[..., tuple[Codes, Queries]]


def _generator(name: str, *kinds: str) -> Callable[[_Make], _Make]:
    def register(make: _Make) -> _Make:
        GENERATORS[name] = Generator(make, kinds)
        return make

    return register


@_generator("uniform", HELD_OUT, PLANTED)
def _uniform(
    n: int, nq: int, d: int, rng: np.random.Generator, *, flips: int | None = None
) -> tuple[Codes, Queries]:
    """Fair bits; planted queries are `flips` bits (default: d // 16) from a stored code."""
    xb = uniform(n, d, rng)
    return xb, {HELD_OUT: uniform(nq, d, rng), PLANTED: planted(xb, nq, rng, flips)}


@_generator("clustered", HELD_OUT)
def _clustered(
    n: int, nq: int, d: int, rng: np.random.Generator, *, flip_probability: float = 0.1
) -> tuple[Codes, Queries]:
    xb, xq = clustered(n, nq, d, rng, flip_probability=flip_probability)
    return xb, {HELD_OUT: xq}


@_generator("zipf-clusters", HELD_OUT)
def _zipf_clusters(
    n: int, nq: int, d: int, rng: np.random.Generator, *, clusters: int = 4096
) -> tuple[Codes, Queries]:
    """Clusters of very different sizes: the i-th has a share of the codes in proportion to 1 / i.

    Codes and queries are a cluster's centre with each bit inverted with probability 1/8.
    """
    share = 1 / np.arange(1, clusters + 1)
    centres = uniform(clusters, d, rng)
    out = centres[rng.choice(clusters, n + nq, p=share / share.sum())]
    for start in range(0, n + nq, _CHUNK):
        block = out[start : start + _CHUNK]
        # A bit of the product of three fair ones is set with probability 1/8.
        block ^= np.bitwise_and.reduce(rng.integers(0, 256, (3, *block.shape), dtype=np.uint8))
    return out[:n], {HELD_OUT: out[n:]}


@_generator("perceptual", HELD_OUT, NEAR_DUPLICATE)
def _perceptual(
    n: int,
    nq: int,
    d: int,
    rng: np.random.Generator,
    *,
    copied: float = 0.3,
    flips: int = 20,
) -> tuple[Codes, Queries]:
    """A database of perceptual hashes: many images, some of them stored in many versions.

    Hashes of different images are fair bits. A part `copied` of the database are versions of the
    other images, up to about `flips` bits away (every bit is inverted with a probability that is
    drawn for each version from 0 to flips / d). Some images have far more versions than others:
    hundreds, at a million. Near duplicates are one more version of a stored hash.
    """

    def versions(codes: Codes) -> Codes:
        add_noise(codes, flips / d * rng.random(len(codes)), rng)
        return codes

    images = uniform(n - int(copied * n), d, rng)
    popular = (len(images) * rng.random(n - len(images)) ** 2).astype(np.intp)
    xb = rng.permutation(np.concatenate([images, versions(images[popular])]), axis=0)
    return xb, {HELD_OUT: uniform(nq, d, rng), NEAR_DUPLICATE: versions(_rows(xb, nq, rng))}


@_generator("learned", HELD_OUT)
def _learned(
    n: int,
    nq: int,
    d: int,
    rng: np.random.Generator,
    *,
    classes: int = 10,
    distinct: int = 4000,
) -> tuple[Codes, Queries]:
    """What a supervised encoder makes of images of a few classes: few codes, stored many times.

    Each class has a codeword, and variants of it with a tenth of the bits inverted, `distinct` in
    all. The i-th class has a share of the images in proportion to 1 / i, and so has the i-th
    variant within its class. Queries are drawn alike; every other one has, besides, each bit
    inverted with probability 1/32, as a new image may get a code that no stored one has.
    """
    size = max(1, distinct // classes)
    codewords = uniform(classes, d, rng)
    variants = np.repeat(codewords, size, axis=0)
    add_noise(variants, 0.1, rng)
    share = np.outer(1 / np.arange(1, classes + 1), 1 / np.arange(1, size + 1)).ravel()
    out = variants[rng.choice(len(variants), n + nq, p=share / share.sum())]
    xb, xq = out[:n], out[n:]
    add_noise(xq[::2], 1 / 32, rng)
    return xb, {HELD_OUT: xq}


@_generator("equal", HELD_OUT)
def _equal(n: int, nq: int, d: int, rng: np.random.Generator) -> tuple[Codes, Queries]:
    """All codes are the same: whatever the query, all of them are its nearest."""
    return np.repeat(uniform(1, d, rng), n, axis=0), {HELD_OUT: uniform(nq, d, rng)}


@_generator("constant-bit", HELD_OUT)
def _constant_bit(n: int, nq: int, d: int, rng: np.random.Generator) -> tuple[Codes, Queries]:
    """Fair bits but for the first, which is set in every code and in every other query."""
    xb = uniform(n, d, rng)
    xb[:, 0] |= 1
    return xb, {HELD_OUT: uniform(nq, d, rng)}


@_generator("far", HELD_OUT)
def _far(n: int, nq: int, d: int, rng: np.random.Generator) -> tuple[Codes, Queries]:
    """Codes in a ball, and queries at its antipode: far from every code.

    Codes are one centre with each bit inverted with probability 1/10, queries are complements of
    stored codes: about 0.82 d bits from the others.
    """
    xb = np.repeat(uniform(1, d, rng), n, axis=0)
    add_noise(xb, 0.1, rng)
    return xb, {HELD_OUT: ~_rows(xb, nq, rng)}


@_generator("one-bucket", HELD_OUT)
def _one_bucket(
    n: int, nq: int, d: int, rng: np.random.Generator, *, shared: int = 16
) -> tuple[Codes, Queries]:
    """Fair bits, but half of the codes, and of the queries, agree in the first `shared` bits.

    One bucket of any hash table over bits among these holds half of the codes.
    """
    same = np.packbits(np.arange(d) < shared, bitorder="little")
    out = uniform(n + nq, d, rng)
    out[rng.random(n + nq) < 0.5] &= ~same
    return out[:n], {HELD_OUT: out[n:]}

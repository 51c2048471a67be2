"""The statements that docs/algorithm.md rests on, by enumeration of all 8-bit codes."""

from __future__ import annotations

import itertools

import pytest

BITS = 8
QUERY = 0b10110100


def substring_distances(code: int, m: int) -> list[int]:
    difference = f"{code ^ QUERY:0{BITS}b}"
    width = BITS // m
    return [difference[j * width : (j + 1) * width].count("1") for j in range(m)]


def within(radius: int) -> set[int]:
    return {code for code in range(1 << BITS) if (code ^ QUERY).bit_count() <= radius}


def candidates(m: int, radii: tuple[int, ...]) -> set[int]:
    """Codes shown by at least one table j that was probed to radii[j] (-1: not at all)."""
    return {
        code
        for code in range(1 << BITS)
        if any(h <= r for h, r in zip(substring_distances(code, m), radii, strict=True))
    }


@pytest.mark.parametrize("m", [1, 2, 4, 8])
def test_general_pigeonhole(m: int) -> None:
    """Every code at a distance below sum(rho_j + 1) is seen; for no larger one is it so."""
    for radii in itertools.product(range(-1, BITS // m), repeat=m):
        guarantee = sum(r + 1 for r in radii)
        seen = candidates(m, radii)
        assert within(guarantee - 1) <= seen
        if all(r < BITS // m for r in radii):
            assert not within(guarantee) <= seen


def test_proposition_1_is_false_as_printed() -> None:
    """r = r'm + j - 1 with radius r' in tables 1..j only, for m = 2, r' = 1, j = 1."""
    missed = within(2) - candidates(2, (1, -1))
    assert (len(within(2)), len(missed)) == (37, 6)


@pytest.mark.parametrize("m", [2, 4])
def test_proposition_1_as_meant(m: int) -> None:
    """Radius r' in tables 1..j and r' - 1 in tables j+1..m: the round robin case."""
    for radius in range(BITS // m):
        for j in range(1, m + 1):
            radii = (radius,) * j + (radius - 1,) * (m - j)
            assert within(radius * m + j - 1) <= candidates(m, radii)

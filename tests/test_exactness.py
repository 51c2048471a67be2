"""Every answer of IndexDMIH is the oracle's and IndexBinaryFlat's, bit for bit."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import pytest
from checks import assert_exact, assert_same, flat, make_index
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from strategies import CODES, Case, batches, cases, cuts, dims, ks, make_queries, radii

from faiss_dmih import reference

if TYPE_CHECKING:
    from collections.abc import Iterator

MODES = ("auto", "mih", "scan")

pytestmark = pytest.mark.usefixtures("simd_level")


@contextmanager
def threads(n: int) -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(n)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@st.composite
def searches(draw: st.DrawFn, case: Case) -> tuple[int, int]:
    """k and a radius; many of the latter lie where some distances are."""
    k = draw(ks(case.n))
    radius = draw(radii(case.d))
    if case.n and case.nq and draw(st.booleans()):
        code, query = draw(st.integers(0, case.n - 1)), draw(st.integers(0, case.nq - 1))
        distance = int(reference.hamming(case.xq[[query]], case.xb[[code]])[0, 0])
        radius = distance + draw(st.integers(0, 1))
    return k, radius


@pytest.mark.parametrize("mode", MODES)
@given(case=cases(), data=st.data())
def test_one_add(mode: str, case: Case, data: st.DataObject) -> None:
    index = make_index(case.d, mode, cuts=data.draw(cuts(case.d), label="cuts"))
    index.add(case.xb)
    if data.draw(st.booleans(), label="compact"):
        index.compact()
    k, radius = data.draw(searches(case), label="k, radius")
    with threads(data.draw(st.sampled_from([1, 2, 5]), label="threads")):
        assert_exact(index, case.xb, case.xq, k, radius)


@pytest.mark.parametrize("mode", MODES)
@given(case=cases(biggest_d=512), data=st.data())
def test_many_adds_with_searches_in_between(mode: str, case: Case, data: st.DataObject) -> None:
    index = make_index(case.d, mode, cuts=data.draw(cuts(case.d), label="cuts"))
    k, radius = data.draw(searches(case), label="k, radius")
    stored = 0
    for batch in data.draw(batches(case.n), label="batches"):
        index.add(case.xb[stored : stored + batch])
        stored += batch
        with threads(data.draw(st.sampled_from([1, 3]), label="threads")):
            assert_exact(index, case.xb[:stored], case.xq, k, radius)


class Life(RuleBasedStateMachine):
    """An index through adds, searches, compactions and resets, beside an array of the same codes.

    Adds come up to several tails long, so that segments are made and merged.
    """

    index: Any
    stored: np.ndarray

    @initialize(d=dims(biggest=256), mode=st.sampled_from(MODES), data=st.data())
    def create(self, d: int, mode: str, data: st.DataObject) -> None:
        self.index = make_index(d, mode, cuts=data.draw(cuts(d)))
        self.stored = np.empty((0, d // 8), dtype=np.uint8)

    @precondition(lambda self: len(self.stored) < 60_000)
    @rule(
        n=st.sampled_from([0, 1, 7, 500, 8191, 8192, 8193, 11_000]),
        kind=st.sampled_from(sorted(CODES)),
        seed=st.integers(0, 2**32 - 1),
    )
    def add(self, n: int, kind: str, seed: int) -> None:
        codes = CODES[kind](np.random.default_rng(seed), n, self.stored.shape[1])
        self.index.add(codes)
        self.stored = np.concatenate([self.stored, codes])

    @precondition(lambda self: len(self.stored) > 0)
    @rule(n=st.integers(1, 5000))
    def add_again(self, n: int) -> None:
        """Codes that are stored already."""
        codes = self.stored[-n:]
        self.index.add(codes)
        self.stored = np.concatenate([self.stored, codes])

    @rule(nq=st.sampled_from([1, 2, 40]), seed=st.integers(0, 2**32 - 1), data=st.data())
    def search(self, nq: int, seed: int, data: st.DataObject) -> None:
        xq = make_queries(np.random.default_rng(seed), self.stored, nq)
        d = self.stored.shape[1] * 8
        k, radius = data.draw(st.integers(1, 60)), data.draw(radii(d))
        with threads(data.draw(st.sampled_from([1, 3]))):
            assert_exact(self.index, self.stored, xq, k, radius)

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule()
    def reset(self) -> None:
        self.index.reset()
        self.stored = self.stored[:0]

    @invariant()
    def holds_what_was_added(self) -> None:
        if hasattr(self, "index"):
            assert self.index.ntotal == len(self.stored)
            np.testing.assert_array_equal(self.index.reconstruct_n(), self.stored, strict=True)


def test_life() -> None:
    examples = settings.default.max_examples // 3
    run_state_machine_as_test(
        Life, settings=settings(max_examples=examples, stateful_step_count=12)
    )


# One query, and a batch of it: a scan compares batches in another way than single queries.
BATCHES = [("auto", 1), ("auto", 200), ("mih", 1), ("scan", 1), ("scan", 200)]


@pytest.mark.parametrize(("mode", "nq"), BATCHES)
@pytest.mark.parametrize("d", [8, 64, 72, 256, 264, 512, 2048])
def test_all_distances_from_zero_to_d(mode: str, d: int, nq: int) -> None:
    """One code at each distance from the query: sums that overflow a byte show here."""
    xb = np.packbits(np.tri(d + 1, d, -1, dtype=np.uint8), axis=1)
    xq = np.repeat(xb[:1], nq, axis=0)
    index = make_index(d, mode)
    index.add(xb[::-1].copy())
    index.compact()
    everything = np.arange(d + 1, dtype=np.int32)
    D, I = index.search(xq, d + 1)
    np.testing.assert_array_equal(D, np.tile(everything, (nq, 1)))
    np.testing.assert_array_equal(I, np.tile(everything[::-1], (nq, 1)))
    for radius in (0, 1, d // 2, 255, 256, 257, d, d + 1):
        lims, distances, ids = index.range_search(xq, radius)
        inside = min(radius, d + 1)
        np.testing.assert_array_equal(lims, np.arange(nq + 1) * inside)
        np.testing.assert_array_equal(ids, np.tile(np.arange(d + 1 - inside, d + 1), nq))
        np.testing.assert_array_equal(distances, np.tile(everything[:inside][::-1], nq))


@pytest.mark.parametrize(("mode", "nq"), BATCHES)
def test_ties_go_to_the_smallest_ids(mode: str, nq: int) -> None:
    """10,000 codes at one distance from the query; ids as they were added, across segments."""
    rng = np.random.default_rng(3)
    query = rng.integers(0, 256, (1, 16), dtype=np.uint8)
    xb = np.repeat(query, 10_000, axis=0)
    at = rng.integers(0, 128, len(xb))
    xb[np.arange(len(xb)), at // 8] ^= (1 << at % 8).astype(np.uint8)
    index = make_index(128, mode)
    for batch in np.array_split(xb, 3):
        index.add(batch)
    for k in (1, 2, 100, 9_999, 10_000, 10_001):
        D, I = index.search(np.repeat(query, nq, axis=0), k)
        some, none = min(k, 10_000), max(k - 10_000, 0)
        np.testing.assert_array_equal(I, np.tile([*range(some), *[-1] * none], (nq, 1)))
        np.testing.assert_array_equal(D, np.tile([1] * some + [2**31 - 1] * none, (nq, 1)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("d", [8, 64, 136])
def test_parts_with_fewer_codes_than_are_asked_for(mode: str, d: int) -> None:
    """What one part has found is no answer yet: nearer codes of the next one come after it."""
    rng = np.random.default_rng(d)
    for _ in range(60):
        first, rest = (int(n) for n in rng.integers(1, 7, 2))
        xb = rng.integers(0, 256, (first + rest, d // 8), dtype=np.uint8)
        if rng.random() < 0.5:  # the same codes again, or their complements
            xb[first:] = xb[rng.integers(0, first, rest)] ^ np.uint8(255 * rng.integers(0, 2))
        index = make_index(d, mode)
        index.add(xb[:first])
        index.compact()
        index.add(xb[first:])
        xq = rng.integers(0, 256, (3, d // 8), dtype=np.uint8)
        assert_exact(index, xb, xq, int(rng.integers(1, first + rest + 2)), d // 3)


@pytest.mark.parametrize("equal", [100, 2000])
def test_few_and_many_equal_codes(equal: int) -> None:
    """Lists of ids are kept where they spare something; ties are the same either way."""
    n = 20_000
    xb = np.random.default_rng(5).integers(0, 256, (n, 8), dtype=np.uint8)
    xb[n - equal :] = xb[:equal]
    index, expected = make_index(64, "auto"), flat(xb)
    index.add(xb)
    assert (index.memory_usage()["ids"] > 4 * n) == (equal > n // 64)
    for xq in (xb[:50], xb[:50] ^ np.uint8(1)):
        assert_same(index.search(xq, 3), expected.search(xq, 3))
        assert_same(index.range_search(xq, 20), expected.range_search(xq, 20))

"""Partitions of the bits: what they must be, what strategies are for, and that no answer moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import assert_same, flat, make_index
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import CODES, Case, ks

import faiss_dmih
from faiss_dmih import partition
from faiss_dmih.codes import pack, unpack
from faiss_dmih.options import paper_cuts
from faiss_dmih.partition import STRATEGIES, Partition, learn_partition

Codes = NDArray[np.uint8]


def collisions(bits: NDArray[Any]) -> float:
    """The share of pairs of rows that are equal."""
    counts = np.unique(bits, axis=0, return_counts=True)[1]
    return float((counts * (counts - 1)).sum()) / (len(bits) * (len(bits) - 1))


@st.composite
def small_cases(draw: st.DrawFn) -> Case:
    return Case(
        d=draw(st.sampled_from([8, 16, 24, 64, 72, 128, 200, 512])),
        n=draw(st.sampled_from([1, 2, 3, 64, 300])),
        nq=5,
        kind=draw(st.sampled_from(sorted(CODES))),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


@given(case=small_cases(), strategy=st.sampled_from(sorted(STRATEGIES)), data=st.data())
@settings(max_examples=20)
def test_any_partition_is_sound_and_moves_no_answer(
    case: Case, strategy: str, data: st.DataObject
) -> None:
    shape: dict[str, Any] = data.draw(
        st.one_of(
            st.just({}),
            st.integers(-(-case.d // 14), max(case.d // 8, 2)).map(lambda m: {"m": m}),
            st.permutations([3, case.d % 8 + 5] + [8] * (case.d // 8 - 1)).map(
                lambda cuts: {"cuts": cuts}
            ),
        )
    )
    found = learn_partition(case.xb, 1000, strategy, random_state=case.seed, **shape)
    assert sorted(found.order) == list(range(case.d))
    assert sum(found.cuts) == case.d
    assert all(1 <= cut <= 26 for cut in found.cuts)
    if "m" in shape:
        assert len(found.cuts) == shape["m"]
    elif "cuts" in shape:
        assert found.cuts == tuple(shape["cuts"])
    else:
        assert len(found.cuts) == len(paper_cuts(case.d, 1000))
    assert found == learn_partition(case.xb, 1000, strategy, random_state=case.seed, **shape)

    k = data.draw(ks(case.n))
    expected = flat(case.xb).search(case.xq, k)
    index = make_index(case.d, data.draw(st.sampled_from(["mih", "auto+probe"])), cuts=found.cuts)
    index.add(found.permute(case.xb))
    index.compact()
    assert_same(index.search(found.permute(case.xq), k), expected)


def test_permuted_codes_have_their_bits_where_order_says() -> None:
    rng = np.random.default_rng(0)
    xb = rng.integers(0, 256, (20_000, 5), dtype=np.uint8)
    found = Partition(tuple(rng.permutation(40).tolist()), (20, 20))
    bits, permuted = unpack(xb), unpack(found.permute(xb))
    for at, bit in enumerate(found.order):
        np.testing.assert_array_equal(permuted[:, at], bits[:, bit])
    assert found.substrings == (found.order[:20], found.order[20:])
    assert found.permute(xb[:0]).shape == (0, 5)


def copies(n: int = 4000) -> Codes:
    """16 independent bits, each four times in a row: contiguous substrings have 4 of them."""
    bits = np.random.default_rng(1).integers(0, 2, (n, 16), dtype=np.uint8)
    return pack(np.repeat(bits, 4, axis=1))


@pytest.mark.parametrize("strategy", ["data-driven", "entropy", "cost"])
def test_copies_of_a_bit_go_to_different_tables(strategy: str) -> None:
    found = learn_partition(copies(), 1_000_000, strategy, cuts=(16,) * 4)
    for substring in found.substrings:
        assert len({bit // 4 for bit in substring}) == 16


def weak(n: int = 20_000) -> Codes:
    """The first 24 of 64 bits are nearly always zero."""
    rng = np.random.default_rng(2)
    return pack(rng.random((n, 64)) < np.where(np.arange(64) < 24, 0.02, 0.5))


def test_entropy_makes_tables_equal() -> None:
    xb = weak()
    bits = unpack(xb)

    def spread(strategy: str) -> float:
        found = learn_partition(xb, 1_000_000, strategy, m=4)
        told = [-np.log2(collisions(bits[:, substring])) for substring in found.substrings]
        return float(max(told) - min(told))

    assert spread("contiguous") > 6
    assert spread("entropy") < 1.5


def test_entropy_gives_weak_bits_longer_substrings() -> None:
    rng = np.random.default_rng(3)
    strong = np.arange(64) < 16
    xb = pack(rng.random((20_000, 64)) < np.where(strong, 0.5, 0.03))
    found = learn_partition(xb, 1_000_000, "entropy", m=4)
    assert set(found.cuts) <= set(range(14, 19))
    fixed = learn_partition(xb, 1_000_000, "entropy", cuts=(12, 20, 12, 20))
    assert fixed.cuts == (12, 20, 12, 20)


def test_offsets_stay_within_what_default_cuts_may_take() -> None:
    n = 100_000
    found = learn_partition(weak(), n, "entropy")
    assert sum(4 * 2**cut for cut in found.cuts) <= max(8 * n * len(found.cuts), 2**20)


@pytest.mark.parametrize("d", [24, 64])
def test_predicted_shares_are_those_after_the_swap(d: int) -> None:
    """What _Costs says of every swap, against counting all pairs again."""
    rng = np.random.default_rng(4)
    bits = (rng.random((80, d)) < 0.12).astype(np.uint8)
    cuts = (d // 4, d // 2, d // 4)
    task = partition._Task(bits, 1000, cuts, True, rng)
    lists = partition._contiguous(task)
    pairs = partition._Pairs(task, 1 << 20, 1 << 21)
    costs = partition._Costs(task, pairs, lists)
    differ = np.stack([pairs.differ(bit).ravel() for bit in range(d)])

    def shares(substring: list[int]) -> list[float]:
        distance = differ[substring].sum(axis=0)
        return [float(np.mean(distance == r)) for r in (0, 1)]

    for j, substring in enumerate(lists):
        np.testing.assert_allclose(costs.now[:, j], shares(substring))
        for a in substring[:5]:
            for b in sorted(set(range(d)) - set(substring)):
                changed = [b if bit == a else bit for bit in substring]
                np.testing.assert_allclose(costs.swapped[:, a, b], shares(changed), rtol=1e-5)
    before = costs.total()
    while costs.improve():
        assert costs.total() < before
        before = costs.total()
    again = partition._Costs(task, pairs, costs.lists)
    np.testing.assert_allclose(costs.total(), again.total())
    assert sorted(np.concatenate(costs.lists).tolist()) == list(range(d))


@pytest.mark.parametrize("strategy", ["data-driven", "cost"])
def test_fewer_candidates_where_neighbouring_bits_agree(strategy: str) -> None:
    rng = np.random.default_rng(5)
    agreeing = np.repeat(rng.random((30_000, 16)), 4, axis=1)
    xb = pack(np.where(rng.random((30_000, 64)) < 0.6, agreeing, rng.random((30_000, 64))) < 0.5)
    xq = pack(unpack(xb[:200]) ^ (rng.random((200, 64)) < 0.05))

    def candidates(name: str) -> int:
        found = learn_partition(xb, len(xb), name, m=4)
        index = make_index(64, "mih", cuts=found.cuts)
        index.add(found.permute(xb))
        faiss_dmih.reset_stats()
        index.search(found.permute(xq), 1)
        return faiss_dmih.stats()["candidates"]

    assert candidates(strategy) < 0.7 * candidates("contiguous")


def test_errors() -> None:
    xb = np.zeros((3, 8), np.uint8)
    with pytest.raises(ValueError, match="unknown strategy 'best': expected one of contiguous"):
        learn_partition(xb, 3, "best")
    with pytest.raises(ValueError, match="got none"):
        learn_partition(xb[:0], 3)
    with pytest.raises(ValueError, match=r"m = 2: substrings of 64 bits are 3 to 64"):
        learn_partition(xb, 3, m=2)
    with pytest.raises(ValueError, match=r"m = 4 and cuts = \(16, 16, 16, 16\), expected one"):
        learn_partition(xb, 3, m=4, cuts=[16] * 4)
    with pytest.raises(ValueError, match="cuts must sum to d = 64"):
        learn_partition(xb, 3, cuts=[16] * 3)
    with pytest.raises(TypeError, match="uint8"):
        learn_partition(xb.astype(np.int32), 3)

"""Sub-models: whose data they see; that they can be added, updated, and trained in parallel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import quick, vectors

from faiss_dmih.encoders import EnsembleDSH, Objective
from faiss_dmih.encoders.ensemble import complementary_groups


def ensemble(bits: int = 48, **changes: Any) -> EnsembleDSH:
    options = {"backbone": "features", "training": quick(epochs=2), **changes}
    return EnsembleDSH(bits, **options)


@given(n=st.integers(1, 300), m=st.integers(1, 9), seed=st.integers(0, 100))
def test_groups(n: int, m: int, seed: int) -> None:
    """Two by two they are all items, each once; an odd one out is half of them."""
    groups = complementary_groups(n, m, seed)
    assert len(groups) == m
    for first, second in zip(groups[::2], groups[1::2], strict=False):
        assert sorted([*first, *second]) == list(range(n)) if n > 1 else True
    for group in groups:
        assert n == 1 or len(group) in (n // 2, -(-n // 2))
        assert len(np.unique(group)) == len(group) > 0
    for more, same in zip(complementary_groups(n, m + 3, seed), groups, strict=False):
        np.testing.assert_array_equal(more, same)


def test_workers_change_nothing() -> None:
    x, labels = vectors()
    one = ensemble(objective=Objective(feature_weight=0.1, instance_weight=0.1)).fit(x, labels)
    several = ensemble(objective=Objective(feature_weight=0.1, instance_weight=0.1), workers=2).fit(
        x, labels
    )
    assert one.fingerprints == several.fingerprints
    np.testing.assert_array_equal(one.relaxed(x), several.relaxed(x))


def test_sub_models_differ() -> None:
    x, labels = vectors()
    marks = [mark for _, mark in ensemble().fit(x, labels).fingerprints]
    assert len(set(marks)) == 3


@pytest.mark.parametrize(("bits", "cuts"), [(16, (16,)), (48, (16, 16, 16)), (40, (16, 16, 8))])
def test_cuts_are_the_sub_models(bits: int, cuts: tuple[int, ...]) -> None:
    x, labels = vectors(60)
    trained = ensemble(bits).fit(x, labels)
    assert trained.cuts == cuts
    assert trained.encode(x).shape == (60, bits // 8)


def test_bits_can_be_added() -> None:
    """The old codes are the first bits of the new ones; all at once gives the same."""
    x, labels = vectors()
    grown = ensemble(32).fit(x, labels)
    before = grown.encode(x)
    grown.extend(64, x, labels)
    assert grown.bits == 64
    np.testing.assert_array_equal(grown.encode(x)[:, :4], before)
    at_once = ensemble(64).fit(x, labels)
    np.testing.assert_array_equal(grown.encode(x), at_once.encode(x))
    with pytest.raises(ValueError, match="expected more than the 64 there are"):
        grown.extend(64, x, labels)


def test_updates_take_turns() -> None:
    x, labels = vectors()
    trained = ensemble().fit(x, labels)
    for number in (0, 1, 2, 0):
        before = trained.fingerprints
        codes = trained.encode(x)
        trained.update(*vectors(100, seed=number + 5))
        changed = [a != b for a, b in zip(before, trained.fingerprints, strict=True)]
        assert changed == [part == number for part in range(3)]
        kept = np.delete(trained.encode(x), [2 * number, 2 * number + 1], axis=1)
        np.testing.assert_array_equal(kept, np.delete(codes, [2 * number, 2 * number + 1], axis=1))


def test_an_update_that_fails_changes_nothing() -> None:
    x, labels = vectors()
    trained = ensemble().fit(x, labels)
    before, codes = trained.fingerprints, trained.encode(x)
    assert trained.fingerprints == before
    spoilt = x.copy()
    spoilt[-1] = np.nan
    with pytest.raises(FloatingPointError):
        trained.update(spoilt, labels)
    assert trained.fingerprints == before
    np.testing.assert_array_equal(trained.encode(x), codes)


def test_fingerprints_see_every_change() -> None:
    """Of weights in place, and of a head in another's place."""
    trained = ensemble(16).fit(*vectors())
    seen = {trained.fingerprints}
    with torch.no_grad():
        trained.parts[0].head.hash.bias[0] += 1
    seen.add(trained.fingerprints)
    trained.parts[0].head = ensemble(16, training=quick(seed=5)).fit(*vectors()).parts[0].head
    seen.add(trained.fingerprints)
    assert len(seen) == 3


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="got sub_bits = 30, expected 1 to 26"):
        ensemble(60, sub_bits=30)
    with pytest.raises(ValueError, match="was not fitted"):
        ensemble().update(*vectors())
    with pytest.raises(ValueError, match="was not fitted"):
        ensemble().extend(64, *vectors())

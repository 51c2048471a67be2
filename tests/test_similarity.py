"""Against the matrix, written down."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faiss_dmih.similarity import Similarity, indicator


@given(n=st.integers(1, 12), classes=st.integers(1, 4), several=st.booleans(), seed=st.integers(0))
def test_products(n: int, classes: int, several: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (n, classes)) if several else rng.integers(0, classes, n)
    s = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            shared = (labels[i] & labels[j]).any() if several else labels[i] == labels[j]
            s[i, j] = 1 if shared else -1
    found = Similarity(labels)
    np.testing.assert_array_equal(found.rows(np.arange(n)), s)
    x = rng.integers(-9, 9, (n, 3)).astype(float)
    np.testing.assert_array_equal(found @ x, s @ x)
    np.testing.assert_array_equal(found @ x[:, 0], s @ x[:, 0])
    np.testing.assert_array_equal(found.table[found.group] @ found.sums(x), s @ x)


def test_what_are_no_labels() -> None:
    with pytest.raises(ValueError, match="expected labels of classes"):
        indicator([0.5, 1.0])
    for bad in (np.zeros((2, 2, 2)), np.full((2, 2), 2), 3):
        with pytest.raises(ValueError, match=r"expected labels \(n,\), or 0/1"):
            indicator(bad)

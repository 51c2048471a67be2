"""What hashing methods that are scikit-learn estimators share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from faiss_dmih import codes

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        f"baselines need scikit-learn 1.6 or later ({error}): pip install 'faiss-dmih[bench]'"
    ) from error

Floats = NDArray[np.float64]

BLOCK = 4096
"""Vectors that are encoded at a time."""


class HashingEstimator(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """From feature vectors to packed codes, as scikit-learn's transformers are used.

    A method learns in `_fit` and gives one number per bit in `_decide`; its bit is set where the
    number is positive.

    Args:
        n_bits: length of the codes, a multiple of 8.
        random_state: of all that is random; an int gives the same codes each time.

    Attributes:
        n_features_in_: dimensions of the vectors it was fitted on.
    """

    _supervised = False

    def __init__(self, n_bits: int = 64, *, random_state: Any = None) -> None:
        self.n_bits = n_bits
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Any:
        """Learn from vectors, and from their labels where the method is supervised.

        Args:
            X: (n, n_features), real, finite, dense; at least two.
            y: labels (n,), or 0/1 (n, classes) where items have several; ignored by methods that
                are not supervised.

        Raises:
            ValueError: n_bits is no multiple of 8, X or y are of another kind, y is missing, or all
                vectors are the same.
        """
        if not isinstance(self.n_bits, int | np.integer) or self.n_bits < 8 or self.n_bits % 8:
            raise ValueError(f"got n_bits = {self.n_bits!r}, expected a multiple of 8, at least 8")
        wanted = {"dtype": np.float64, "ensure_min_samples": 2}
        if self._supervised:
            x, labels = validate_data(self, X, y, multi_output=True, **wanted)
        else:
            x, labels = validate_data(self, X, **wanted), None
        if (x == x[0]).all():
            raise ValueError(f"all {len(x)} vectors are the same: there is nothing to learn")
        self._fit(x, labels)
        return self

    def decision_function(self, X: ArrayLike) -> Floats:
        """One number per bit, (n, n_bits); bits are set where it is positive."""
        return np.concatenate(list(self._decisions(X)))

    def transform(self, X: ArrayLike) -> NDArray[np.uint8]:
        """Packed codes uint8 (n, n_bits / 8), as FAISS's binary indexes take them.

        Args:
            X: (n, n_features).

        Raises:
            sklearn.exceptions.NotFittedError: before `fit`.
        """
        return np.concatenate([codes.pack(numbers > 0) for numbers in self._decisions(X)])

    def _decisions(self, x: ArrayLike) -> Iterator[Floats]:
        """By blocks: kernel features are larger than the vectors."""
        check_is_fitted(self)
        checked = validate_data(self, x, reset=False, dtype=(np.float64, np.float32))
        for at in range(0, len(checked), BLOCK):
            yield self._decide(checked[at : at + BLOCK].astype(np.float64, copy=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # codes are bytes, whatever vectors are
        tags.target_tags.required = self._supervised
        tags.target_tags.multi_output = self._supervised
        return tags

    def _fit(self, x: Floats, y: Any) -> None:
        raise NotImplementedError

    def _decide(self, x: Floats) -> Floats:
        raise NotImplementedError

"""What scikit-learn asks of an estimator, and what FAISS asks of codes."""

from __future__ import annotations

from typing import Any

from sklearn.utils.estimator_checks import parametrize_with_checks

from faiss_dmih import baselines

ALL = [getattr(baselines, name) for name in baselines.__all__ if name != "HashingEstimator"]


@parametrize_with_checks([cls(16) for cls in ALL])
def test_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)

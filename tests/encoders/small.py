"""Small labelled data, on which nets train in a second."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from faiss_dmih.encoders import Training

Data = tuple[NDArray[np.float32], NDArray[np.int64]]


def vectors(n: int = 240, classes: int = 4, dim: int = 12, seed: int = 0) -> Data:
    """Clouds around a corner for each class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    x = rng.normal(size=(n, dim)) + 3 * np.eye(classes, dim)[labels]
    return x.astype(np.float32), labels


def quick(**changes: Any) -> Training:
    return Training(**{"epochs": 3, "batch_size": 32, "progress": False, **changes})

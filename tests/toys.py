"""Small named sets, on which every table is made in seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from faiss_dmih.bench.protocol import Protocol
from faiss_dmih.data import LABELLED, PROTOCOLS, Features, Images, named
from faiss_dmih.tables import SCHEDULES, Plan, beyond, timing

VECTORS, PHOTOS = "toy-features", "toy-images"
CLASSES = 4


def vectors(progress: Any) -> Features:
    rng = np.random.default_rng(0)
    labels = np.arange(600) % CLASSES
    x = rng.normal(size=(600, 24)) + 3 * np.eye(CLASSES, 24)[labels]
    return Features.from_arrays(x.astype(np.float32), labels, name=VECTORS)


def photos(progress: Any) -> Images:
    rng = np.random.default_rng(1)
    labels = np.arange(120) % CLASSES
    pixels = rng.integers(0, 120, (120, 32, 32, 3)) + 40 * labels[:, None, None, None] // 2
    return Images.from_arrays(pixels.astype(np.uint8), labels, name=PHOTOS)


def make_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives these sets a name, races little time, and sweeps few steps."""
    monkeypatch.setattr(beyond, "WEIGHTS", (0.0, 0.5))
    monkeypatch.setattr(beyond, "SHARES", (2, 8))
    monkeypatch.setitem(LABELLED, VECTORS, named.Named(vectors, "toys"))
    monkeypatch.setitem(LABELLED, PHOTOS, named.Named(photos, "toys"))
    monkeypatch.setitem(PROTOCOLS, VECTORS, {"queries_per_class": 10, "train": 300})
    monkeypatch.setitem(PROTOCOLS, PHOTOS, {"queries_per_class": 5, "train": 60})
    monkeypatch.setattr(timing, "protocol", hurried)


def hurried(nq: int) -> Protocol:
    return Protocol(
        cell_seconds=0.01, min_batch_queries=nq, min_rounds=1, max_rounds=1, settle_seconds=0
    )


def plan(**changes: Any) -> Plan:
    """The quick schedule on toys."""
    usual = replace(
        SCHEDULES["quick"],
        data=(VECTORS,),
        images=PHOTOS,
        epochs=1,
        image_epochs=1,
        image_items=40,
        sweep_items=80,
        validation=40,
        stages=("none", "conv1"),
        views=1_000,
    )
    return replace(usual, **changes)

"""Fixtures of the encoders' commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import CLASSES, QUICK, done, make_photos


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos, an encoder and an index of all of them; vectors, an ensemble and an index."""
    root = tmp_path_factory.mktemp("world")
    photos = make_photos(root / "photos")
    options = ["--method", "deephash", *QUICK]
    done("train", photos, "--out", root / "enc", *options)
    done("build", root / "enc", photos, "--out", root / "idx")
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 3
    np.savez(
        root / "x.npz",
        features=rng.normal(size=(60, 8)) + 3 * np.eye(3, 8)[labels],
        labels=labels,
        classes=CLASSES,
    )
    ensemble = ["--method", "ensemble", "--sub-bits", 8, *QUICK]
    done("train", root / "x.npz", "--out", root / "ens", *ensemble, "--log", "none")
    done("build", root / "ens", root / "x.npz", "--out", root / "ens-idx")
    return root


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and nothing of this machine's environment."""
    monkeypatch.delenv("FAISS_DMIH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    return tmp_path

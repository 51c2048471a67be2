"""What scikit-learn asks of an estimator, and what FAISS asks of codes."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import faiss
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from faiss_dmih import baselines, codes
from faiss_dmih.baselines import base
from faiss_dmih.reference import hamming

ALL = [getattr(baselines, name) for name in baselines.__all__ if name != "HashingEstimator"]
SUPERVISED = [cls for cls in ALL if cls._supervised]


CHECKS = [
    pytest.param(estimator, check, id=f"{cls.__name__}-{number}")
    for cls in ALL
    for number, (estimator, check) in enumerate(estimator_checks_generator(cls(8)))
]


@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_scikit_learn(estimator: Any, check: Any) -> None:
    """None is left out."""
    check(estimator)


def clouds(n: int = 90, dim: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return rng.normal(size=(n, dim)) + 4 * np.eye(3, dim)[y], y


@pytest.mark.parametrize("cls", ALL)
def test_codes_are_the_signs(cls: Any) -> None:
    """With more bits than dimensions, too; packed as FAISS's indexes take them."""
    x, y = clouds()
    hashing = cls(40, random_state=3).fit(x, y)
    numbers = hashing.decision_function(x)
    assert numbers.shape == (90, 40)
    packed = hashing.transform(x)
    assert (packed.dtype, packed.shape) == (np.uint8, (90, 5))
    np.testing.assert_array_equal(codes.unpack(packed), numbers > 0)
    index = faiss.IndexBinaryFlat(40)
    index.add(packed)
    assert (index.search(packed, 1)[0] == 0).all()
    assert len(np.unique(packed, axis=0)) > 2


@pytest.mark.parametrize("cls", ALL)
def test_random_state(cls: Any) -> None:
    x, y = clouds()
    first, second, other = (cls(16, random_state=s).fit(x, y) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.transform(x), second.transform(x))
    copy = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(first.transform(x), copy.transform(x))
    if cls is not baselines.SH:
        assert not np.array_equal(first.transform(x), other.transform(x))


@pytest.mark.parametrize("cls", ALL)
def test_blocks(cls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes do not depend on how many vectors are encoded at a time."""
    x, y = clouds()
    hashing = cls(16, random_state=0).fit(x, y)
    expected, numbers = hashing.transform(x), hashing.decision_function(x)
    monkeypatch.setattr(base, "BLOCK", 7)
    np.testing.assert_array_equal(hashing.transform(x), expected)
    np.testing.assert_allclose(hashing.decision_function(x), numbers, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cls", ALL)
def test_bad_input(cls: Any) -> None:
    x, y = clouds()
    for bits in (12, 0, 8.0, "8"):
        with pytest.raises(ValueError, match="expected a multiple of 8, at least 8"):
            cls(bits).fit(x, y)
    with pytest.raises(NotFittedError):
        cls(8).transform(x)
    with pytest.raises(ValueError, match="all 90 vectors are the same: there is nothing"):
        cls(8).fit(np.ones_like(x), y)
    with pytest.raises(ValueError, match=r"X has 5 features, but .* is expecting 6"):
        cls(8).fit(x, y).transform(x[:, :5])


@pytest.mark.parametrize("cls", SUPERVISED)
def test_labels(cls: Any) -> None:
    """Of any kind that names classes; several of an item; not numbers that measure something."""
    x, y = clouds()
    expected = cls(16, random_state=0).fit(x, y).transform(x)
    named = np.array(["ant", "bee", "cow"])[y]
    np.testing.assert_array_equal(cls(16, random_state=0).fit(x, named).transform(x), expected)
    single = cls(16, random_state=0).fit(x, np.eye(3)[y]).transform(x)
    np.testing.assert_array_equal(single, expected)
    several = np.eye(3)[y] + np.eye(3)[(y + 1) % 3] * (np.arange(90) % 2)[:, None]
    assert cls(16, random_state=0).fit(x, several).transform(x).shape == (90, 2)
    with pytest.raises(ValueError, match="requires y to be passed"):
        cls(8).fit(x)
    with pytest.raises(ValueError, match="no integers, expected labels of classes"):
        cls(8).fit(x, y + 0.5)
    with pytest.raises(ValueError, match="or 0/1"):
        cls(8).fit(x, np.stack([y, y], 1))


def test_in_a_pipeline() -> None:
    """The codes of new vectors of a class are near those of the class."""
    x, y = clouds()
    new, its = clouds(seed=1)
    whole = clone(make_pipeline(StandardScaler(), baselines.SDH(16, random_state=0))).fit(x, y)
    nearest = hamming(whole.transform(new), whole.transform(x)).argmin(1)
    assert (y[nearest] == its).mean() > 0.9


def test_counts_are_checked() -> None:
    x, y = clouds()
    for hashing, name in (
        (baselines.KSH(n_anchors=0), "n_anchors"),
        (baselines.KSH(n_labelled=2.5), "n_labelled"),
        (baselines.SDH(max_iter=0), "max_iter"),
        (baselines.LFH(n_chosen=0), "n_chosen"),
    ):
        with pytest.raises(ValueError, match=f"got {name} = .*, expected an integer, at least 1"):
            hashing.fit(x, y)


def test_without_scikit_learn() -> None:
    code = "import sys; sys.modules['sklearn.base'] = None; import faiss_dmih.baselines"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: baselines need scikit-learn 1.6 or later (" in done.stderr
    assert "pip install 'faiss-dmih[bench]'" in done.stderr


def test_importing_the_package_does_not_import_them() -> None:
    code = "import sys, faiss_dmih; print({'sklearn', 'faiss_dmih.baselines'} & {*sys.modules})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"

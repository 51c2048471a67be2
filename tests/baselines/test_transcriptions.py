"""Each method against its equations, written down as loops, on tiny data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from sklearn.decomposition import PCA

from faiss_dmih import codes
from faiss_dmih.baselines import ITQ, ITQCCA, KSH, LFH, LSH, SDH, SH, ksh, lfh, sdh
from faiss_dmih.baselines.lsh import SEEDS
from faiss_dmih.data import binarizer
from faiss_dmih.similarity import Similarity


def data(n: int = 24, dim: int = 5, classes: int = 3, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % classes)
    return rng.normal(size=(n, dim)) + 2 * np.eye(classes, dim)[y], y


def bits_of(hashing: Any, x: Any) -> Any:
    return codes.unpack(hashing.transform(x))


def sign(value: float) -> float:
    return 1.0 if value > 0 else -1.0


def nearly_equal(got: Any, expected: Any) -> None:
    """Bits, of which rounding may turn some: fewer than one in fifty."""
    assert got.shape == expected.shape
    assert (got != expected).mean() < 0.02
    assert 0.05 < expected.mean() < 0.95


# LSH


@pytest.mark.parametrize("bits", [8, 32])
def test_lsh(bits: int) -> None:
    x, _ = data(41, 12)
    hashing = LSH(bits, random_state=1).fit(x)
    w = hashing.components_
    assert w.shape == (bits, 12)
    product = w @ w.T if bits <= 12 else w.T @ w
    np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-5)
    got = bits_of(hashing, x)
    for b in range(bits):
        values = [sum(w[b, k] * x[i, k] for k in range(12)) for i in range(41)]
        middle = sorted(values)[20]
        for i in range(41):
            if abs(values[i] - middle) > 1e-4:
                assert got[i, b] == (values[i] > middle)
    seed = int(np.random.RandomState(1).randint(SEEDS))
    same = binarizer("lsh", x.astype(np.float32), bits, seed).encode(x.astype(np.float32))
    nearly_equal(got, codes.unpack(same))


# ITQ and ITQ-CCA


def error(values: Any) -> float:
    """The quantisation error of numbers whose signs are bits."""
    return sum((sign(value) - value) ** 2 for value in values.ravel())


def rotate(v: Any, r: Any) -> Any:
    """V R for the R that alternating between B = sign(V R) and the best R for B leads to."""
    for _ in range(50):
        b = np.array([[sign(value) for value in row] for row in v @ r])
        # The best rotation turns V^T B = W S U^T into what is symmetric: W U^T.
        left, _, right = np.linalg.svd(v.T @ b)
        r = left @ right
    return v @ r


def random_rotation(bits: int, seed: int) -> Any:
    return np.linalg.qr(np.random.RandomState(seed).standard_normal((bits, bits)))[0]


def test_itq() -> None:
    x, _ = data(200, 12)
    hashing = ITQ(8, random_state=1).fit(x)
    v = x - x.mean(0)
    _, axes = np.linalg.eigh(v.T @ v)
    axes = axes[:, ::-1][:, :8]
    pca = PCA(8, svd_solver="covariance_eigh").fit(x).components_
    axes *= np.sign((axes * pca.T).sum(0))  # axes have no direction
    expected = rotate(v @ axes, random_rotation(8, 1))
    np.testing.assert_allclose(hashing.decision_function(x), expected, atol=1e-6)
    assert error(expected) < 0.9 * error(v @ axes)


def test_itq_with_more_bits_than_dimensions() -> None:
    """All distances are kept, and the error is far less than that of a random tight frame."""
    x, _ = data(60, 5)
    found = ITQ(16, random_state=1).fit(x).decision_function(x)
    v = x - x.mean(0)
    np.testing.assert_allclose(found @ found.T, v @ v.T, atol=1e-9)
    random = np.pad(v, ((0, 0), (0, 11))) @ random_rotation(16, 0)
    assert error(found) < 0.95 * error(random)


@pytest.mark.parametrize("regularisation", [1e-4, 1.0])
def test_itq_cca(regularisation: float) -> None:
    x, y = data(200, 12)
    hashing = ITQCCA(8, regularisation=regularisation, random_state=1).fit(x, y)
    # The equation, by one that needs no symmetry: M w = lambda^2 w.
    centred = x - x.mean(0)
    labels = np.array([[float(y[i] == c) for c in range(3)] for i in range(200)])
    labels -= labels.mean(0)
    xx, yy, xy = centred.T @ centred, labels.T @ labels, centred.T @ labels
    xx += regularisation * np.mean(np.diag(xx)) * np.eye(12)
    yy += regularisation * np.mean(np.diag(yy)) * np.eye(3)
    squares, directions = np.linalg.eig(np.linalg.inv(xx) @ xy @ np.linalg.inv(yy) @ xy.T)
    order = np.argsort(-squares.real)[:2]
    squares, directions = squares.real[order], directions.real[:, order]
    np.testing.assert_allclose(hashing.correlations_, np.sqrt(squares), rtol=1e-6)
    v = np.zeros((200, 8))
    for k in range(2):
        w = directions[:, k] / math.sqrt(directions[:, k] @ xx @ directions[:, k])
        v[:, k] = centred @ w * math.sqrt(squares[k])
    # All but the first two columns of V are zero; found is V, rotated, and no step betters it.
    found = hashing.decision_function(x)
    np.testing.assert_allclose(found @ found.T, v @ v.T, atol=1e-9)
    left, _, right = np.linalg.svd(found.T @ np.where(found > 0, 1, -1))
    assert error(found @ left @ right) > 0.999 * error(found)
    assert error(found) < 0.999 * error(v @ random_rotation(8, 1))


# SH


@pytest.mark.parametrize("bits", [8, 24])
def test_sh(bits: int) -> None:
    x, _ = data(50, 6)
    hashing = SH(bits).fit(x)
    _, axes = np.linalg.eigh(np.cov(x.T))
    v = (x - x.mean(0)) @ axes[:, ::-1]
    v *= np.sign((axes[:, ::-1] * hashing.components_.T).sum(0))  # axes have no direction
    modes = []
    for axis in range(6):
        low, high = min(v[:, axis]), max(v[:, axis])
        for k in range(1, bits + 1):
            modes.append((k * math.pi / (high - low), axis, low))
    modes.sort()
    for b, (frequency, axis, low) in enumerate(modes[:bits]):
        assert hashing.axes_[b] == axis
        for i in range(50):
            expected = math.sin(math.pi / 2 + frequency * (v[i, axis] - low))
            assert hashing.decision_function(x[i : i + 1])[0, b] == pytest.approx(
                expected, abs=1e-8
            )


# KSH


def kernel(x: Any, at: Any, width: float) -> Any:
    out = np.empty((len(x), len(at)))
    for i in range(len(x)):
        for j in range(len(at)):
            out[i, j] = math.exp(-sum((x[i] - at[j]) ** 2) / (2 * width))
    return out


def mean_square(x: Any, at: Any) -> float:
    return float(np.mean([[sum((a - b) ** 2) for b in at] for a in x]))


def phi(z: float) -> float:
    return 2 / (1 + math.exp(-z)) - 1


def descended(k: Any, residue: Any, a: Any) -> Any:
    """Nesterov's method on -phi(K a)^T R phi(K a)."""

    def cost(at: Any) -> float:
        b = np.array([phi(z) for z in k @ at])
        return -float(b @ residue @ b)

    before, t, steepness, last = a, 1.0, 1.0, cost(a)
    for _ in range(500):
        t_next = (1 + math.sqrt(1 + 4 * t * t)) / 2
        v = a + (t - 1) / t_next * (a - before)
        b = np.array([phi(z) for z in k @ v])
        gradient = np.zeros(len(a))
        for i in range(len(k)):
            gradient -= k[i] * (residue[i] @ b) * (1 - b[i] ** 2)
        while cost(v - gradient / steepness) > cost(v) - gradient @ gradient / (2 * steepness):
            steepness *= 2
        before, a, t = a, v - gradient / steepness, t_next
        if abs(cost(a) - last) <= 0.01 * len(k):
            break
        last = cost(a)
    return a


def test_ksh() -> None:
    x, y = data(30)
    hashing = KSH(8, n_anchors=6, n_labelled=20, random_state=2).fit(x, y)
    rng = np.random.RandomState(2)
    at = x[rng.permutation(30)[:6]]
    chosen = rng.permutation(30)[:20]
    width = mean_square(x, at)
    whole = kernel(x, at, width)
    k = whole[chosen] - whole.mean(0)
    gram = k.T @ k
    gram_ridge = gram + 1e-8 * np.mean(np.diag(gram)) * np.eye(6)
    residue = np.array([[8.0 if y[i] == y[j] else -8.0 for j in chosen] for i in chosen])
    expected = np.empty((30, 8))
    for bit in range(8):
        values, vectors = scipy.linalg.eig(np.linalg.inv(gram_ridge) @ k.T @ residue @ k)
        start = vectors[:, np.argmax(values.real)].real
        start *= math.sqrt(20) / np.linalg.norm(k @ start)
        if start @ hashing.components_[bit] < 0:  # an eigenvector has no direction
            start = -start
        candidates = [start, descended(k, residue, start)]
        signs = [np.array([sign(z) for z in k @ a]) for a in candidates]
        best = max((1, 0), key=lambda c: (signs[c] @ residue @ signs[c], -c))
        expected[:, bit] = (whole - whole.mean(0)) @ candidates[best]
        residue = residue - np.outer(signs[best], signs[best])
    nearly_equal(bits_of(hashing, x), expected > 0)


def test_ksh_gradient() -> None:
    _, y = data()
    residue = Similarity(y).__matmul__
    z = np.random.default_rng(0).normal(size=24)
    _, gradient = ksh.smoothed(residue, z)
    for j in range(24):
        step = 1e-6 * np.eye(24)[j]
        above, below = (ksh.smoothed(residue, z + s)[0] for s in (step, -step))
        assert gradient[j] == pytest.approx((above - below) / 2e-6, rel=1e-5, abs=1e-6)


# SDH


def test_sdh() -> None:
    x, y = data(30)
    hashing = SDH(8, n_anchors=7, random_state=2, fit_weight=0.01).fit(x, y)
    rng = np.random.RandomState(2)
    at = x[rng.permutation(30)[:7]]
    k = kernel(x, at, mean_square(x, at))
    labels = np.array([[float(y[i] == c) for c in range(3)] for i in range(30)])
    b = np.array([[sign(z) for z in row] for row in rng.standard_normal((30, 8))])
    gram = k.T @ k
    gram += 1e-8 * np.mean(np.diag(gram)) * np.eye(7)
    p = np.linalg.inv(gram) @ k.T @ b
    for _ in range(5):
        w = np.linalg.inv(b.T @ b + np.eye(8)) @ b.T @ labels
        q = labels @ w.T + 0.01 * k @ p
        for _ in range(10):
            before = b.copy()
            for bit in range(8):
                for i in range(30):
                    others = [j for j in range(8) if j != bit]
                    rest = sum(b[i, j] * (w[j] @ w[bit]) for j in others)
                    b[i, bit] = sign(q[i, bit] - rest)
            if (b == before).all():
                break
        p = np.linalg.inv(gram) @ k.T @ b
    np.testing.assert_allclose(hashing.components_, p.T, rtol=1e-4, atol=1e-6)
    nearly_equal(bits_of(hashing, x), k @ p > 0)


def test_sdh_lowers_its_objective() -> None:
    rng = np.random.default_rng(0)
    labels = np.eye(3)[rng.integers(0, 3, 40)]
    fitted, w = rng.normal(size=(40, 8)), rng.normal(size=(8, 3))
    b = np.where(rng.normal(size=(40, 8)) > 0, 1.0, -1.0)

    def objective(at: Any) -> float:
        return float(((labels - at @ w) ** 2).sum() + 0.3 * ((at - fitted) ** 2).sum())

    found = sdh.discrete_descent(b, w, labels @ w.T + 0.3 * fitted)
    assert objective(found) < objective(b)
    for i in range(40):
        for bit in range(8):
            other = found.copy()
            other[i, bit] *= -1
            assert objective(other) >= objective(found) - 1e-9


# LFH


def sigma(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def moved(u: Any, y: Any, chosen: Any, beta: float) -> Any:
    u = u.copy()
    n, bits = u.shape
    others = [i for i in range(n) if i not in chosen]
    for i in [*others, *chosen]:
        known = [j for j in (range(n) if i in chosen else chosen) if j != i]
        gradient, bound = -u[i] / beta, -np.eye(bits) / beta
        for j in known:
            gradient = gradient + ((y[i] == y[j]) - sigma(u[i] @ u[j] / 2)) * u[j]
            bound = bound - np.outer(u[j], u[j]) / 8
        u[i] = u[i] - gradient @ np.linalg.inv(bound)
    return u


def test_lfh() -> None:
    x, y = data(20)
    hashing = LFH(8, n_chosen=6, max_iter=4, random_state=2).fit(x, y)
    rng = np.random.RandomState(2)
    u = rng.standard_normal((20, 8))
    centred = x - x.mean(0)
    scores = centred @ np.linalg.svd(centred)[2].T
    found = PCA(5, svd_solver="covariance_eigh").fit_transform(x)
    scores *= np.sign((scores * found).sum(0))  # axes have no direction
    u[:, :5] = scores / scores.std()
    for _ in range(4):
        u = moved(u, y, rng.permutation(20)[:6].tolist(), 30.0)
    w = np.linalg.inv(centred.T @ centred + np.eye(5)) @ centred.T @ (u - u.mean(0))
    expected = centred @ w + u.mean(0)
    np.testing.assert_allclose(hashing.decision_function(x), expected, rtol=1e-6, atol=1e-8)


def test_lfh_never_lowers_the_posterior() -> None:
    """What is moved is moved along a lower bound: with all similarities known, L grows."""
    _, y = data(20)
    u = np.random.default_rng(0).normal(size=(20, 8))
    similar, beta = Similarity(y), 30.0

    def posterior() -> float:
        total = -float((u * u).sum()) / (2 * beta)
        for i in range(20):
            for j in range(i):
                theta = u[i] @ u[j] / 2
                total += (y[i] == y[j]) * theta - math.log1p(math.exp(theta))
        return total

    last = posterior()
    for _ in range(10):
        lfh.ascend(u, similar, np.random.default_rng(1).permutation(20), beta)
        now = posterior()
        assert now > last - 1e-9
        last = now

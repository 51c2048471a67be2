"""CNNH, DeSH, DNNH, DRSCH, OrthoHash: objectives and nets as published, trained as others are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import quick, vectors

from faiss_dmih import codes, reference
from faiss_dmih.encoders import (
    CNNH,
    DNNH,
    DRSCH,
    DeepHash,
    DeSH,
    Objective,
    OrthoHash,
    load_encoder,
    nets,
    training,
)
from faiss_dmih.encoders.cnnh import factorise
from faiss_dmih.similarity import Similarity

ALL = [CNNH, DeSH, DNNH, DRSCH, OrthoHash]


def make(kind: Any, **changes: Any) -> Any:
    return kind(16, n=240, backbone="features", training=quick(**changes))


def separation(packed: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance of codes of different classes, less that of the same class, in bits."""
    distances = reference.hamming(packed, packed)
    same = labels[:, None] == labels[None, :]
    return float(distances[~same].mean() - distances[same].mean())


@pytest.mark.parametrize("kind", ALL)
def test_classes_are_told_apart(kind: Any) -> None:
    x, labels = vectors()
    trained = make(kind, epochs=8).fit(x, labels)
    new, new_labels = vectors(seed=1)
    assert separation(trained.encode(new), new_labels) > 2
    assert sum(trained.cuts) == 16


@pytest.mark.parametrize("kind", ALL)
def test_there_and_back(kind: Any, tmp_path: Path) -> None:
    x, labels = vectors()
    trained = make(kind, epochs=1, seed=3).fit(x, labels)
    trained.save(tmp_path / "encoder")
    loaded = load_encoder(tmp_path / "encoder")
    assert type(loaded) is kind
    assert loaded.objective == trained.objective
    np.testing.assert_array_equal(loaded.relaxed(x), trained.relaxed(x))
    np.testing.assert_array_equal(codes.unpack(loaded.encode(x)), trained.relaxed(x) > 0)
    np.testing.assert_array_equal(loaded.transform(x), loaded.encode(x))
    again = make(kind, epochs=1, seed=3).fit(x, labels)
    np.testing.assert_array_equal(again.relaxed(x), trained.relaxed(x))
    other = make(kind, epochs=1, seed=4).fit(x, labels)
    assert not np.array_equal(other.relaxed(x), trained.relaxed(x))


@pytest.mark.parametrize("kind", ALL)
def test_a_killed_training_goes_on_to_the_same_end(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, labels = vectors()
    whole = make(kind, epochs=3).fit(x, labels).relaxed(x)
    step = training._Task.training_step

    def killed(self: Any, batch: Any, number: int) -> Any:
        if self.current_epoch == 2:
            raise SystemExit("killed")
        return step(self, batch, number)

    monkeypatch.setattr(training._Task, "training_step", killed)
    with pytest.raises(SystemExit):
        make(kind, epochs=3, folder=tmp_path / "t").fit(x, labels)
    monkeypatch.setattr(training._Task, "training_step", step)
    resumed = make(kind, epochs=3, folder=tmp_path / "t").fit(x, labels).relaxed(x)
    np.testing.assert_array_equal(resumed, whole)


@pytest.mark.parametrize("kind", ALL)
def test_several_labels_and_validation(kind: Any) -> None:
    x, labels = vectors()
    several = np.eye(4, dtype=np.bool_)[labels]
    several[::3] |= np.eye(4, dtype=np.bool_)[(labels[::3] + 1) % 4]
    held_out = x[:40], several[:40]
    trained = make(kind, patience=1, epochs=2).fit(x, several, validation=held_out)
    assert trained.encode(x).shape == (240, 2)


def test_encoders_that_were_saved_before_there_were_these(tmp_path: Path) -> None:
    """Without what only these need."""
    x, labels = vectors()
    trained = make(DeepHash, epochs=1).fit(x, labels)
    trained.save(tmp_path)
    said = json.loads((tmp_path / "encoder.json").read_text())
    del said["architecture"]["head"]
    for name in ("quantisation_weight", "adjacency_weight"):
        del said["arguments"]["objective"][name]
    (tmp_path / "encoder.json").write_text(json.dumps(said))
    np.testing.assert_array_equal(load_encoder(tmp_path).encode(x), trained.encode(x))


# DeSH


@given(seed=st.integers(0, 1000), n=st.integers(2, 7), bits=st.sampled_from([8, 16]))
def test_desh_is_the_published_loss(seed: int, n: int, bits: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    b = torch.randn(n, bits, generator=generator, dtype=torch.float64) * (1 + seed % 3) / 2
    labels = torch.randint(0, 3, (n,), generator=generator)
    pairs = []
    for i in range(n):
        for j in range(i):
            square = sum((float(p) - float(q)) ** 2 for p, q in zip(b[i], b[j], strict=True))
            same = labels[i] == labels[j]
            value = square / 2 if same else max(2 * bits - square, 0) / 2
            for row in (b[i], b[j]):
                value += 0.01 * sum(abs(abs(float(p)) - 1) for p in row)
            pairs.append(value)
    terms = DeSH(bits).objective.terms(b, labels, (bits,), None)
    assert 2 * float(terms["total"]) == pytest.approx(sum(pairs) / len(pairs), rel=1e-9)


def test_desh_has_no_activation() -> None:
    x, labels = vectors()
    trained = make(DeSH, epochs=1).fit(x, labels)
    head = trained.parts[0].head
    expected = head.hash(head.stages(trained.trunk(torch.from_numpy(x))))
    np.testing.assert_allclose(trained.relaxed(x), expected.detach().numpy(), rtol=1e-5, atol=1e-6)


# DNNH


def test_divide_and_encode() -> None:
    """Each bit sees its own slice: loops over slices, the sigmoid and the threshold."""
    torch.manual_seed(0)
    layer = nets.Divided(6, 3)
    x = torch.randn(5, 6)
    units = torch.relu(layer.features(x)).detach()
    weight, bias = layer.weight.detach(), layer.bias.detach()
    got = layer(x)
    for i in range(5):
        for bit in range(3):
            own = units[i, bit * 50 : (bit + 1) * 50]
            z = sum(float(w) * float(u) for w, u in zip(weight[bit], own, strict=True))
            assert float(got[i, bit].detach()) == pytest.approx(z + float(bias[bit]), abs=1e-5)
    for z in torch.linspace(-4, 4, 81):
        s = 1 / (1 + float(torch.exp(-z)))
        g = 0.0 if s < 0.5 - nets.EPSILON else 1.0 if s > 0.5 + nets.EPSILON else s
        assert float(nets.thresholded(z)) == pytest.approx(2 * g - 1, abs=1e-6)
    gradient = torch.autograd.grad(got[:, 1].sum(), layer.features.weight)[0].view(3, 50, 6)
    assert gradient[1].abs().sum() > 0
    assert not gradient[[0, 2]].any()


def test_dnnh_with_the_published_margin() -> None:
    """max(0, 1 - ||F - F-||^2 + ||F - F+||^2), F in [0, 1]."""
    h = 2 * torch.rand(9, 8, generator=torch.Generator().manual_seed(0)).double() - 1
    labels = torch.arange(9) % 3
    f = (1 + h) / 2
    values = []
    for a in range(9):
        for p in range(9):
            for n in range(9):
                if a != p and labels[a] == labels[p] and labels[a] != labels[n]:
                    near, far = ((f[a] - f[p]) ** 2).sum(), ((f[a] - f[n]) ** 2).sum()
                    values.append(max(0.0, float(1 - far + near)))
    terms = Objective(margin=1).terms(h, labels, (8,), None)
    assert float(terms["total"]) == pytest.approx(np.mean(values), rel=1e-9)


# DRSCH


def test_drsch_learns_weights_that_search_ignores() -> None:
    x, labels = vectors()
    trained = make(DRSCH, epochs=4).fit(x, labels)
    head = trained.parts[0].head
    weights = trained.bit_weights
    assert weights.shape == (16,)
    assert np.ptp(weights) > 0
    h = torch.tanh(head.hash(head.stages(trained.trunk(torch.from_numpy(x))))).detach().numpy()
    np.testing.assert_allclose(trained.relaxed(x), h * np.sqrt(weights), rtol=1e-4, atol=1e-6)
    g = h[:5]
    weighted = [[sum(weights * (p - q) ** 2) / 4 for q in g] for p in g]
    found = trained.relaxed(x[:5])
    plain = [[sum((p - q) ** 2) / 4 for q in found] for p in found]
    np.testing.assert_allclose(plain, weighted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(codes.unpack(trained.encode(x)), h > 0)


# CNNH


def test_factorise() -> None:
    """Against loops over all entries, with L written down."""
    labels = np.arange(9) % 3
    bits = 8
    got = factorise(Similarity(labels), bits, np.random.default_rng(0), sweeps=2)
    rng = np.random.default_rng(0)
    h = rng.uniform(-1, 1, (9, bits))
    s = np.where(labels[:, None] == labels[None, :], 1.0, -1.0)
    for _ in range(2):
        for i in rng.permutation(9):
            for j in range(bits):
                product = h @ h.T - bits * s
                slope = 4 * product[i] @ h[:, j]
                bend = 4 * (h[:, j] @ h[:, j] + h[i, j] ** 2 + product[i, i])
                step = -slope / bend if bend > 0 else -2 * np.sign(slope)
                h[i, j] = np.clip(h[i, j] + step, -1, 1)
    np.testing.assert_allclose(got, h, atol=1e-9)


def test_factors_say_the_similarities() -> None:
    labels = np.arange(60) % 4
    h = factorise(Similarity(labels), 16, np.random.default_rng(0))
    bits = np.where(h > 0, 1, -1)
    product = bits @ bits.T / 16
    same = labels[:, None] == labels[None, :]
    assert product[same].mean() > 0.9
    assert product[~same].mean() < 0


def test_codes_of_validation_items() -> None:
    x, labels = vectors()
    new = np.full(40, 9)
    with pytest.raises(ValueError, match="labels that no training item has"):
        make(CNNH).fit(x, labels, validation=(x[:40], new))
    with pytest.raises(ValueError, match="expected as many classes as in training"):
        make(CNNH).fit(x, labels, validation=(x[:40], np.eye(4, dtype=bool)[labels[:40]]))
    with pytest.raises(ValueError, match="labels are missing"):
        make(CNNH).fit(x, None)
    with pytest.raises(ValueError, match="the loss 'codes' is CNNH's"):
        Objective("codes").terms(torch.zeros(3, 8), torch.zeros(3), (8,), None)


# OrthoHash


def test_orthohash_refuses_classes_that_it_has_no_code_for() -> None:
    x, labels = vectors()
    with pytest.raises(ValueError, match="labels: got 0 to 4, expected 0 to 3"):
        make(OrthoHash).fit(x, labels, validation=(x[:40], np.arange(40) % 5))
    with pytest.raises(ValueError, match="labels: got 3 classes, expected 4"):
        make(OrthoHash).fit(x, labels, validation=(x[:40], np.eye(3, dtype=bool)[labels[:40] % 3]))
    with pytest.raises(ValueError, match="labels: got -1 to 2, expected 0 to 2"):
        make(OrthoHash).fit(x, labels - 1)

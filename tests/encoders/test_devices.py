"""Nets run where they are trained, with the same results, and stay where they were."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from elsewhere import THERE, Distant, Elsewhere
from small import quick, vectors

from faiss_dmih.encoders import DMIH, DeepHash, EnsembleDSH, load_encoder
from faiss_dmih.encoders import encoder as encoder_module
from faiss_dmih.encoders.devices import device_of


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which accelerators were asked for: all but the processor are `THERE`."""
    names: list[str] = []

    def chosen(accelerator: str) -> torch.device:
        names.append(accelerator)
        return torch.device("cpu") if accelerator == "cpu" else THERE

    monkeypatch.setattr(encoder_module, "device_of", chosen)
    return names


def images(n: int = 20) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 30, 30, 3), dtype=np.uint8)


def trained(kind: Any, x: Any, **options: Any) -> Any:
    """On the processor, then free to choose."""
    made = kind(32, training=quick(epochs=1, accelerator="cpu"), **options)
    made.fit(x, np.arange(len(x)) % 4)
    made.training = quick()
    return made


X = vectors(60)[0]
CASES = {
    "vectors": lambda: (trained(DMIH, X, n=60, backbone="features"), X),
    "frozen": lambda: (trained(DeepHash, X, n=60, backbone="features", freeze="fc"), X),
    "images": lambda: (trained(DeepHash, images(), n=60, freeze="conv1"), images()),
    "ensemble": lambda: (trained(EnsembleDSH, X, backbone="features"), X),
}


def test_which_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    for name in ("auto", "gpu", "cuda"):
        assert device_of(name) == torch.device("cuda", 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device_of("mps") == torch.device("mps")
    assert device_of("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == torch.device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("auto", "gpu", "cuda", "mps", "tpu"):
        assert device_of(name) == torch.device("cpu")


@pytest.mark.parametrize("case", CASES)
def test_codes_are_made_there(case: str, asked: list[str]) -> None:
    """All layers, batch by batch; to the bit what the processor makes."""
    encoder, x = CASES[case]()
    expected = encoder.relaxed(x, device="cpu", batch_size=7)
    asked.clear()
    with Elsewhere() as device:
        found = encoder.relaxed(x, batch_size=7)
        codes = encoder.encode(x, batch_size=7)
        one = encoder.encode(x, device=THERE, parts=[0])
    assert asked == ["auto", "auto"]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(codes, encoder.encode(x, device="cpu"))
    np.testing.assert_array_equal(one, codes[:, : one.shape[1]])
    assert device.there
    assert not device.here
    batches = [shape for shape in device.sent if shape in {(7, *x.shape[1:])}]
    assert len(batches) == 2 * (len(x) // 7)
    assert not any(isinstance(w, Distant) for p in encoder.parts for w in p.head.parameters())


def test_on_the_processor_nothing_is_copied() -> None:
    encoder, _ = CASES["vectors"]()
    here = torch.device("cpu")
    assert encoder.trunk.on(here) is encoder.trunk
    assert encoder.parts[0].head.on(here) is encoder.parts[0].head


def test_training_decides(asked: list[str]) -> None:
    encoder, x = CASES["vectors"]()
    encoder.training = quick(accelerator="cpu")
    with Elsewhere() as device:
        encoder.encode(x)
    assert asked[-1] == "cpu"
    assert not device.there
    assert not device.sent


def test_weights_are_sent_once_and_again_when_they_change(asked: list[str]) -> None:
    encoder, x = CASES["ensemble"]()
    weight = tuple(encoder.parts[1].head.hash.weight.shape)
    with Elsewhere() as device:
        for _ in range(3):
            encoder.encode(x)
        assert device.sent.count(weight) == 2  # of each sub-model
        with torch.no_grad():
            encoder.parts[1].head.hash.weight.neg_()
        changed = encoder.relaxed(x)
        assert device.sent.count(weight) == 3
    np.testing.assert_array_equal(changed, encoder.relaxed(x, device="cpu"))


def test_copies_there_are_nobody_elses(asked: list[str], tmp_path: Path) -> None:
    """Files, other processes and copies get what is in main memory."""
    encoder, x = CASES["images"]()
    expected = encoder.encode(x, device="cpu")
    with Elsewhere():
        encoder.encode(x)
    for other in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
        np.testing.assert_array_equal(other.encode(x, device="cpu"), expected)
    assert pickle.loads(pickle.dumps(encoder)).fingerprints == encoder.fingerprints
    encoder.save(tmp_path / "encoder")
    loaded = load_encoder(tmp_path / "encoder")
    with Elsewhere() as device:
        np.testing.assert_array_equal(loaded.encode(x), expected)
    assert device.there


@pytest.mark.parametrize("case", CASES)
def test_what_heads_are_trained_on_is_made_there(case: str, asked: list[str]) -> None:
    """Frozen layers once, kept in main memory; what is no layer with every batch."""
    encoder, x = CASES[case]()
    expected = encoder.trunk(encoder.items(x).batch(range(len(x))))
    asked.clear()
    with Elsewhere() as device:
        inputs = encoder.inputs(encoder.items(x), batch_size=7)
        batch = inputs.batch([3, 5])
        is_frozen = len(encoder.trunk.stages) > 0
        assert isinstance(batch, Distant) is not is_frozen
        assert bool(device.there) is is_frozen
        assert not device.here
        near = batch.cpu()
    assert asked == ["auto"]
    torch.testing.assert_close(near, expected[[3, 5]], rtol=1e-5, atol=1e-6)

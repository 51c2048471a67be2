"""What is fitted encodes, is saved, is loaded; and nets are made of the stages they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from small import quick, vectors

from faiss_dmih import codes
from faiss_dmih.data import DataUnavailable
from faiss_dmih.encoders import BACKBONES, DMIH, DeepHash, EnsembleDSH, load_encoder
from faiss_dmih.encoders.backbones import make_backbone
from faiss_dmih.encoders.nets import trunk_and_head


def images(n: int = 40, size: int = 28) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size), dtype=np.uint8)


@pytest.fixture(scope="module")
def fitted() -> Any:
    x, labels = vectors()
    return DMIH(24, n=240, backbone="features", training=quick()).fit(x, labels)


def test_codes_are_the_signs(fitted: Any) -> None:
    x, _ = vectors(seed=2)
    relaxed = fitted.relaxed(x)
    assert relaxed.dtype == np.float32
    assert np.abs(relaxed).max() <= 1
    packed = fitted.encode(x)
    assert (packed.dtype, packed.shape) == (np.uint8, (240, 3))
    np.testing.assert_array_equal(codes.unpack(packed), relaxed > 0)
    for batch_size in (1, 7, 1000):
        np.testing.assert_array_equal(fitted.encode(x, batch_size=batch_size), packed)
    np.testing.assert_array_equal(fitted.encode(torch.from_numpy(x)), packed)
    assert fitted.encode(x[:0]).shape == (0, 3)
    assert sum(fitted.cuts) == fitted.bits == 24


def test_there_and_back(fitted: Any, tmp_path: Path) -> None:
    x, _ = vectors(seed=2)
    fitted.save(tmp_path / "encoder")
    fitted.save(tmp_path / "encoder")  # over what is there
    loaded = load_encoder(tmp_path / "encoder")
    assert type(loaded) is DMIH
    assert (loaded.cuts, loaded.fingerprints) == (fitted.cuts, fitted.fingerprints)
    np.testing.assert_array_equal(loaded.encode(x), fitted.encode(x))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder"]


HEAD = {"bits": 24, "cuts": [24], "halved": False, "fingerprint": ""}


def test_what_cannot_be_loaded(fitted: Any, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    with pytest.raises(FileNotFoundError, match=r"no encoder\.json"):
        load_encoder(folder)
    for change, message in (
        ({"version": 2}, "version 2, expected 'faiss_dmih encoder' version 1"),
        ({"kind": "Other"}, "holds a 'Other', expected one of"),
        ({"heads": [{**HEAD, "bits": 16}]}, "another architecture"),
        ({"heads": [HEAD]}, "is not what"),
    ):
        fitted.save(folder)
        said = json.loads((folder / "encoder.json").read_text())
        (folder / "encoder.json").write_text(json.dumps({**said, **change}))
        with pytest.raises(ValueError, match=message):
            load_encoder(folder)


def test_a_save_that_fails_leaves_what_was_there(
    fitted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted.save(tmp_path / "encoder")
    monkeypatch.setattr(type(fitted), "_description", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fitted.save(tmp_path / "encoder")
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]
    load_encoder(tmp_path / "encoder")


def test_vectors_are_standardised(tmp_path: Path) -> None:
    """By what they were trained on, whatever their scale; a constant dimension is only shifted."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5)) * [1, 10, 100, 1e-3, 0] + [0, 5, -1000, 1, 7]
    trained = DeepHash(16, backbone="features", training=quick()).fit(x, np.arange(300) % 3)
    seen = trained.trunk(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(seen.std(0), [1, 1, 1, 1, 0], atol=1e-3)
    trained.save(tmp_path / "encoder")
    again = load_encoder(tmp_path / "encoder")
    np.testing.assert_array_equal(again.relaxed(x), trained.relaxed(x))


def test_what_is_refused(fitted: Any) -> None:
    with pytest.raises(ValueError, match="was not fitted"):
        DeepHash(16).encode(images())
    with pytest.raises(ValueError, match="got vectors of 5 dimensions, expected 12"):
        fitted.encode(np.zeros((2, 5), np.float32))
    with pytest.raises(ValueError, match="multiple of 8"):
        DMIH(20)
    with pytest.raises(ValueError, match="cuts must sum to d = 16"):
        DMIH(16, cuts=[8, 9])
    with pytest.raises(ValueError, match="unknown backbone 'vgg'"):
        make_backbone("vgg")
    with pytest.raises(ValueError, match="no stage 'conv9' to cut after"):
        trunk_and_head(make_backbone("small"), 8, "conv9")
    with pytest.raises(TypeError, match=r"got images of torch\.float32, expected uint8"):
        DMIH(16, training=quick()).fit(images().astype(np.float32), np.zeros(40, np.int64))


def test_images_of_all_kinds() -> None:
    """Grey and coloured arrays, PIL images of any size; the same image has the same code."""
    x = images(40, 32)
    encoder = DeepHash(16, freeze="conv1", training=quick(epochs=1))
    encoder.fit(x, np.arange(40) % 2)
    expected = encoder.encode(x)
    coloured = np.repeat(x[..., None], 3, axis=3)
    np.testing.assert_array_equal(encoder.encode(coloured), expected)
    pictures = [Image.fromarray(image) for image in x]
    np.testing.assert_array_equal(encoder.encode(pictures), expected)
    pictures[3] = pictures[3].resize((50, 20))
    assert encoder.encode(pictures).shape == (40, 2)
    with pytest.raises(TypeError, match="image 1: got images of"):
        encoder.encode([x[0], np.zeros((4, 4))])


@pytest.mark.parametrize("name", ["small", "squeezenet1_0", "features"])
def test_the_trunk_does_not_change(name: str) -> None:
    dim = 6 if name == "features" else None
    stages = list(make_backbone(name, input_dim=dim).stages)
    x = vectors(dim=6)[0] if name == "features" else images(24, 32)
    labels = np.arange(len(x)) % 2
    freeze = None if name == "features" else stages[1]
    encoder = DeepHash(8, backbone=name, freeze=freeze, training=quick(epochs=1))
    torch.manual_seed(0)
    encoder.fit(x, labels)
    assert len(encoder.trunk.stages) == (0 if freeze is None else 2)
    assert all(not p.requires_grad for p in encoder.trunk.parameters())
    other = DeepHash(8, backbone=name, freeze=freeze, training=quick(epochs=2)).fit(x, labels)
    for one, same in zip(
        encoder.trunk.state_dict().values(), other.trunk.state_dict().values(), strict=True
    ):
        assert torch.equal(one, same)
    heads = [e.parts[0].head.state_dict().values() for e in (encoder, other)]
    assert any(not torch.equal(a, b) for a, b in zip(*heads, strict=True))


@pytest.mark.parametrize(("name", "freeze"), [("features", "fc"), ("small", "fc")])
def test_frozen_stages_drop_nothing_and_learn_no_statistics(name: str, freeze: str) -> None:
    """Dropout and batch normalisation are as in use: codes depend on the item alone."""
    x = vectors()[0] if name == "features" else images(40, 32)
    encoder = DeepHash(16, backbone=name, freeze=freeze, training=quick(epochs=1))
    encoder.fit(x, np.arange(len(x)) % 4)
    encoder.trunk.train()
    assert not any(module.training for module in encoder.trunk.modules())
    before = {name: value.clone() for name, value in encoder.trunk.state_dict().items()}
    relaxed = encoder.relaxed(x)
    np.testing.assert_array_equal(encoder.relaxed(x), relaxed)
    np.testing.assert_allclose(encoder.relaxed(x, batch_size=3), relaxed, rtol=1e-4, atol=1e-5)
    for name_, value in encoder.trunk.state_dict().items():
        assert torch.equal(value, before[name_])


@pytest.mark.parametrize("halved", [False, True])
@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_have_the_width_they_say(name: str, halved: bool) -> None:
    backbone = make_backbone(name, input_dim=5, halved=halved)
    trunk, head = trunk_and_head(backbone, 8, next(iter(backbone.stages)))
    size = 64 if name != "alexnet" else 224
    x = torch.zeros(2, 5) if name == "features" else torch.zeros(2, size, size, 3).byte()
    if trunk.preprocessing is not None:
        trunk.preprocessing = type(trunk.preprocessing)(size, (0, 0, 0), (1, 1, 1))
    if name == "small":
        trunk.preprocessing = backbone.preprocessing
    assert head.hash.in_features == backbone.width
    assert head.eval()(trunk(x)).shape == (2, 8)


def test_weights_from_a_file(tmp_path: Path) -> None:
    """By torchvision's keys; those of another net, or half of one, are refused by name."""
    from faiss_dmih.encoders._torchvision import import_torchvision

    net = import_torchvision().models.squeezenet1_0()
    state = {k: v.numpy().astype(np.float16) for k, v in net.state_dict().items()}
    np.savez(tmp_path / "weights.npz", **state)
    backbone = make_backbone("squeezenet1_0", pretrained=tmp_path / "weights.npz")
    assert backbone.preprocessing is not None
    assert backbone.preprocessing.bgr
    expected = state["features.0.weight"].astype(np.float32)
    np.testing.assert_array_equal(backbone.stages["conv1"][0].weight.detach().numpy(), expected)
    with pytest.raises(ValueError, match=r"does not hold weights of AlexNet: missing \['features"):
        make_backbone("alexnet", pretrained=tmp_path / "weights.npz")
    with pytest.raises(FileNotFoundError, match="no file of weights"):
        make_backbone("alexnet", pretrained=tmp_path / "nothing.npz")
    (tmp_path / "weights.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="nothing is unpickled"):
        make_backbone("alexnet", pretrained=tmp_path / "weights.pth")


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(DataUnavailable, match=r"AlexNet: not in .* failed \(no route to host\)"):
        make_backbone("alexnet", pretrained=True)


def test_an_ensemble_is_loaded_with_its_architectures(tmp_path: Path) -> None:
    x, labels = vectors()
    ensemble = EnsembleDSH(40, backbone="features", vary=True, training=quick(epochs=1))
    ensemble.fit(x, labels).save(tmp_path / "ensemble")
    assert ensemble.cuts == (16, 16, 8)
    assert [part.halved for part in ensemble.parts] == [False, True, False]
    loaded = load_encoder(tmp_path / "ensemble")
    np.testing.assert_array_equal(loaded.encode(x), ensemble.encode(x))
    np.testing.assert_array_equal(loaded.encode(x, parts=[1]), ensemble.encode(x)[:, 2:4])

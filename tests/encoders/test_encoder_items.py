"""Batches of images of any size, and those that are decoded in threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from faiss_dmih.data import InputError, image_folder
from faiss_dmih.encoders import items as items_module
from faiss_dmih.encoders.items import Items

SIZES = [(50, 70), (70, 50), (32, 32), (50, 70), (90, 41), (32, 32), (70, 50)] * 3


def pictures() -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def one_by_one(images: list[Any], size: int) -> torch.Tensor:
    """Each image by itself, as torch resizes it."""
    out = []
    for image in images:
        pixels = torch.from_numpy(image)[None].permute(0, 3, 1, 2).float()
        resized = interpolate(pixels, (size, size), mode="bilinear", antialias=True)
        out.append(resized.round().clamp(0, 255).byte().permute(0, 2, 3, 1)[0])
    return torch.stack(out)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, image in enumerate(pictures()):
        Image.fromarray(image).save(tmp_path / f"{i:02}.png")
    return tmp_path


@pytest.mark.parametrize("size", [32, 24])
@pytest.mark.parametrize("threads", [True, False])
def test_as_resized_one_by_one(folder: Path, size: int, threads: bool) -> None:
    images = image_folder(folder) if threads else pictures()
    items = Items(images, size)
    expected = one_by_one(pictures(), size)
    batches = list(items.batches(4))
    assert [i for span, _ in batches for i in span] == list(range(len(SIZES)))
    assert torch.equal(torch.cat([batch for _, batch in batches]), expected)
    assert torch.equal(items.batch([5, 0, 5]), expected[[5, 0, 5]])
    assert torch.equal(items.in_memory().batch(range(len(SIZES))), expected)
    assert list(Items(images[:0], size).batches(4)) == []


def test_what_does_not_fit_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    items = Items(pictures(), 8)
    monkeypatch.setattr(items_module, "IN_MEMORY_BYTES", len(SIZES) * 8 * 8 * 3)
    assert items.in_memory() is not items
    monkeypatch.setattr(items_module, "IN_MEMORY_BYTES", len(SIZES) * 8 * 8 * 3 - 1)
    assert items.in_memory() is items


def test_a_damaged_file_is_named(folder: Path) -> None:
    (folder / "17.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"image 17: .*17\.png: not a readable .*--skip-corrupt"):
        list(Items(image_folder(folder), 32).batches(4))

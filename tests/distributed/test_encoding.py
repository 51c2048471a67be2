"""Encoders by Ray do what they do in one process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "encoders"))
from small import quick, vectors

from faiss_dmih.data import Images
from faiss_dmih.distributed import ShardedIndexDMIH, encode
from faiss_dmih.encoders import DMIH, EnsembleDSH

pytestmark = [pytest.mark.usefixtures("ray"), pytest.mark.filterwarnings("ignore")]


def test_an_ensemble_in_tasks() -> None:
    x, labels = vectors()
    options: Any = {"backbone": "features", "training": quick(epochs=2)}
    one = EnsembleDSH(32, **options).fit(x, labels)
    tasks = EnsembleDSH(32, **options, workers="ray").fit(x, labels)
    assert one.fingerprints == tasks.fingerprints
    np.testing.assert_array_equal(one.relaxed(x), tasks.relaxed(x))
    with pytest.raises(ValueError, match="got workers = 'spark', expected at least 1, or 'ray'"):
        EnsembleDSH(48, workers="spark")  # type: ignore[arg-type]


def test_images_to_an_index(ray: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (90, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(90) % 3
    encoder = DMIH(16, backbone="small", training=quick(epochs=1)).fit(pixels, labels)
    images = Images.from_arrays(pixels, labels=labels, classes=["a", "b", "c"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = encoder.encode(images, batch_size=32)
    torch.set_num_threads(threads)
    codes = encode(encoder, images, batch_size=32).materialize()
    got = np.concatenate([batch["code"] for batch in codes.iter_batches()])
    np.testing.assert_array_equal(got, expected)
    ShardedIndexDMIH.build(codes, 2, tmp_path)
    with ShardedIndexDMIH.open(tmp_path, num_cpus=0.1) as index:
        np.testing.assert_array_equal(index.reconstruct_batch(np.arange(90)), expected)
    assert encode(encoder, pixels[:0]).count() == 0

    data = pytest.importorskip("ray.data")
    rows = [{"image": image, "name": i} for i, image in enumerate(pixels[:40])]
    batches = encode(encoder, data.from_items(rows), batch_size=16, workers=1).take_all()
    assert [row["name"] for row in batches] == [*range(40)]
    assert sorted(batches[0]) == ["code", "name"]
    np.testing.assert_array_equal([row["code"] for row in batches], expected[:40])
    with pytest.raises(ValueError, match="expected 'picture' among them"):
        encode(encoder, data.from_items(rows), column="picture")

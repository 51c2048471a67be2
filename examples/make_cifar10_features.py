"""Make the data set `cifar10-features`: 512 pooled SqueezeNet 1.0 activations per CIFAR-10 image.

    FAISS_DMIH_DATA=~/data python examples/make_cifar10_features.py --out ~/data

Needs torch and torchvision (pip install torch torchvision). CIFAR-10 is found or downloaded by
faiss_dmih.data; the ImageNet weights come from torchvision, or from an .npz file with torchvision's
keys (--weights), which is taken to hold the original Caffe weights: input in BGR, 0 to 255, minus
the channel means. Images are enlarged to 96 x 96 pixels. A feature is the mean over all positions
of an output of the last fire module; it is stored in one byte, as a multiple of scale[feature].
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from faiss_dmih.data import DataUnavailable, load_dataset
from faiss_dmih.data.files import atomic_write

NAME = "cifar10_squeezenet_gap512_u8.npz"
SIZE = 96
BATCH = 250
CAFFE_MEAN_BGR = (104.0, 117.0, 123.0)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def network(weights: Path | None) -> tuple[Any, Callable[[Any], Any]]:
    """The convolutions of SqueezeNet, and what brings RGB images in 0..1 to their input."""
    import torch
    from torchvision.models import SqueezeNet1_0_Weights, squeezenet1_0

    if weights is None:
        model = squeezenet1_0(weights=SqueezeNet1_0_Weights.IMAGENET1K_V1)
        mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
        std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
        return model.features.eval(), lambda x: (x - mean) / std
    model = squeezenet1_0(weights=None)
    with np.load(weights, allow_pickle=False) as z:
        state = {key: torch.from_numpy(z[key].astype(np.float32)) for key in z.files}
    model.load_state_dict(state)
    mean = torch.tensor(CAFFE_MEAN_BGR).view(1, 3, 1, 1)
    return model.features.eval(), lambda x: 255 * x.flip(1) - mean


def features(images: np.ndarray, weights: Path | None) -> Iterator[np.ndarray]:
    """Batches of (n, 512) float32 for images (n, 32, 32, 3) uint8."""
    import torch

    convolutions, prepare = network(weights)
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2) / 255
            large = torch.nn.functional.interpolate(
                batch, size=(SIZE, SIZE), mode="bilinear", align_corners=False
            )
            yield convolutions(prepare(large)).mean(dim=(2, 3)).numpy()
            print(f"\r{start + len(batch):,} of {len(images):,} images", end="", file=sys.stderr)
    print(file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {NAME}")
    parser.add_argument("--weights", type=Path, help=".npz of Caffe weights, torchvision's keys")
    parser.add_argument("--dataset", default="cifar10", choices=("cifar10", "cifar10-jpeg"))
    parser.add_argument("--limit", type=int, help="that many training and test images only")
    options = parser.parse_args()
    try:
        cifar = load_dataset(options.dataset)
    except DataUnavailable as error:
        sys.exit(f"error: {error}")
    train, test = cifar.train[: options.limit], cifar.test[: options.limit]
    labels = [cifar.train_labels[: options.limit], cifar.test_labels[: options.limit]]
    x = np.concatenate(list(features(np.concatenate([train, test]), options.weights)))
    scale = np.maximum(x.max(axis=0), 1e-6).astype(np.float32) / 255
    q = np.rint(x / scale).clip(0, 255).astype(np.uint8)
    with atomic_write(options.out / NAME) as file:
        np.savez_compressed(
            file,
            q=q,
            scale=scale,
            y=np.concatenate(labels).astype(np.uint8),
            n_train=np.int64(len(train)),
        )
    print(f"wrote {options.out / NAME}")


if __name__ == "__main__":
    main()

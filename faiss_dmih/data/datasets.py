"""Named data sets of images or feature vectors, with their usual split.

==================  ===========================================================================
fashion-mnist       70,000 grey images of 28 x 28; `fashion_mnist.npz` (x_train, y_train, x_test,
                    y_test) or the four official IDX files; downloaded when missing
cifar10             60,000 colour images of 32 x 32; the official Python archive; downloaded
cifar10-jpeg        the same images after lossy JPEG compression: `cifar10_jpeg60k.npz`
cifar10-features    512 pooled SqueezeNet activations of each CIFAR-10 image:
                    `cifar10_squeezenet_gap512_u8.npz`, made by examples/make_cifar10_features.py
digits              1,797 grey images of 8 x 8 that come with scikit-learn; no file needed
==================  ===========================================================================
"""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faiss_dmih.data.errors import DataUnavailable, InputError, require
from faiss_dmih.data.files import Progress, Remote, fetch, find, no_progress, search_dirs
from faiss_dmih.data.sources import PackedJpegs

Labels = npt.NDArray[np.int64]

DIGITS_TEST = 297
"""scikit-learn's digits have no split; the last 297 of a fixed shuffle are the test images."""


@dataclass(frozen=True)
class Dataset:
    """Items and labels. Images are uint8 (n, height, width[, 3]), features float32 (n, dim)."""

    name: str
    train: npt.NDArray[Any]
    train_labels: Labels
    test: npt.NDArray[Any]
    test_labels: Labels
    source: str

    @property
    def is_images(self) -> bool:
        return self.train.ndim > 2


FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FASHION_FILES = {
    part: Remote(f"fashion-mnist-{name}", FASHION_URL + name, md5)
    for part, name, md5 in (
        ("train", "train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        ("train_labels", "train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        ("test", "t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        ("test_labels", "t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    )
}
CIFAR10_FILE = Remote(
    "cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "c58f30108f718f92721af3b95e74349a",
)
LOCAL_FILES: dict[str, tuple[tuple[str, ...], ...]] = {
    "fashion-mnist": (
        ("fashion_mnist.npz",),
        tuple(remote.name for remote in FASHION_FILES.values()),
    ),
    "cifar10": ((CIFAR10_FILE.name,),),
    "cifar10-jpeg": (("cifar10_jpeg60k.npz",),),
    "cifar10-features": (("cifar10_squeezenet_gap512_u8.npz",),),
    "digits": ((),),
}
"""For each data set the alternatives of files that hold it."""


def located(name: str) -> list[Path] | None:
    """The files that hold the data set called `name` (none for digits), or None: not here."""
    for alternative in LOCAL_FILES[name]:
        paths = [find(file) for file in alternative]
        if None not in paths:
            return [path for path in paths if path is not None]
    return None


def load_dataset(name: str, progress: Progress = no_progress) -> Dataset:
    """The data set called `name`. Raises `InputError` (unknown) or `DataUnavailable`."""
    if name not in DATASETS:
        raise InputError(f"unknown data set {name!r}; known are {', '.join(DATASETS)}")
    return DATASETS[name](progress)


def _digits(progress: Progress) -> Dataset:
    bunch = require("sklearn.datasets", "the data set 'digits'").load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    images = bunch.images.astype(np.uint8)[order]
    labels = bunch.target.astype(np.int64)[order]
    return Dataset(
        "digits",
        images[:-DIGITS_TEST],
        labels[:-DIGITS_TEST],
        images[-DIGITS_TEST:],
        labels[-DIGITS_TEST:],
        "sklearn.datasets.load_digits",
    )


def _fashion_mnist(progress: Progress) -> Dataset:
    path = find("fashion_mnist.npz")
    if path is not None:
        z = read_npz(path, ("x_train", "y_train", "x_test", "y_test"))
        parts = [z["x_train"], z["y_train"], z["x_test"], z["y_test"]]
        source = str(path)
    else:
        paths = {part: fetch(remote, progress) for part, remote in FASHION_FILES.items()}
        parts = [_read_idx(paths[p]) for p in ("train", "train_labels", "test", "test_labels")]
        source = FASHION_URL
    x_train, y_train, x_test, y_test = parts
    return Dataset(
        "fashion-mnist",
        x_train,
        y_train.astype(np.int64),
        x_test,
        y_test.astype(np.int64),
        source,
    )


def _read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """A gzipped IDX file of unsigned bytes: two zeros, type 8, number of axes, then the axes."""
    with gzip.open(path) as file:
        raw = file.read()
    axes = raw[3]
    shape = np.frombuffer(raw, ">u4", count=axes, offset=4).astype(int)
    if raw[:3] != b"\0\0\x08" or len(raw) != 4 + 4 * axes + int(np.prod(shape)):
        raise DataUnavailable(f"{path} is not an IDX file of bytes; delete it to download it anew")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads the archive's dictionaries of arrays and refuses to import anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            from numpy.core.multiarray import _reconstruct

            return _reconstruct
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"unexpected {module}.{name}")


def _cifar10(progress: Progress) -> Dataset:
    path = fetch(CIFAR10_FILE, progress)
    images: list[npt.NDArray[np.uint8]] = []
    labels: list[Labels] = []
    members = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    with tarfile.open(path) as archive:
        for i, member in enumerate(members):
            progress("reading cifar10", i, len(members))
            file = archive.extractfile(f"cifar-10-batches-py/{member}")
            assert file is not None  # a regular file, as the checksum of the archive says
            batch = _ArrayUnpickler(io.BytesIO(file.read()), encoding="bytes").load()
            images.append(batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
            labels.append(np.asarray(batch[b"labels"], dtype=np.int64))
    return Dataset(
        "cifar10",
        np.concatenate(images[:-1]),
        np.concatenate(labels[:-1]),
        np.ascontiguousarray(images[-1]),
        labels[-1],
        str(path),
    )


def cifar10_jpegs() -> tuple[PackedJpegs, Labels, int]:
    """Images, labels and the number of training images, which come first; nothing is decoded."""
    path = local_only("cifar10-jpeg", "cifar10_jpeg60k.npz", "there is no official download")
    z = read_npz(path, ("header", "payload", "offsets", "y", "n_train"))
    # All images share one JPEG header, and the end marker is left out of each.
    jpegs = PackedJpegs(
        (z["header"].tobytes(),),
        np.zeros(len(z["y"]), np.uint8),
        z["payload"],
        z["offsets"],
        b"\xff\xd9",
        str(path),
    )
    return jpegs, z["y"].astype(np.int64), int(z["n_train"])


def _cifar10_jpeg(progress: Progress) -> Dataset:
    jpegs, labels, n_train = cifar10_jpegs()
    total = len(jpegs)
    images = np.empty((total, 32, 32, 3), np.uint8)
    for i in range(total):
        if i % 1000 == 0:
            progress("decoding cifar10-jpeg", i, total)
        images[i] = jpegs.item(i)
    return _split("cifar10-jpeg", images, labels, n_train, jpegs.title)


def _cifar10_features(progress: Progress) -> Dataset:
    path = local_only(
        "cifar10-features",
        "cifar10_squeezenet_gap512_u8.npz",
        "make it with examples/make_cifar10_features.py",
    )
    z = read_npz(path, ("q", "scale", "y", "n_train"))
    features = z["q"] * z["scale"].astype(np.float32)
    return _split("cifar10-features", features, z["y"], int(z["n_train"]), str(path))


def _split(
    name: str, items: npt.NDArray[Any], y: npt.NDArray[Any], n_train: int, source: str
) -> Dataset:
    labels = y.astype(np.int64)
    return Dataset(
        name, items[:n_train], labels[:n_train], items[n_train:], labels[n_train:], source
    )


def local_only(dataset: str, file: str, remedy: str) -> Path:
    """Where `file` is, or `DataUnavailable` saying what to do: `remedy`."""
    path = find(file)
    if path is None:
        looked = " and ".join(str(folder) for folder in search_dirs())
        raise DataUnavailable(
            f"{dataset}: {file} is not in {looked}; {remedy}, and set FAISS_DMIH_DATA to its folder"
        )
    return path


def read_npz(path: Path, keys: tuple[str, ...]) -> dict[str, npt.NDArray[Any]]:
    """The arrays called `keys` of an .npz file. Raises `DataUnavailable`."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as z:
            return {key: z[key] for key in keys}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataUnavailable(
            f"{path}: not an .npz file with the arrays {', '.join(keys)} ({error})"
        ) from error


DATASETS: dict[str, Callable[[Progress], Dataset]] = {
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar10,
    "cifar10-jpeg": _cifar10_jpeg,
    "cifar10-features": _cifar10_features,
    "digits": _digits,
}

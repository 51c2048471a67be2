"""Named sets of labelled images and features, to train encoders on and to measure them.

All that is published of a set is in one `Items`, training images first; `official_test` marks the
others. What is drawn for queries and for training is `splits.paper_split`'s business.

Files are looked for in `$FAISS_DMIH_DATA`, then in the cache, and downloaded where there is an
official address. **Not run on the real files**, only on small ones of the same format: `cifar10`,
`svhn`, `tiny-imagenet` (200 classes), `imagenet-100`, `nus-wide`, `awa2`.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faiss_dmih.data.datasets import cifar10_jpegs, load_dataset, local_only, read_npz
from faiss_dmih.data.errors import DataUnavailable, InputError, require
from faiss_dmih.data.files import Progress, Remote, fetch, no_progress, search_dirs
from faiss_dmih.data.folder import image_folder
from faiss_dmih.data.imagenet import imagenet_100
from faiss_dmih.data.items import Features, Images
from faiss_dmih.data.sources import ImageArray, ImageFiles, PackedJpegs, Pixels, Vectors

CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
DIGITS = tuple("0123456789")

SVHN_FILES = tuple(
    Remote(f"{part}_32x32.mat", f"http://ufldl.stanford.edu/housenumbers/{part}_32x32.mat", md5)
    for part, md5 in (
        ("train", "e26dedcc434d2e4c54c9b2d4a06d8373"),
        ("extra", "a93ce644f1a588dc4d68dda5feec44a7"),
        ("test", "eb5a983be6a315427106f1b164d9cef3"),
    )
)
TINY_IMAGENET_FILE = Remote(
    "tiny-imagenet-200.zip",
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "90528d7ca1a48142e341f4ef8d21d0de",
)
TINY_100_FILE = "tinyimagenet100_jpeg.npz"
NUS_WIDE_FOLDER = "nus-wide"
NUS_WIDE_CLASSES = 21
NUS_WIDE_IMAGES = 269_648
"""In the published list. Their publishers give no checksums of NUS-WIDE and AwA2: what can be
compared are these counts."""
AWA2_FOLDER = "Animals_with_Attributes2"
AWA2_CLASSES = 50
AWA2_IMAGES = 37_322


@dataclass(frozen=True)
class Named:
    """One named set: how it is loaded, and one line on what it is."""

    load: Callable[[Progress], Images | Features]
    about: str


def labelled(
    name: str, *, skip_corrupt: bool = False, progress: Progress = no_progress
) -> Images | Features:
    """The set called `name` in `LABELLED`, all of it, with labels.

    `skip_corrupt` leaves out images that cannot be decoded (`Images.without_corrupt`).
    Raises `InputError` (unknown name, bad files) or `DataUnavailable` (not here, not to be had).
    """
    if name not in LABELLED:
        raise InputError(f"unknown image set {name!r}; known are {', '.join(LABELLED)}")
    items = LABELLED[name].load(progress)
    if skip_corrupt and isinstance(items, Images):
        return items.without_corrupt(progress)
    return items


def _of_arrays(name: str, classes: tuple[str, ...], progress: Progress) -> Images | Features:
    """What `datasets` has under this name, training and test items together."""
    d = load_dataset(name, progress)
    items = np.concatenate([d.train, d.test])
    labels = np.concatenate([d.train_labels, d.test_labels])
    test = np.arange(len(items)) >= len(d.train)
    if not d.is_images:
        return Features.of(name, Vectors(items, name), labels, classes, test)
    return Images.of(name, ImageArray(items, name), labels, classes, test)


def _digits(progress: Progress) -> Images:
    d = load_dataset("digits", progress)
    pixels = np.concatenate([d.train, d.test])
    # Published with levels 0 to 16.
    pixels = (pixels * (255 / 16)).round().astype(np.uint8)
    labels = np.concatenate([d.train_labels, d.test_labels])
    test = np.arange(len(pixels)) >= len(d.train)
    return Images.of("digits", ImageArray(pixels, "digits"), labels, DIGITS, test)


def _cifar10_jpeg(progress: Progress) -> Images:
    jpegs, labels, n_train = cifar10_jpegs()
    test = np.arange(len(labels)) >= n_train
    return Images.of("cifar10-jpeg", jpegs, labels, CIFAR10_CLASSES, test)


def _svhn(progress: Progress) -> Images:
    """The three .mat files: X uint8 (32, 32, 3, n), y (n, 1) from 1 to 10, where 10 means 0."""
    io_module = require("scipy.io", "the data set 'svhn'")
    parts: list[npt.NDArray[Any]] = []
    pixels: list[Pixels] = []
    for remote in SVHN_FILES:
        path = fetch(remote, progress)
        progress(f"reading {remote.name}", 0, 0)
        loaded = io_module.loadmat(str(path))
        # One image after the other in memory, as they are asked for one by one.
        pixels.append(np.ascontiguousarray(loaded["X"].transpose(3, 0, 1, 2)))
        parts.append(loaded["y"].ravel().astype(np.int64) % 10)
    labels = np.concatenate(parts)
    test = np.arange(len(labels)) >= len(labels) - len(parts[-1])
    return Images.of("svhn", ImageArray(np.concatenate(pixels), "svhn"), labels, DIGITS, test)


def _tiny_imagenet_100(progress: Progress) -> Images:
    path = local_only("tiny-imagenet-100", TINY_100_FILE, "there is no official download")
    keys = ("header0", "header1", "hid", "payload", "offsets", "y", "n_train", "name")
    z = read_npz(path, keys)
    headers = (z["header0"].tobytes(), z["header1"].tobytes())
    jpegs = PackedJpegs(headers, z["hid"], z["payload"], z["offsets"], b"\xff\xd9", str(path))
    test = np.arange(len(z["y"])) >= int(z["n_train"])
    return Images.of("tiny-imagenet-100", jpegs, z["y"], z["name"].tolist(), test)


def _tiny_imagenet(progress: Progress) -> Images:
    """The official archive, read into memory as it is compressed (240 MB), never unpacked.

    `train/<wnid>/images/*.JPEG`; `val/images/*.JPEG` with `val/val_annotations.txt`, lines of
    file, wnid, box; `words.txt`, lines of wnid, names. Its test images have no labels.
    """
    path = fetch(TINY_IMAGENET_FILE, progress)
    with zipfile.ZipFile(path) as archive:
        top = "tiny-imagenet-200/"
        wnids = archive.read(top + "wnids.txt").decode().split()
        number = {wnid: i for i, wnid in enumerate(sorted(wnids))}
        words = dict(_tab_separated(archive, top + "words.txt"))
        held_out = {
            f"{top}val/images/{row[0]}": row[1]
            for row in _tab_separated(archive, top + "val/val_annotations.txt")
        }
        train = sorted(
            name
            for name in archive.namelist()
            if name.startswith(top + "train/") and name.endswith(".JPEG")
        )
        files = [*train, *sorted(held_out)]
        bodies = []
        for i, name in enumerate(files):
            if i % 1000 == 0:
                progress("reading tiny-imagenet", i, len(files))
            bodies.append(archive.read(name))
    jpegs = PackedJpegs(
        (b"",),
        np.zeros(len(files), np.uint8),
        np.frombuffer(b"".join(bodies), np.uint8),
        np.cumsum([0, *map(len, bodies)]),
        b"",
        str(path),
    )
    labels = [number[held_out.get(name) or name.split("/")[2]] for name in files]
    classes = [words.get(wnid, wnid).split(",")[0] for wnid in number]
    test = np.arange(len(files)) >= len(train)
    return Images.of("tiny-imagenet", jpegs, labels, classes, test)


def _tab_separated(archive: zipfile.ZipFile, name: str) -> list[list[str]]:
    with io.TextIOWrapper(archive.open(name), encoding="utf-8") as lines:
        return [line.rstrip("\n").split("\t")[:2] for line in lines if line.strip()]


def _nus_wide(progress: Progress) -> Images:
    """The images with at least one of the 21 most frequent of 81 concepts, multi-label.

    In the folder `nus-wide`, at any depth: `ImageList/Imagelist.txt`, one path a line with
    backslashes; `AllLabels/Labels_<concept>.txt`, a 0 or 1 a line; the images by these paths, in
    `nus-wide` itself, `Flickr` or `images`. The official concepts and lists are downloads of
    NUS's LMS group; the images have to be asked for there.
    """
    folder = _found_folder(
        NUS_WIDE_FOLDER,
        "nus-wide: get the image list, the ground truth and the images from the LMS group of the "
        "National University of Singapore",
    )
    lists = [path for path in folder.rglob("*.txt") if path.name.lower() == "imagelist.txt"]
    concepts = sorted(folder.rglob("AllLabels/Labels_*.txt"))
    names = {path.name for path in concepts}
    if len(lists) != 1 or not NUS_WIDE_CLASSES <= len(names) == len(concepts):
        raise DataUnavailable(
            f"{folder}: got {len(lists)} files Imagelist.txt and {len(concepts)} files "
            f"AllLabels/Labels_*.txt of {len(names)} concepts, expected 1 and one for each of 81; "
            "unpack ImageList.zip and Groundtruth.zip there, each once"
        )
    lines = lists[0].read_text().splitlines()
    paths = [line.strip().replace("\\", "/") for line in lines if line.strip()]
    if len(paths) != NUS_WIDE_IMAGES:
        raise DataUnavailable(
            f"{lists[0]}: got {len(paths):,} images, expected the {NUS_WIDE_IMAGES:,} that are "
            "published; get ImageList.zip anew"
        )
    has = np.empty((len(paths), len(concepts)), np.bool_)
    for c, path in enumerate(concepts):
        progress("reading nus-wide", c, len(concepts))
        column = np.array(path.read_bytes().split())
        if len(column) != len(paths) or not np.isin(column, (b"0", b"1")).all():
            raise InputError(
                f"{path}: got {len(column):,} values, expected a 0 or 1 for each of the "
                f"{len(paths):,} images in {lists[0]}"
            )
        has[:, c] = column == b"1"
    # Ties go to the first in the alphabet.
    frequent = np.sort(np.argsort(-has.sum(axis=0), kind="stable")[:NUS_WIDE_CLASSES])
    kept = np.flatnonzero(has[:, frequent].any(axis=1))
    files = tuple(paths[i] for i in kept)
    roots = [folder, folder / "Flickr", folder / "images"]
    root = next((root for root in roots if any((root / file).is_file() for file in files)), None)
    if root is None:
        looked = ", ".join(map(str, roots))
        raise DataUnavailable(f"nus-wide: none of its images, as {files[0]}, is in {looked}")
    classes = [concepts[c].stem.removeprefix("Labels_") for c in frequent]
    return Images.of("nus-wide", ImageFiles(root, files), has[np.ix_(kept, frequent)], classes)


def _awa2(progress: Progress) -> Images:
    """Animals with Attributes 2, unpacked: `JPEGImages/<class>/*.jpg`, 37,322 of 50 classes.

    The papers' first version is no longer published, for its images' licences.
    """
    folder = _found_folder(
        AWA2_FOLDER,
        "awa2: unpack https://cvml.ista.ac.at/AwA2/AwA2-data.zip (13 GB)",
    )
    images = image_folder(folder / "JPEGImages", labels=True)
    if (len(images), len(images.classes)) != (AWA2_IMAGES, AWA2_CLASSES):
        raise DataUnavailable(
            f"{folder}: got {len(images):,} images of {len(images.classes)} classes, expected "
            f"{AWA2_IMAGES:,} of {AWA2_CLASSES}; unpack the archive anew"
        )
    return Images.of("awa2", images.source, images.labels, images.classes)


def _found_folder(name: str, remedy: str) -> Path:
    for parent in search_dirs():
        if (parent / name).is_dir():
            return parent / name
    looked = " nor ".join(str(folder) for folder in search_dirs())
    raise DataUnavailable(
        f"{remedy}; the folder {name} is not in {looked}: set FAISS_DMIH_DATA to its parent"
    )


def _arrays(name: str, classes: tuple[str, ...]) -> Callable[[Progress], Images | Features]:
    return lambda progress: _of_arrays(name, classes, progress)


LABELLED: dict[str, Named] = {
    "cifar10": Named(
        _arrays("cifar10", CIFAR10_CLASSES), "60,000 images of 32 x 32, 10 classes; downloaded"
    ),
    "cifar10-jpeg": Named(
        _cifar10_jpeg, "the same after JPEG compression: slightly lossy, so mAP is not comparable"
    ),
    "cifar10-features": Named(
        _arrays("cifar10-features", CIFAR10_CLASSES),
        "512 pooled SqueezeNet activations of each CIFAR-10 image",
    ),
    "fashion-mnist": Named(
        _arrays("fashion-mnist", FASHION_CLASSES),
        "70,000 grey images of 28 x 28, 10 classes; downloaded",
    ),
    "svhn": Named(
        _svhn,
        "630,420 house numbers of 32 x 32, extra included; downloaded (1.5 GB; 4 GB of memory)",
    ),
    "tiny-imagenet": Named(
        _tiny_imagenet, "110,000 images of 64 x 64, 200 classes; downloaded (240 MB)"
    ),
    "tiny-imagenet-100": Named(_tiny_imagenet_100, "55,000 of them, 100 classes"),
    "imagenet-100": Named(imagenet_100, "about 134,000 images of 100 classes of ILSVRC 2012"),
    "nus-wide": Named(_nus_wide, "photos with any of the 21 most frequent of 81 concepts"),
    "awa2": Named(_awa2, "37,322 photos of 50 animals"),
    "digits": Named(_digits, "1,797 grey images of 8 x 8, 10 classes; comes with scikit-learn"),
}

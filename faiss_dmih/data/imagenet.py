"""ImageNet-100: 100 classes of ILSVRC 2012, read out of the official archives, never unpacked.

`ILSVRC2012_img_train.tar` holds a tar file of JPEGs for each class, `ILSVRC2012_img_val.tar` JPEGs,
`ILSVRC2012_devkit_t12.tar.gz` the classes (`meta.mat`) and which validation image is of which.
They have to be asked for at image-net.org. The training images are 138 GB: that the archives are
whole is checked once, and remembered until they change.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faiss_dmih.data.errors import DataUnavailable, require
from faiss_dmih.data.files import Progress, Remote, search_dirs, verified
from faiss_dmih.data.items import Images
from faiss_dmih.data.sources import Pixels, decode

_FROM = "https://image-net.org/challenges/LSVRC/2012/"
ARCHIVES = tuple(
    Remote(name, _FROM, md5)
    for name, md5 in (
        ("ILSVRC2012_img_train.tar", "1d675b47d978889d74fa0da5fadfb00e"),
        ("ILSVRC2012_img_val.tar", "29b22e2961454d5413ddabcf34fc5622"),
        ("ILSVRC2012_devkit_t12.tar.gz", "fa75699e90414af021442c21a62c3abf"),
    )
)
CLASSES = 100
NAME = "imagenet-100"
_DEVKIT = "ILSVRC2012_devkit_t12/data/"


@dataclass(frozen=True)
class TarMembers:
    """JPEGs within uncompressed archives: image i is `sizes[i]` bytes at `offsets[i]` of
    `archives[which[i]]`."""

    archives: tuple[Path, ...]
    which: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.sizes)

    def item(self, i: int) -> Pixels:
        return decode(io.BytesIO(self.content(i)))

    def content(self, i: int) -> bytes:
        with self.archives[int(self.which[i])].open("rb") as file:
            file.seek(int(self.offsets[i]))
            return file.read(int(self.sizes[i]))

    def name(self, i: int) -> str:
        return f"{self.archives[int(self.which[i])]}:{self.names[i]}"


def imagenet_100(progress: Progress) -> Images:
    """100 classes, drawn once and for all; training images first, validation images are test."""
    train, val, devkit = (_found(remote, progress) for remote in ARCHIVES)
    wnids, words, of_validation = _classes(devkit)
    order = np.random.default_rng(0).permutation(len(wnids))[:CLASSES]
    chosen = sorted(wnids[i] for i in order)
    number = {wnid: i for i, wnid in enumerate(chosen)}
    rows: list[tuple[int, int, int, str, int]] = []
    with tarfile.open(train) as outer:
        for member in outer:
            wnid = member.name.removesuffix(".tar")
            if wnid not in number:
                continue
            progress(f"reading {NAME}", number[wnid], len(chosen))
            inside = outer.extractfile(member)
            with tarfile.open(fileobj=inside) as inner:
                images = sorted(inner.getmembers(), key=lambda m: m.name)
            rows += [
                (0, member.offset_data + m.offset_data, m.size, m.name, number[wnid])
                for m in images
                if m.isfile()
            ]
    n_train = len(rows)
    with tarfile.open(val) as outer:
        files = sorted((m for m in outer.getmembers() if m.isfile()), key=lambda m: m.name)
    if len(files) != len(of_validation):
        raise DataUnavailable(
            f"{val} holds {len(files):,} images, expected {len(of_validation):,}, as many as the "
            "ground truth has lines"
        )
    rows += [
        (1, m.offset_data, m.size, m.name, number[wnid])
        for m, wnid in zip(files, of_validation, strict=True)
        if wnid in number
    ]
    which, offsets, sizes = (np.array([row[i] for row in rows], np.int64) for i in range(3))
    names, labels = tuple(row[3] for row in rows), [row[4] for row in rows]
    source = TarMembers((train, val), which, offsets, sizes, names)
    test = np.arange(len(rows)) >= n_train
    return Images.of(NAME, source, labels, [words[wnid] for wnid in chosen], test)


def _classes(devkit: Path) -> tuple[list[str], dict[str, str], list[str]]:
    """Ids of all classes in order, their first names, and the class of each validation image."""
    io_module = require("scipy.io", f"the data set {NAME!r}")
    with tarfile.open(devkit) as archive:

        def member(name: str) -> bytes:
            file = archive.extractfile(_DEVKIT + name)
            assert file is not None  # what is no file would have raised
            return file.read()

        meta: Any = io_module.loadmat(io.BytesIO(member("meta.mat")), squeeze_me=True)["synsets"]
        truth = [int(line) for line in member(_TRUTH).split()]
    leaves = meta[meta["num_children"] == 0]
    of_id = {int(i): str(w) for i, w in zip(leaves["ILSVRC2012_ID"], leaves["WNID"], strict=True)}
    words = {
        str(w): str(name).split(",")[0]
        for w, name in zip(leaves["WNID"], leaves["words"], strict=True)
    }
    return sorted(of_id.values()), words, [of_id[i] for i in truth]


_TRUTH = "ILSVRC2012_validation_ground_truth.txt"


def _found(remote: Remote, progress: Progress) -> Path:
    path = verified(remote, progress)
    if path is None:
        looked = " nor ".join(str(folder) for folder in search_dirs())
        raise DataUnavailable(
            f"{NAME}: {remote.name} is not in {looked}: get it from {remote.url} (registered users "
            "only) and set FAISS_DMIH_DATA to its folder"
        )
    return path

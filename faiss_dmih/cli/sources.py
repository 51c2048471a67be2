"""What the commands take images and vectors from; all of them the same.

SOURCE is one of

- the name of a set of `faiss_dmih.data.LABELLED`, such as cifar10;
- a folder of images: each subfolder is a class, without subfolders there are no labels;
- an .npz file with `images` uint8 (n, height, width[, 3]) or `features` float (n, dim); if known
  `labels`, int (n,) or 0/1 (n, classes), and `classes`, their names. With `labels` alone it
  describes codes that are there already;
- an .npy file with such images or features.

A name stands for the set even where a folder is called so: write ./cifar10 for the folder.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faiss_dmih.data import LABELLED, Features, Images, InputError, Items, image_folder, labelled
from faiss_dmih.data.files import Progress, no_progress, search_dirs
from faiss_dmih.data.items import check_labels, class_names
from faiss_dmih.data.sources import ImageFiles

KEYS = ("images", "features", "labels", "classes")
_PLACE = re.compile(r"(.+)\[(\d+)\]")


@dataclass(frozen=True)
class Source:
    """A set as a command uses it.

    spec   finds it again from any working directory: its name, or an absolute path
    whole  all that is there; splits and indexes number its items
    items  of these, what can be read; `items.rows` are their numbers
    """

    spec: str
    whole: Items
    items: Items

    @property
    def known_labels(self) -> npt.NDArray[Any]:
        """Of `items`. Raises `InputError` if there are none."""
        if self.items.labels is None:
            raise InputError(
                f"{self.spec} has no labels: put the images into one folder for each class, or "
                "pass --labels FILE.npy, one for each item"
            )
        return self.items.labels

    @property
    def identity(self) -> str:
        """Another one where items, in number or by name, or labels are others."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{type(self.whole).__name__} {len(self.whole)}".encode())
        if isinstance(self.whole.source, ImageFiles):  # wherever the folder lies
            digest.update("\0".join(self.whole.source.paths).encode())
        if self.whole.labels is not None:
            digest.update(np.ascontiguousarray(self.whole.labels).tobytes())
        return digest.hexdigest()

    def name(self, row: int) -> str:
        """Of an item of `whole`: its path, or its place as `place` reads it."""
        if isinstance(self.whole.source, ImageFiles):
            return self.whole.item_name(row)
        return f"{self.spec}[{row}]"

    def label(self, row: int) -> list[str]:
        """Names of the classes of an item of `whole`; none if they are not known."""
        labels = self.whole.labels
        if labels is None:
            return []
        which = [labels[row]] if labels.ndim == 1 else np.flatnonzero(labels[row])
        return [self.whole.classes[int(c)] for c in which]


@dataclass(frozen=True)
class _Unseen:
    """n items of which nothing but labels is known."""

    n: int
    title: str

    def __len__(self) -> int:
        return self.n

    def item(self, i: int) -> npt.NDArray[Any]:
        raise InputError(f"{self.title} holds labels alone")

    def content(self, i: int) -> bytes:
        return self.name(i).encode()

    def name(self, i: int) -> str:
        return f"{self.title}[{i}]"


def open_source(
    spec: str,
    *,
    labels: Path | None = None,
    skip_corrupt: bool = False,
    progress: Progress = no_progress,
) -> Source:
    """The set that `spec` names, with the labels of the .npy file `labels` instead of its own.

    Raises `InputError` or `DataUnavailable`, as a named set does that is not here.
    """
    path = Path(spec)
    whole: Items
    if spec in LABELLED:
        where, whole = spec, labelled(spec, progress=progress)
    elif path.is_dir():
        where, whole = str(path.resolve()), _folder(path.resolve(), labels is None)
    elif path.suffix in (".npz", ".npy") and path.is_file():
        where, whole = str(path.resolve()), _arrays(path.resolve())
    elif path.exists():
        raise InputError(f"{spec} is a file, expected a data set, a folder, .npz or .npy")
    else:
        looked = " and ".join(map(str, search_dirs()))
        raise InputError(
            f"{spec} is no file or folder, and no data set: there are {', '.join(LABELLED)}, whose "
            f"files are looked for in {looked} ($FAISS_DMIH_DATA names the first)"
        )
    if labels is not None:
        whole = _labelled_by(whole, labels)
    items = whole
    if skip_corrupt and isinstance(whole, Images):
        items = whole.without_corrupt(progress)
    return Source(where, whole, items)


def place(text: str) -> tuple[str, int] | None:
    """The set and the number in `cifar10[17]`; None for anything else."""
    found = _PLACE.fullmatch(text)
    if found is None or Path(text).exists():
        return None
    return found[1], int(found[2])


def encoder_input(items: Items, *, vectors: bool, who: str) -> Any:
    """`items` as encoders take them. `vectors`: whether `who` takes these, or images."""
    if isinstance(items, Features) and vectors:
        return items.vectors
    if isinstance(items, Images) and not vectors:
        return items
    if isinstance(items, Images | Features):
        got, expected = ("images", "vectors") if vectors else ("vectors", "images")
        raise InputError(f"{items.name} holds {got}, {who} takes {expected}")
    raise InputError(f"{items.name} holds labels alone, which only codes.npy can be evaluated with")


def read_array(path: Path, key: str | None = None) -> npt.NDArray[Any]:
    """The array of an .npy file, or the one called `key` of an .npz file. Raises `InputError`."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            array = loaded if key is None else loaded[key]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not an array that can be read ({error})") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is an .npz file, expected .npy")
    return array


def _folder(path: Path, with_labels: bool) -> Images:
    if with_labels:
        try:
            return image_folder(path)
        except InputError:
            # Images beside the folders of classes are a set without labels.
            pass
    return image_folder(path, labels=False)


def _arrays(path: Path) -> Items:
    title = str(path)
    if path.suffix == ".npy":
        return _of_array(read_array(path), title)
    try:
        with np.load(path, allow_pickle=False) as z:
            found = [key for key in KEYS if key in z.files]
            others = [key for key in z.files if key not in KEYS]
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not an .npz file that can be read ({error})") from error
    what = [key for key in ("images", "features") if key in found]
    if len(what) > 1 or not (what or "labels" in found):
        raise InputError(
            f"{path} holds {', '.join([*found, *others]) or 'nothing'}, expected `images` or "
            "`features`, and if known `labels` and `classes`"
        )
    labels = read_array(path, "labels") if "labels" in found else None
    names = read_array(path, "classes").astype(str).tolist() if "classes" in found else None
    if what:
        return _of_array(read_array(path, what[0]), title, labels, names)
    return Items.of(title, _Unseen(len(labels) if labels is not None else 0, title), labels, names)


def _of_array(
    x: npt.NDArray[Any], title: str, labels: Any = None, classes: list[str] | None = None
) -> Items:
    if x.dtype.kind == "f" and x.ndim == 2:
        return Features.from_arrays(x, labels, classes, title)
    if x.dtype == np.uint8 and x.ndim in (3, 4):
        return Images.from_arrays(x, labels, classes, title)
    raise InputError(
        f"{title}: got {x.dtype} {x.shape}, expected images uint8 (n, height, width[, 3]) or "
        "features float (n, dim)"
    )


def _labelled_by(items: Items, path: Path) -> Items:
    y = check_labels(read_array(path), len(items), f"{path} for {items.name}")
    return replace(items, labels=y, classes=class_names(y, None, str(path)))

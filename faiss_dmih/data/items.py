"""Labelled sets of images or feature vectors, as encoders are trained on.

A set is a lazy sequence: `images[7]` decodes image 7, `images[rows]` is the set of these rows and
copies nothing but the rows' numbers and labels. Sets are picklable.

>>> x = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)
>>> images = Images.from_arrays(x, labels=[1, 0, 1], classes=["cat", "dog"])
>>> images[0].shape
(8, 8, 3)
>>> images[np.array([0, 2])].labels.tolist()
[1, 1]
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from faiss_dmih.data.errors import DataUnavailable, InputError
from faiss_dmih.data.files import Progress, no_progress
from faiss_dmih.data.sources import ImageArray, Pixels, Source, Vectors

Labels = npt.NDArray[np.int64] | npt.NDArray[np.bool_]
"""int64 (n,), the number of each item's class; or bool (n, classes), every class an item has."""
Rows = npt.NDArray[np.int64]

_Set = TypeVar("_Set", bound="Items")
_SHOWN = 5
_BLOCK = 256


@dataclass(frozen=True, eq=False)
class Items:
    """What `Images` and `Features` have in common. Made by their functions, or by `labelled`.

    name      of the set: "cifar10", or a folder
    source    where items come from
    labels    int64 (n,) or bool (n, classes), or None
    classes   names of the classes, one for each that labels can name; empty without labels
    rows      int64 (n,): the numbers of the items in `source`
    official_test  bool (n,): which items its publishers keep for testing, or None: not said
    skipped   (item, reason) of what was left out because it could not be decoded
    """

    name: str
    source: Source
    labels: Labels | None
    classes: tuple[str, ...]
    rows: Rows
    official_test: npt.NDArray[np.bool_] | None = None
    skipped: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls: type[_Set],
        name: str,
        source: Source,
        labels: npt.ArrayLike | None = None,
        classes: Iterable[str] | None = None,
        official_test: npt.NDArray[np.bool_] | None = None,
    ) -> _Set:
        """The set of all items of `source`. Raises `InputError` on labels that do not fit."""
        n = len(source)
        checked = None if labels is None else check_labels(labels, n, name)
        names = () if checked is None else class_names(checked, classes, name)
        return cls(name, source, checked, names, np.arange(n), official_test)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, which: int | np.integer[Any]) -> npt.NDArray[Any]: ...
    @overload
    def __getitem__(self: _Set, which: slice | npt.NDArray[Any] | list[int]) -> _Set: ...
    def __getitem__(
        self: _Set, which: int | np.integer[Any] | slice | npt.NDArray[Any] | list[int]
    ) -> npt.NDArray[Any] | _Set:
        """One item for a number; a set for a slice, an array or list of numbers, a bool mask."""
        if isinstance(which, int | np.integer):
            return self._item(int(self.rows[which]))
        some = which if isinstance(which, slice) else np.asarray(which)
        if isinstance(some, np.ndarray) and not some.size:
            some = some.astype(np.int64)
        test = self.official_test
        return replace(
            self,
            rows=self.rows[some],
            labels=None if self.labels is None else self.labels[some],
            official_test=None if test is None else test[some],
        )

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return (self._item(int(row)) for row in self.rows)

    def __repr__(self) -> str:
        kind = type(self).__name__
        labels = f"{len(self.classes)} classes" if self.classes else "no labels"
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"<{kind} {self.name}: {len(self):,} items, {labels}{skipped}>"

    def _item(self, row: int) -> npt.NDArray[Any]:
        return self.source.item(row)

    def item_name(self, i: int) -> str:
        """What to call item i in a message: its file, or its place in the set it was taken from."""
        return self.source.name(int(self.rows[i]))

    @property
    def known_labels(self) -> Labels:
        """The labels. Raises `InputError` if there are none."""
        if self.labels is None:
            raise InputError(
                f"{self.name}: got {len(self):,} items without labels, expected labels; pass "
                "labels=, or put the images into one folder for each class"
            )
        return self.labels

    def content_hashes(self) -> list[bytes]:
        """16 bytes for each item, equal for those stored with the same bytes; nothing is decoded.

        A picture that was saved twice, in another format or size, has two hashes.
        """
        return [
            hashlib.blake2b(self.source.content(int(row)), digest_size=16).digest()
            for row in self.rows
        ]


class Images(Items):
    """n images. `images[i]` is uint8 (height, width, 3), RGB; sizes may differ.

    Raises `InputError` naming the image if it cannot be decoded.
    """

    @classmethod
    def from_arrays(
        cls,
        pixels: Pixels,
        labels: npt.ArrayLike | None = None,
        classes: Iterable[str] | None = None,
        name: str = "images",
    ) -> Images:
        """Of uint8 (n, height, width) or (n, height, width, 1 or 3). Raises `InputError`."""
        return cls.of(name, ImageArray(np.asarray(pixels), name), labels, classes)

    def _item(self, row: int) -> Pixels:
        try:
            return self.source.item(row)
        except DataUnavailable:  # Pillow is missing
            raise
        except Exception as error:  # Pillow's decoders raise whatever they stumble over
            raise InputError(
                f"{self.source.name(row)}: not a readable image ({_reason(error)}); repair or "
                "remove it, or load the set with skip_corrupt=True (--skip-corrupt)"
            ) from error

    def without_corrupt(self, progress: Progress = no_progress) -> Images:
        """Those images that can be decoded; the others are in `skipped`, with the reason.

        Decodes all images once, in threads. Raises `InputError` if none can be.
        """

        def failure(row: int) -> str | None:
            try:
                self.source.item(row)
            except DataUnavailable:
                raise
            except Exception as error:
                return _reason(error)
            return None

        good = np.ones(len(self), np.bool_)
        skipped = list(self.skipped)
        with ThreadPoolExecutor() as pool:
            # By blocks, as an interrupted pool finishes all that it was given.
            for start in range(0, len(self), _BLOCK):
                progress(f"checking the images of {self.name}", start, len(self))
                block = self.rows[start : start + _BLOCK].tolist()
                for i, reason in enumerate(pool.map(failure, block), start):
                    if reason is not None:
                        good[i] = False
                        skipped.append((self.item_name(i), reason))
        if len(self) and not good.any():
            item, reason = skipped[-1]
            raise InputError(
                f"{self.name}: none of its {len(self):,} images can be read; "
                f"the last one is {item} ({reason})"
            )
        return replace(self[good], skipped=tuple(skipped))


class Features(Items):
    """n feature vectors, for encoders that learn on top of another model's embeddings."""

    @classmethod
    def from_arrays(
        cls,
        vectors: npt.NDArray[np.floating[Any]],
        labels: npt.ArrayLike | None = None,
        classes: Iterable[str] | None = None,
        name: str = "features",
    ) -> Features:
        """Of floats (n, dim), all finite. Raises `InputError`."""
        x = np.asarray(vectors)
        if x.dtype.kind == "f":
            x = x.astype(np.float32, copy=False)
        return cls.of(name, Vectors(x, name), labels, classes)

    @property
    def dim(self) -> int:
        return int(self._vectors.shape[1])

    @property
    def vectors(self) -> npt.NDArray[np.float32]:
        """float32 (n, dim): all vectors of the set at once, a copy."""
        return self._vectors[self.rows]

    @property
    def _vectors(self) -> npt.NDArray[np.float32]:
        assert isinstance(self.source, Vectors)  # what makes a set of features
        return self.source.vectors


def check_labels(labels: npt.ArrayLike, n: int, name: str) -> Labels:
    """`labels` of n items as int64 (n,) or bool (n, classes). Raises `InputError`."""
    y = np.asarray(labels)
    expected = f"expected {n:,} integers, or {n:,} rows of 0 and 1, one column for each class"
    if y.ndim not in (1, 2) or y.dtype.kind not in "iub" or (y.ndim == 1 and y.dtype.kind == "b"):
        raise InputError(f"{name}: got labels {y.dtype} {y.shape}, {expected}")
    if len(y) != n:
        raise InputError(f"{name}: got {len(y):,} labels for {n:,} items, {expected}")
    if y.ndim == 2:
        wrong = np.flatnonzero(((y != 0) & (y != 1)).any(axis=1))
        if len(wrong):
            raise InputError(f"{name}: the labels of item {wrong[0]} are not 0 or 1, {expected}")
        return y.astype(np.bool_)
    negative = np.flatnonzero(y < 0)
    if len(negative):
        i = negative[0]
        raise InputError(
            f"{name}: the label of item {i} is {y[i]}, expected 0 or more; leave out items "
            "whose class is not known"
        )
    return y.astype(np.int64)


def class_names(labels: Labels, classes: Iterable[str] | None, name: str) -> tuple[str, ...]:
    """`classes`, which must suffice for `labels`; without them "0", "1", ... Raises `InputError`.

    Integer labels need not use all classes, so there may be more names than they do.
    """
    used = labels.shape[1] if labels.ndim == 2 else int(labels.max(initial=-1)) + 1
    if classes is None:
        return tuple(map(str, range(used)))
    names = tuple(classes)
    if len(names) < used or (labels.ndim == 2 and len(names) != used):
        raise InputError(
            f"{name}: got {len(names)} class names for labels of {used} classes; pass one name "
            "for each class"
        )
    return names


def _reason(error: Exception) -> str:
    """One line; without the path, which messages name anyway, nor an address of memory."""
    if type(error).__name__ == "UnidentifiedImageError":
        return "of no known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def listed(skipped: Sequence[tuple[str, str]]) -> str:
    """Count and the first few of `Items.skipped`, for people; empty if there are none."""
    if not skipped:
        return ""
    shown = "; ".join(f"{item} ({reason})" for item, reason in skipped[:_SHOWN])
    more = f"; and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
    return f"skipped {len(skipped):,}: {shown}{more}"

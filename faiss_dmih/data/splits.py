"""Which items are the database, which are queries, which train an encoder.

A query that is in the database, or was trained on, is the classic fault of retrieval experiments.
Here a `Split` cannot be made with one: indices are checked whenever a split is made, and
`duplicates` finds queries of which an exact copy is in the database under another number.

>>> labels = np.repeat([0, 1], 10)
>>> s = split(labels, queries_per_class=2, train_per_class=3, validation=2, seed=0)
>>> len(s.queries), len(s.database), len(s.train), len(s.validation)
(4, 16, 4, 2)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from faiss_dmih.data.errors import InputError
from faiss_dmih.data.items import Items, Labels, Rows, check_labels, class_names

Shortage = Literal["error", "proportional"]
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Split:
    """Index arrays int64 (.,), ascending and without repetition. Raises `InputError`.

    database    what is searched
    queries     what is searched for; none of them is in any of the others
    train       what an encoder learns from, usually a part of the database
    validation  held back from `train`, for early stopping: a part of the database as well
    """

    database: Rows
    queries: Rows
    train: Rows
    validation: Rows

    def __post_init__(self) -> None:
        for name in ("database", "queries", "train", "validation"):
            rows = np.asarray(getattr(self, name))
            if rows.ndim != 1 or (rows.dtype.kind not in "iu" and rows.size):
                raise InputError(
                    f"{name}: got {rows.dtype} {rows.shape}, expected the numbers of items (n,)"
                )
            unique = np.unique(rows.astype(np.int64))
            if len(unique) < len(rows):
                raise InputError(
                    f"{name}: {len(rows) - len(unique):,} of {len(rows):,} items are there more "
                    "than once; pass each once"
                )
            if len(unique) and unique[0] < 0:
                raise InputError(f"{name}: got item {unique[0]}, expected 0 or more")
            object.__setattr__(self, name, unique)
        for one, other in (
            ("queries", "database"),
            ("queries", "train"),
            ("queries", "validation"),
            ("validation", "train"),
        ):
            both = np.intersect1d(getattr(self, one), getattr(self, other))
            if len(both):
                raise InputError(
                    f"{len(both):,} items are in {one} and in {other}, the first is item "
                    f"{both[0]}; take them out of one of them"
                )

    def __repr__(self) -> str:
        return (
            f"<Split: database {len(self.database):,}, queries {len(self.queries):,}, "
            f"train {len(self.train):,}, validation {len(self.validation):,}>"
        )

    def duplicates(self, items: Items) -> Rows:
        """(k, 2): (query, item) where the item, of the database or trained on, is the query's copy.

        Copies are what `Items.content_hashes` says are equal. One row for each such pair.
        """
        others = np.unique(np.concatenate([self.database, self.train, self.validation]))
        copies: dict[bytes, list[int]] = defaultdict(list)
        for query, content in zip(self.queries, items[self.queries].content_hashes(), strict=True):
            copies[content].append(int(query))
        pairs = [
            (query, int(other))
            for other, content in zip(others, items[others].content_hashes(), strict=True)
            for query in copies.get(content, ())
        ]
        return np.array(sorted(pairs), np.int64).reshape(-1, 2)

    def without_duplicates(self, items: Items) -> Split:
        """The same queries, and everything else without exact copies of them."""
        copies = self.duplicates(items)[:, 1]
        return replace(
            self,
            database=np.setdiff1d(self.database, copies),
            train=np.setdiff1d(self.train, copies),
            validation=np.setdiff1d(self.validation, copies),
        )


def split(
    labels: npt.ArrayLike,
    *,
    queries_per_class: int | None = None,
    queries: npt.ArrayLike | None = None,
    train_per_class: int | None = None,
    train: int | None = None,
    validation: int = 0,
    seed: int = 0,
    shortage: Shortage = "error",
    classes: Sequence[str] | None = None,
) -> Split:
    """Draw queries, then training images from the rest. The rest, these included, is the database.

    labels             int (n,) or 0/1 (n, classes), as in `Items.labels`
    queries_per_class  random queries of each class; or `queries`, the numbers of given ones
    train_per_class    random training images of each class; or `train`, of all classes together;
                       neither: the whole database
    validation         how many of these are held back for validation, drawn from all of them
    seed               decides every draw
    shortage           what happens where a class has too few images. At least one image of a class
                       has to stay in the database, or a query has nothing to find. "error" raises;
                       "proportional" keeps the ratio of queries_per_class to train_per_class,
                       rounding queries down, so that a class of one image has no query; where
                       train_per_class is not given, all but one image of such a class are queries.
                       A class that runs out of training images gives all it has
    classes            names of classes, for messages

    With several labels per image, classes draw in turn, those with the fewest images first; an
    image is drawn once. Classes without any image, and images without label, are never drawn by
    class. Raises `InputError`.
    """
    array = np.asarray(labels)
    y = check_labels(array, len(array) if array.ndim else 0, "labels")
    n = len(y)
    if (queries_per_class is None) == (queries is None):
        raise InputError("pass either queries_per_class or queries")
    if train_per_class is not None and train is not None:
        raise InputError("pass train_per_class or train, not both")
    if shortage not in ("error", "proportional"):
        raise InputError(f"shortage: got {shortage!r}, expected 'error' or 'proportional'")
    for name, value in (
        ("queries_per_class", queries_per_class),
        ("train_per_class", train_per_class),
        ("train", train),
        ("validation", validation),
    ):
        if value is not None and value < 0:
            raise InputError(f"{name}: got {value}, expected 0 or more")
    rng = np.random.default_rng(seed)
    members = _members(y, classes)
    if queries is None:
        assert queries_per_class is not None
        # What has to remain of a class: what trains on it, and something to be found.
        rest = max(1, train_per_class or 0) if queries_per_class else 0
        drawn = _draw(members, n, queries_per_class, rest, "queries", shortage, rng)
        if queries_per_class and not len(drawn):
            raise InputError(
                f"none of the {n:,} images can be spared as a query: no class has enough of them; "
                "ask for fewer training images, or pass queries="
            )
    else:
        drawn = _given(queries, n)
    database = np.setdiff1d(np.arange(n), drawn)
    if train_per_class is not None:
        left = [(name, np.setdiff1d(rows, drawn)) for name, rows in members]
        trained = _draw(left, n, train_per_class, 0, "training images", shortage, rng)
    else:
        count = len(database) if train is None else train
        if count > len(database):
            raise InputError(
                f"train: got {count:,}, expected at most {len(database):,}, which are left beside "
                f"{len(drawn):,} queries"
            )
        trained = rng.permutation(database)[:count]
    if validation and validation >= len(trained):
        raise InputError(
            f"validation: got {validation:,}, expected fewer than the {len(trained):,} training "
            "images it is taken from"
        )
    trained = rng.permutation(trained)
    return Split(database, drawn, trained[validation:], trained[:validation])


def share_of_classes(labels: npt.ArrayLike, share: float, *, seed: int = 0) -> Rows:
    """Random items, so large a share of each class, rounded down, but one at least of each class
    that has two: for `split(queries=...)` where classes differ in size.

    With several labels per image the rarest classes draw first, and what others draw may add to
    their share. Raises `InputError`.

    >>> share_of_classes(np.repeat([0, 1, 2], [40, 10, 1]), 0.1).shape
    (5,)
    """
    array = np.asarray(labels)
    y = check_labels(array, len(array) if array.ndim else 0, "labels")
    if not 0 < share < 1:
        raise InputError(f"share: got {share:g}, expected more than 0 and less than 1")
    rng = np.random.default_rng(seed)
    free = np.ones(len(y), np.bool_)
    for _, rows in _members(y, None):
        size = max(int(share * len(rows)), int(len(rows) > 1))
        missing = size - int((~free[rows]).sum())
        free[rng.permutation(rows[free[rows]])[: max(missing, 0)]] = False
    return np.flatnonzero(~free)


PROTOCOLS: dict[str, dict[str, int]] = {
    "cifar10": {"queries_per_class": 100, "train": 10_000},
    "cifar10-jpeg": {"queries_per_class": 100, "train": 10_000},
    "cifar10-features": {"queries_per_class": 100, "train": 10_000},
    "fashion-mnist": {"queries_per_class": 100, "train": 10_000},
    "svhn": {"queries_per_class": 100, "train_per_class": 500},
    "nus-wide": {"queries_per_class": 100, "train_per_class": 500},
    "awa2": {"queries_per_class": 20, "train": 10_000},
    "tiny-imagenet": {"train_per_class": 100},
    "tiny-imagenet-100": {"train_per_class": 100},
    "imagenet-100": {"train_per_class": 100},
    "digits": {"queries_per_class": 10, "train": 1_000},
}
"""`split`'s arguments for each named set; without queries_per_class, queries are the set's official
test items.

cifar10, awa2: Li et al., ensemble-based deep supervised hashing: 1,000 queries, 10,000 training
images drawn from all of the database. svhn, nus-wide: Li et al., deep multi-index hashing. The
tiny-imagenet sets follow the former's ImageNet protocol: 50 queries of each class, which are the
official validation images, and 100 training images of each class. awa2 has 37,322 images where AwA
had 30,475. fashion-mnist and digits are in neither paper.
"""


def paper_split(
    items: Items,
    *,
    seed: int = 0,
    validation: int = 0,
    shortage: Shortage = "error",
) -> Split:
    """The papers' protocol for a set made by `labelled`, drawn by `seed`. Raises `InputError`."""
    if items.name not in PROTOCOLS:
        raise InputError(
            f"{items.name} has no published protocol, known are {', '.join(PROTOCOLS)}; use split()"
        )
    options: dict[str, Any] = dict(PROTOCOLS[items.name])
    if "queries_per_class" not in options:
        assert items.official_test is not None  # `labelled` says so for these sets
        options["queries"] = np.flatnonzero(items.official_test)
    return split(
        items.known_labels,
        validation=validation,
        seed=seed,
        shortage=shortage,
        classes=items.classes,
        **options,
    )


def _members(y: Labels, classes: Sequence[str] | None) -> list[tuple[str, Rows]]:
    """Name and items of each class that has any, those with the fewest items first."""
    if y.ndim == 1:
        numbers = np.unique(y)
        rows = [np.flatnonzero(y == c) for c in numbers]
    else:
        numbers = np.flatnonzero(y.any(axis=0))
        rows = [np.flatnonzero(y[:, c]) for c in numbers]
    names = class_names(y, classes, "labels")
    named = [(repr(names[c]), r) for c, r in zip(numbers, rows, strict=True)]
    return sorted(named, key=lambda each: len(each[1]))


def _draw(
    members: list[tuple[str, Rows]],
    n: int,
    count: int,
    rest: int,
    what: str,
    shortage: Shortage,
    rng: np.random.Generator,
) -> Rows:
    """`count` items of each class, no item twice, such that `rest` more of each are left."""
    free = np.ones(n, np.bool_)
    short = []
    for name, rows in members:
        available = rows[free[rows]]
        size = count
        if len(available) < count + rest:
            short.append(f"{name} has {len(available)}")
            size = count * len(available) // (count + rest)
        free[rng.permutation(available)[:size]] = False
    if short and shortage == "error":
        shown = ", ".join(short[:_SHOWN]) + (", ..." if len(short) > _SHOWN else "")
        raise InputError(
            f"{len(short)} of {len(members)} classes have fewer images left than the "
            f"{count:,} {what}" + (f" and {rest:,} others" if rest else "") + " that were asked "
            f"for: {shown}; ask for fewer, or pass shortage='proportional'"
        )
    return np.flatnonzero(~free)


def _given(queries: npt.ArrayLike, n: int) -> Rows:
    rows = np.asarray(queries)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputError(
            f"queries: got {rows.dtype} {rows.shape}, expected the numbers of items (n,)"
        )
    wrong = np.flatnonzero((rows < 0) | (rows >= n))
    if len(wrong):
        raise InputError(f"queries: got item {rows[wrong[0]]}, expected 0 to {n - 1}")
    return np.unique(rows.astype(np.int64))

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faiss_dmih.data import (
    PROTOCOLS,
    Images,
    InputError,
    Split,
    paper_split,
    share_of_classes,
    split,
)

NONE = np.empty(0, int)


def one_of_each(name, counts, **options):
    """A set called `name` with `counts[c]` images of class c, shuffled."""
    labels = np.repeat(np.arange(len(counts)), counts)
    labels = np.random.default_rng(1).permutation(labels)
    pixels = np.arange(len(labels), dtype=np.uint32).view(np.uint8).reshape(-1, 2, 2)
    images = Images.from_arrays(pixels, labels, name=name)
    return dataclasses.replace(images, **options)


def per_class(images, rows):
    return np.bincount(images.labels[rows], minlength=len(images.classes)).tolist()


def check(parts, n):
    """What every drawn split has to be."""
    assert not set(parts.queries) & (set(parts.database) | set(parts.train))
    assert not set(parts.queries) & set(parts.validation)
    assert not set(parts.train) & set(parts.validation)
    assert set(parts.train) | set(parts.validation) <= set(parts.database)
    assert sorted([*parts.queries, *parts.database]) == list(range(n))


# The papers' protocols


def test_cifar10():
    images = one_of_each("cifar10", [6000] * 10)
    parts = paper_split(images, seed=3, validation=500)
    check(parts, 60_000)
    assert per_class(images, parts.queries) == [100] * 10
    assert len(parts.database) == 59_000
    assert (len(parts.train), len(parts.validation)) == (9500, 500)
    # Drawn from all of the database, not class by class.
    assert len(set(per_class(images, parts.train))) > 1


def test_svhn():
    images = one_of_each("svhn", [700 + 50 * c for c in range(10)])
    parts = paper_split(images)
    check(parts, len(images))
    assert per_class(images, parts.queries) == [100] * 10
    assert per_class(images, parts.train) == [500] * 10


def test_awa2():
    images = one_of_each("awa2", [100 + 8 * c for c in range(50)])
    parts = paper_split(images)
    check(parts, len(images))
    assert per_class(images, parts.queries) == [20] * 50
    assert len(parts.train) == 10_000


def test_imagenet_100():
    official = np.arange(200 * 100) % 4 == 0
    images = one_of_each("tiny-imagenet-100", [200] * 100, official_test=official)
    parts = paper_split(images)
    check(parts, len(images))
    np.testing.assert_array_equal(parts.queries, np.flatnonzero(official))
    assert per_class(images, parts.train) == [100] * 100


def test_nus_wide():
    # Label c on every (c + 2)-nd image: from many images to few, most images have several.
    i = np.arange(40_000)[:, None]
    labels = i % np.arange(2, 23) == 0
    pixels = np.zeros((40_000, 1, 1), np.uint8)
    images = Images.from_arrays(pixels, labels, name="nus-wide")
    parts = paper_split(images, seed=1)
    check(parts, len(images))
    assert len(parts.queries) == 2100
    assert len(parts.train) == 10_500
    assert (labels[parts.queries].sum(axis=0) >= 100).all()
    assert (labels[parts.train].sum(axis=0) >= 500).all()


def test_a_set_without_protocol():
    with pytest.raises(InputError, match=r"pets has no published protocol, .* use split\(\)"):
        paper_split(one_of_each("pets", [5, 5]))
    unlabelled = Images.from_arrays(np.zeros((5, 2, 2), np.uint8), name="cifar10")
    with pytest.raises(InputError, match="cifar10: got 5 items without labels"):
        paper_split(unlabelled)
    assert "pets" not in PROTOCOLS


# Splits of one's own


def test_seeds_decide():
    labels = np.arange(1000) % 7
    one, same, other = (
        split(labels, queries_per_class=5, train_per_class=9, validation=7, seed=seed)
        for seed in (1, 1, 2)
    )
    for field in dataclasses.fields(Split):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(same, field.name))
        assert set(getattr(one, field.name)) != set(getattr(other, field.name))


@pytest.mark.parametrize("train", [{"train": 6}, {"train_per_class": 2}])
def test_draws_are_uniform(train):
    times = {name: np.zeros(12) for name in ("queries", "train", "validation")}
    for seed in range(2000):
        parts = split(np.arange(12) % 3, queries_per_class=1, **train, validation=3, seed=seed)
        for name, drawn in times.items():
            drawn[getattr(parts, name)] += 1
    for drawn in times.values():  # three of twelve items each
        np.testing.assert_allclose(drawn, 500, atol=5 * 500**0.5)


def test_given_queries():
    parts = split(np.arange(6) % 2, queries=[5, 0, 5], train=3)
    check(parts, 6)
    assert parts.queries.tolist() == [0, 5]
    assert len(parts.train) == 3


def test_a_share_of_each_class():
    """Rounded down, but one of each class that has two."""
    images = one_of_each("any", [400, 39, 15, 2, 1, 0])
    drawn = share_of_classes(images.labels, 0.1, seed=3)
    assert per_class(images, drawn) == [40, 3, 1, 1, 0]
    check(split(images.labels, queries=drawn), len(images))
    assert (drawn == share_of_classes(images.labels, 0.1, seed=3)).all()
    assert (drawn != share_of_classes(images.labels, 0.1, seed=4)).any()
    rows = np.array([[1, 0], [1, 1], [1, 0], [0, 0]] * 10)
    several = share_of_classes(rows, 0.2)
    # The rarer class has drawn 2, which count for the other one; that may add to the rarer one's.
    often, rarely = rows[several].sum(axis=0)
    assert often == len(several) == 6
    assert 2 <= rarely <= 6
    with pytest.raises(InputError, match="share: got 1, expected more than 0 and less than 1"):
        share_of_classes(images.labels, 1)


def test_all_of_the_database_trains_by_default():
    parts = split(np.arange(20) % 2, queries_per_class=2)
    assert parts.train.tolist() == parts.database.tolist()


@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    queries=st.integers(0, 8),
    train=st.none() | st.integers(0, 8),
    seed=st.integers(0, 5),
)
def test_short_classes_give_what_they_can(counts, queries, train, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    rest = max(1, train or 0)
    expected = [
        (queries if c >= queries + rest else queries * c // (queries + rest)) for c in counts
    ]
    options = {"queries_per_class": queries, "train_per_class": train, "seed": seed}
    if queries and not sum(expected):
        with pytest.raises(InputError, match="can be spared as a query"):
            split(labels, **options, shortage="proportional")
        return
    parts = split(labels, **options, shortage="proportional")
    check(parts, len(labels))
    assert np.bincount(labels[parts.queries], minlength=len(counts)).tolist() == expected
    left = [c - q for c, q in zip(counts, expected, strict=True)]
    trained = left if train is None else [min(train, c) for c in left]
    assert np.bincount(labels[parts.train], minlength=len(counts)).tolist() == trained
    # Every query has something to find.
    assert all(c > 0 for c in left)
    enough = all(c >= queries + (rest if queries else train or 0) for c in counts)
    if enough:
        same = split(labels, **options)
        assert same.queries.tolist() == parts.queries.tolist()
        assert same.train.tolist() == parts.train.tolist()
    else:
        with pytest.raises(InputError, match="pass shortage='proportional'"):
            split(labels, **options)


@given(
    rows=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=30),
    queries=st.integers(1, 4),
    train=st.integers(0, 4),
)
def test_several_labels_per_image(rows, queries, train):
    labels = np.array(rows)
    options = {"queries_per_class": queries, "train_per_class": train, "shortage": "proportional"}
    enough = queries + max(1, train)
    # At the first class that has a query to give, none of its images are taken yet.
    if all(min(count, enough) * queries < enough for count in labels.sum(axis=0)):
        with pytest.raises(InputError, match="can be spared as a query"):
            split(labels, **options)
        return
    parts = split(labels, **options)
    check(parts, len(labels))
    assert labels[parts.queries].any(axis=1).all()  # never without label
    assert labels[parts.train].any(axis=1).all()
    assert len(parts.queries) <= 3 * queries
    assert len(parts.train) <= 3 * train


def test_classes_too_small_are_named():
    labels = np.repeat([0, 1, 2], [5, 4, 20])
    with pytest.raises(InputError) as caught:
        split(labels, queries_per_class=3, train_per_class=3, classes=["cat", "dog", "owl"])
    assert str(caught.value) == (
        "2 of 3 classes have fewer images left than the 3 queries and 3 others that were asked "
        "for: 'dog' has 4, 'cat' has 5; ask for fewer, or pass shortage='proportional'"
    )


def test_one_image_per_class():
    labels = np.arange(5)
    with pytest.raises(InputError, match="5 of 5 classes have fewer images"):
        split(labels, queries_per_class=1)
    with pytest.raises(InputError, match="none of the 5 images can be spared"):
        split(labels, queries_per_class=1, shortage="proportional")
    # One class of several images suffices.
    parts = split([0, 1, 2, 2, 2], queries_per_class=1, shortage="proportional")
    assert len(parts.queries) == 1
    assert parts.queries[0] >= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "pass either queries_per_class or queries"),
        ({"queries": [1], "queries_per_class": 1}, "pass either queries_per_class or queries"),
        ({"queries_per_class": 1, "train": 1, "train_per_class": 1}, "not both"),
        ({"queries_per_class": -1}, "queries_per_class: got -1, expected 0 or more"),
        ({"queries_per_class": 1, "shortage": "drop"}, "shortage: got 'drop', expected 'error'"),
        ({"queries_per_class": 1, "train": 9}, "train: got 9, expected at most 8"),
        ({"queries_per_class": 1, "train": 4, "validation": 4}, "validation: got 4, .* the 4 "),
        ({"queries": [10]}, "queries: got item 10, expected 0 to 9"),
        ({"queries": [0.5]}, r"queries: got float64 \(1,\), expected the numbers of items"),
        ({"queries_per_class": 1, "classes": ["cat"]}, "got 1 class names for labels of 2"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(InputError, match=message):
        split(np.arange(10) % 2, **options)


@pytest.mark.parametrize("labels", [0, [0.5, 1.0], np.zeros((2, 2, 2), int)])
def test_labels_that_do_not_fit(labels):
    with pytest.raises(InputError, match="labels: got labels"):
        split(labels, queries_per_class=1)


# What a split checks


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (([0, 1, 2], [2, 3], [0], NONE), "1 items are in queries and in database, .* item 2"),
        (([0, 1], [2, 3], [0, 3, 2], NONE), "2 items are in queries and in train, .* item 2"),
        (([0, 1], [2], [0], [2]), "1 items are in queries and in validation, .* item 2"),
        (([0, 1], [2], [0, 1], [1]), "1 items are in validation and in train, .* item 1"),
        (([0, 1, 1], [2], [0], NONE), "database: 1 of 3 items are there more than once"),
        (([0, -1], [2], [0], NONE), "database: got item -1, expected 0 or more"),
        (([[0]], [2], [0], NONE), r"database: got int64 \(1, 1\), expected the numbers"),
        (([0], [2.0], [0], NONE), r"queries: got float64 \(1,\), expected the numbers"),
    ],
)
def test_a_split_that_leaks_cannot_be_made(parts, message):
    with pytest.raises(InputError, match=message):
        Split(*map(np.asarray, parts))


def test_a_split_is_ordered():
    parts = Split(*map(np.asarray, ([4, 0, 2], [3, 1], [2, 0], [])))
    assert parts.database.tolist() == [0, 2, 4]
    assert parts.queries.tolist() == [1, 3]
    assert parts.validation.dtype == np.int64
    assert repr(parts) == "<Split: database 3, queries 2, train 2, validation 0>"


def test_copies_of_queries_are_found_and_dropped():
    # Images 1, 4 and 6 are the same, so are 2 and 3, and 0 and 5.
    pixels = np.array([0, 1, 2, 2, 1, 0, 1, 7], np.uint8).reshape(-1, 1, 1)
    images = Images.from_arrays(pixels)
    parts = Split(*map(np.asarray, ([0, 3, 4, 5, 6, 7], [1, 2], [3, 5], [4])))
    assert parts.duplicates(images).tolist() == [[1, 4], [1, 6], [2, 3]]
    clean = parts.without_duplicates(images)
    assert clean.queries.tolist() == [1, 2]
    assert clean.database.tolist() == [0, 5, 7]
    assert clean.train.tolist() == [5]
    assert clean.validation.tolist() == []
    assert clean.duplicates(images).shape == (0, 2)


def test_copies_count_where_training_items_are_no_part_of_the_database():
    images = Images.from_arrays(np.array([1, 2, 1, 1], np.uint8).reshape(-1, 1, 1))
    parts = Split(*map(np.asarray, ([1], [0], [2], [3])))
    assert parts.duplicates(images).tolist() == [[0, 2], [0, 3]]
    clean = parts.without_duplicates(images)
    assert (len(clean.train), len(clean.validation)) == (0, 0)

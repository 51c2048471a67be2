from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from faiss_dmih.data import Features, Images, InputError, listed
from faiss_dmih.data.sources import PackedJpegs


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)


@pytest.fixture
def images(pixels):
    return Images.from_arrays(pixels, [0, 1, 2, 0, 1, 2], ["cat", "dog", "owl"], name="pets")


def packed(count, broken=()):
    """JPEGs of grey level 20 * i; those in `broken` are cut off within."""
    bodies = []
    for i in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", (16, 16), (20 * i,) * 3).save(buffer, "JPEG")
        bodies.append(buffer.getvalue()[: 40 if i in broken else None])
    return PackedJpegs(
        (b"",),
        np.zeros(count, int),
        np.frombuffer(b"".join(bodies), np.uint8),
        np.cumsum([0, *map(len, bodies)]),
        b"",
        "pets.npz",
    )


def test_a_set_is_a_sequence_of_images(images, pixels):
    assert len(images) == 6
    np.testing.assert_array_equal(images[2], pixels[2])
    np.testing.assert_array_equal(images[np.int64(-1)], pixels[5])
    np.testing.assert_array_equal(np.stack(list(images)), pixels)
    assert images.labels.dtype == np.int64
    assert images.classes == ("cat", "dog", "owl")
    assert repr(images) == "<Images pets: 6 items, 3 classes>"
    with pytest.raises(IndexError):
        images[6]


@pytest.mark.parametrize(
    "which",
    [
        slice(1, 5, 2),
        np.array([1, 3]),
        [1, 3],
        np.array([False, True, False, True, False, False]),
    ],
)
def test_some_of_a_set_is_a_set_and_copies_no_pixels(images, pixels, which):
    some = images[which]
    assert isinstance(some, Images)
    assert some.source is images.source
    assert some.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(some[1], pixels[3])
    assert some.item_name(1) == "pets[3]"
    # and so on, down
    np.testing.assert_array_equal(some[np.array([1])][0], pixels[3])


def test_nothing_of_a_set_is_a_set(images):
    assert len(images[[]]) == 0
    assert images[[]].labels.shape == (0,)


def test_official_test_items_follow_their_rows(images):
    marked = Images.of("pets", images.source, official_test=np.arange(6) >= 4)
    assert marked[np.array([5, 0])].official_test.tolist() == [True, False]


def test_sets_travel_to_workers(images, pixels):
    again = pickle.loads(pickle.dumps(images[[1, 3]]))
    np.testing.assert_array_equal(again[1], pixels[3])
    assert again.labels.tolist() == [1, 0]
    assert again.classes == images.classes


def test_several_labels_per_image(pixels):
    labels = np.zeros((6, 2), int)
    labels[2] = 1
    images = Images.from_arrays(pixels, labels)
    assert images.labels.dtype == np.bool_
    assert images.classes == ("0", "1")
    assert images[[2, 3]].labels.tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], "got 2 labels for 6 items, expected 6 integers"),
        ([0.0] * 6, r"got labels float64 \(6,\), expected 6 integers"),
        (["cat"] * 6, r"got labels <U3 \(6,\), expected"),
        ([[[0]]] * 6, r"got labels int64 \(6, 1, 1\), expected"),
        ([True] * 6, r"got labels bool \(6,\), expected"),
        ([0, 1, 2, -1, 0, 0], "the label of item 3 is -1, expected 0 or more"),
        ([[0, 1]] * 5 + [[0, 2]], "the labels of item 5 are not 0 or 1"),
    ],
)
def test_labels_that_do_not_fit(pixels, labels, message):
    with pytest.raises(InputError, match="pets: " + message):
        Images.from_arrays(pixels, labels, name="pets")


def test_class_names_that_do_not_fit(pixels):
    with pytest.raises(InputError, match="got 2 class names for labels of 3 classes"):
        Images.from_arrays(pixels, [0, 1, 2, 0, 1, 2], ["cat", "dog"])
    # A name whose class has no image is no mistake.
    assert len(Images.from_arrays(pixels, [0] * 6, ["cat", "dog"]).classes) == 2


def test_missing_labels_are_said_to_be_missing(pixels, images):
    assert images.known_labels is images.labels
    unlabelled = Images.from_arrays(pixels, name="pets")
    assert unlabelled.labels is None
    assert unlabelled.classes == ()
    with pytest.raises(InputError, match=r"pets: got 6 items without labels, .* pass labels="):
        _ = unlabelled.known_labels


def test_an_unreadable_image_is_named():
    images = Images.of("pets", packed(4, broken=[2]), [0, 1, 0, 1])
    assert images[1][0, 0].tolist() == pytest.approx([20, 20, 20], abs=2)
    with pytest.raises(InputError, match=r"pets\.npz\[2\]: not a readable image \(.+\); repair"):
        images[[3, 2]][1]


def test_unreadable_images_are_left_out_on_request():
    images = Images.of("pets", packed(600, broken=[2, 599]), np.arange(600))
    seen = []
    good = images[1:].without_corrupt(lambda what, done, total: seen.append((done, total)))
    assert good.labels.tolist() == [1, *range(3, 599)]
    assert [item for item, _ in good.skipped] == ["pets.npz[2]", "pets.npz[599]"]
    assert seen == [(0, 599), (256, 599), (512, 599)]
    assert "2 skipped" in repr(good)
    assert listed(good.skipped).startswith("skipped 2: pets.npz[2] (")
    assert listed(images.skipped) == ""
    # Once more, and nothing is lost or counted twice.
    assert good.without_corrupt().skipped == good.skipped


def test_a_long_list_is_cut():
    text = listed([(f"{i}.jpg", "truncated") for i in range(1234)])
    assert text.startswith("skipped 1,234: 0.jpg (truncated); ")
    assert text.endswith("4.jpg (truncated); and 1229 more")


def test_nothing_readable_is_an_error():
    images = Images.of("pets", packed(3, broken=[0, 1, 2]))
    with pytest.raises(InputError, match=r"none of its 3 images can be read; .*pets\.npz\[2\]"):
        images.without_corrupt()


def test_equal_content_has_equal_hashes(pixels):
    pixels[4] = pixels[1]
    hashes = Images.from_arrays(pixels).content_hashes()
    assert len(set(hashes)) == 5
    assert hashes[4] == hashes[1]
    assert Images.from_arrays(pixels)[[4, 0]].content_hashes() == [hashes[4], hashes[0]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_features(dtype):
    x = np.arange(12, dtype=dtype).reshape(4, 3)
    features = Features.from_arrays(x, [0, 1, 0, 1])
    assert features.dim == 3
    some = features[[3, 1]]
    assert isinstance(some, Features)
    assert some.vectors.dtype == np.float32
    np.testing.assert_array_equal(some.vectors, x[[3, 1]])
    np.testing.assert_array_equal(some[0], x[3])
    assert features.content_hashes()[3] == some.content_hashes()[0]
    features[0][:] = -1
    assert features[0].tolist() == [0, 1, 2]  # an item given out is a copy


def test_features_of_another_shape_are_described():
    with pytest.raises(InputError, match=r"got int64 \(4, 3\), expected float32 \(n, dim\)"):
        Features.from_arrays(np.zeros((4, 3), np.int64))
    with pytest.raises(InputError, match=r"got float32 \(4,\), expected float32 \(n, dim\)"):
        Features.from_arrays(np.zeros(4))

"""SOURCE of the encoders' commands: what it may be, and what is said of what it may not be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from faiss_dmih.cli.sources import encoder_input, open_source, place, read_array
from faiss_dmih.cli.splits import Drawn, draw
from faiss_dmih.data import DataUnavailable, Features, Images, InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(20) % 2


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("FAISS_DMIH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def photos(folder: Path, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for i, pixels in enumerate(PIXELS):
        path = folder / classes[LABELS[i]] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def test_a_folder(home: Path) -> None:
    data = open_source(str(photos(home / "photos").relative_to(home)))
    assert isinstance(data.items, Images)
    assert data.spec == str(home / "photos")
    assert data.name(0) == str(home / "photos" / "cat" / "00.png")
    assert [data.label(0), data.label(19)] == [["cat"], ["dog"]]
    flat = open_source(str(home / "photos" / "cat"))
    assert (len(flat.items), flat.items.labels, flat.label(0)) == (10, None, [])
    with pytest.raises(InputError, match=r"has no labels: put the images into one folder .*--lab"):
        _ = flat.known_labels
    # Images beside the folders of classes: a set without labels, not an error.
    Image.fromarray(PIXELS[0]).save(home / "photos" / "one.png")
    mixed = open_source("photos")
    assert (len(mixed.items), mixed.items.labels) == (21, None)


def test_labels_of_a_file(home: Path) -> None:
    np.save(home / "y.npy", np.arange(10) % 3)
    data = open_source(str(photos(home / "photos") / "cat"), labels=home / "y.npy")
    assert data.known_labels.tolist() == (np.arange(10) % 3).tolist()
    assert data.label(5) == ["2"]
    with pytest.raises(InputError, match=r"y\.npy for .*: got 10 labels for 20 items"):
        open_source("photos", labels=home / "y.npy")
    np.save(home / "y.npy", LABELS[::-1])
    assert open_source("photos", labels=home / "y.npy").label(0) == ["1"]


@pytest.mark.parametrize("several", [True, False])
def test_arrays(home: Path, several: bool) -> None:
    labels = np.stack([LABELS == 0, LABELS == 1], axis=1) if several else LABELS
    np.savez(home / "x.npz", images=PIXELS, labels=labels, classes=["cat", "dog"])
    data = open_source("x.npz")
    assert isinstance(data.items, Images)
    assert (data.name(3), data.label(3)) == (f"{home}/x.npz[3]", ["dog"])
    assert place(data.name(3)) == (data.spec, 3)
    np.savez(home / "f.npz", features=np.ones((20, 4)), labels=labels)
    assert isinstance(open_source("f.npz").items, Features)
    np.save(home / "x.npy", PIXELS[:, :, :, 0])
    assert open_source("x.npy").items[0].shape == (6, 5, 3)
    np.savez(home / "y.npz", labels=labels)
    alone = open_source("y.npz")
    assert len(alone.known_labels) == 20
    with pytest.raises(InputError, match=r"y\.npz holds labels alone"):
        encoder_input(alone.items, vectors=False, who="it")


def test_a_name_is_the_set(home: Path) -> None:
    photos(home / "digits")
    assert len(open_source("digits").items) == 1797
    assert len(open_source("./digits").items) == 20
    assert (place("digits[7]"), place("digits"), place("digits[x]")) == (("digits", 7), None, None)


def test_what_is_refused(home: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_source("nothing")
    for said in ("no file or folder", "cifar10", "tiny-imagenet-100", str(home / "cache")):
        assert said in str(caught.value)
    with pytest.raises(DataUnavailable, match=r"tinyimagenet100_jpeg\.npz is not in"):
        open_source("tiny-imagenet-100")
    (home / "note.txt").write_text("x")
    with pytest.raises(InputError, match=r"note\.txt is a file, expected a data set"):
        open_source("note.txt")
    (home / "bad.npz").write_text("x")
    with pytest.raises(InputError, match=r"bad\.npz: not an \.npz file that can be read"):
        open_source("bad.npz")
    np.savez(home / "other.npz", x=PIXELS)
    with pytest.raises(InputError, match=r"other\.npz holds x, expected `images` or `features`"):
        open_source("other.npz")
    np.savez(home / "both.npz", images=PIXELS, features=np.ones((20, 2)))
    with pytest.raises(InputError, match="holds images, features, expected"):
        open_source("both.npz")
    np.savez(home / "short.npz", images=PIXELS, labels=LABELS[1:])
    with pytest.raises(InputError, match="got 19 labels for 20 items"):
        open_source("short.npz")
    np.save(home / "codes.npy", np.zeros((4, 8), np.uint8))
    with pytest.raises(InputError, match=r"codes\.npy: got uint8 \(4, 8\), expected images"):
        open_source("codes.npy")
    with pytest.raises(InputError, match=r"other\.npz is an \.npz file, expected \.npy"):
        read_array(home / "other.npz")
    np.savez(home / "f.npz", features=np.ones((20, 4)))
    with pytest.raises(InputError, match=r"f\.npz holds vectors, it takes images"):
        encoder_input(open_source("f.npz").items, vectors=False, who="it")


def test_corrupt_images_keep_their_numbers(home: Path) -> None:
    """Splits number what is there, so that whoever reads one needs not to know what was skipped."""
    photos(home / "photos")
    (home / "photos" / "cat" / "04.png").write_bytes(b"x")
    data = open_source("photos", skip_corrupt=True)
    assert (len(data.whole), len(data.items)) == (20, 19)
    assert data.identity == open_source("photos").identity
    parts = draw(data, seed=0).split
    everywhere = np.concatenate([parts.database, parts.queries])
    assert sorted(everywhere.tolist()) == [i for i in range(20) if i != 2]
    np.testing.assert_array_equal(parts.train, parts.database)


def test_identity(home: Path) -> None:
    """Of names and labels, wherever the folder lies."""
    first = open_source(str(photos(home / "a"))).identity
    assert open_source(str(photos(home / "b"))).identity == first
    assert open_source(str(photos(home / "c", ("cat", "dogs")))).identity != first
    (home / "b" / "cat" / "00.png").unlink()
    assert open_source("b").identity != first


def test_draws(home: Path) -> None:
    data = open_source(str(photos(home / "photos")))
    drawn = draw(data, seed=0)
    again = draw(data, seed=0, validation=0.2)
    for part in ("queries", "database"):
        np.testing.assert_array_equal(getattr(again.split, part), getattr(drawn.split, part))
    assert (len(drawn.split.queries), len(drawn.split.train)) == (2, 18)
    assert (len(again.split.train), len(again.split.validation)) == (15, 3)
    some = draw(data, seed=0, queries_per_class=3, train_per_class=4).split
    assert [len(some.queries), len(some.train), len(some.database)] == [6, 8, 14]
    digits = draw(open_source("digits"), seed=0).split
    assert (len(digits.queries), len(digits.train)) == (100, 1000)
    with pytest.raises(InputError, match="--validation 1: expected a share"):
        draw(data, seed=0, validation=1)


def test_splits_there_and_back(home: Path) -> None:
    data = open_source(str(photos(home / "photos")))
    drawn = draw(data, seed=0, validation=0.2)
    drawn.save(home / "split.json")
    loaded = Drawn.load(home / "split.json")
    for part in ("queries", "database", "train", "validation"):
        np.testing.assert_array_equal(getattr(loaded.split, part), getattr(drawn.split, part))
    assert loaded.is_of(data, home)
    assert loaded.is_of(open_source(str(photos(home / "moved"))), home)
    assert not loaded.is_of(open_source("digits"), home)
    (home / "photos" / "cat" / "00.png").unlink()
    with pytest.raises(InputError, match=r"other items or labels than when .* train again"):
        loaded.is_of(open_source("photos"), home)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:40],
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace('"queries"', '"other"'),
    ],
)
def test_splits_of_others(home: Path, damage: Any) -> None:
    drawn = draw(open_source(str(photos(home / "photos"))), seed=0)
    drawn.save(home / "split.json")
    (home / "split.json").write_text(damage((home / "split.json").read_text()))
    with pytest.raises(InputError, match=r"split\.json is no split of this version"):
        Drawn.load(home / "split.json")

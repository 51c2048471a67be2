from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from PIL import Image

from faiss_dmih.data import InputError, folder, image_folder

GREY = {"a": 10, "b": 20, "c": 30}


def save(path, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (level,) * 3).save(path)


@pytest.fixture
def pets(tmp_path):
    """Two classes, written out of order, and what does not belong to them."""
    for name, level in [("dog/b.png", 20), ("cat/deep/c.PNG", 30), ("cat/a.bmp", 10)]:
        save(tmp_path / name, level)
    save(tmp_path / "cat/.hidden.png")
    save(tmp_path / ".thumbnails/x.png")
    save(tmp_path / "dog/.cache/x.png")
    (tmp_path / "dog/notes.txt").write_text("")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_folders_are_classes(pets):
    images = image_folder(pets)
    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 1]
    assert [images.item_name(i) for i in range(3)] == [
        str(pets / name) for name in ("cat/a.bmp", "cat/deep/c.PNG", "dog/b.png")
    ]
    assert [int(image[0, 0, 0]) for image in images] == [10, 30, 20]
    assert images[0].shape == (4, 6, 3)
    assert images.name == str(pets)


def test_the_order_is_not_the_file_systems(pets, monkeypatch):
    expected = image_folder(pets)
    files = folder._visible_files
    monkeypatch.setattr(folder, "_visible_files", lambda root: reversed(list(files(root))))
    assert image_folder(pets).source == expected.source


def test_a_flat_folder_has_no_labels(tmp_path):
    for name in "cab":
        save(tmp_path / f"{name}.png", GREY[name])
    images = image_folder(tmp_path)
    assert images.labels is None
    assert [int(image[0, 0, 0]) for image in images] == [10, 20, 30]
    with pytest.raises(InputError, match=r"3 images have no label, the first is a\.png"):
        image_folder(tmp_path, labels=True)


def test_images_beside_folders_are_a_question(pets):
    save(pets / "stray.png")
    with pytest.raises(InputError, match=r"1 images lie beside .* stray\.png; .*labels=False"):
        image_folder(pets)
    images = image_folder(pets, labels=False)
    assert len(images) == 4
    assert images.labels is None


def test_classes_may_be_linked(pets, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    save(elsewhere / "x.png")
    (pets / "owl").symlink_to(elsewhere)
    (pets / "dog" / "again").symlink_to(pets)  # a circle
    assert image_folder(pets).labels.tolist() == [0, 0, 1, 2]


def test_names_that_are_no_text_are_names(tmp_path):
    name = os.fsdecode(b"\xff.png")
    (tmp_path / "dog").mkdir()
    try:
        save(tmp_path / "dog" / name, 7)
    except OSError:
        pytest.skip("this file system has text for names")
    assert image_folder(tmp_path)[0][0, 0, 0] == 7


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_a_corrupt_file_is_named(pets, content):
    path = pets / "cat" / "b.jpg"
    if content is None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    images = image_folder(pets)
    assert len(images) == 4
    with pytest.raises(InputError, match=r"cat/b\.jpg: not a readable image \(.*skip_corrupt"):
        images[1]
    good = image_folder(pets, skip_corrupt=True)
    assert good.labels.tolist() == [0, 0, 1]
    assert [item for item, _ in good.skipped] == [str(path)]
    assert [int(image[0, 0, 0]) for image in good] == [10, 30, 20]


def test_a_class_may_lose_all_its_images(pets):
    (pets / "dog/b.png").write_bytes(b"")
    good = image_folder(pets, skip_corrupt=True)
    assert good.classes == ("cat", "dog")
    assert good.labels.tolist() == [0, 0]


def test_a_file_that_is_gone_is_named(pets):
    images = image_folder(pets)
    (pets / "dog/b.png").unlink()
    with pytest.raises(InputError, match=r"dog/b\.png: .* \(No such file or directory\)"):
        images[2]


def test_no_folder_and_no_images(pets):
    with pytest.raises(InputError, match="nowhere does not exist; expected a folder of images"):
        image_folder(pets / "nowhere")
    with pytest.raises(InputError, match=r"notes\.txt is not a folder"):
        image_folder(pets / "dog/notes.txt")
    (pets / "dog/b.png").unlink()
    with pytest.raises(InputError, match=r"no images found; .* 1 files are: \.txt \(1\)"):
        image_folder(pets / "dog")
    with pytest.raises(InputError, match="its 0 files are: none"):
        image_folder(pets / "empty")


def test_copies_have_equal_hashes(pets):
    (pets / "dog/z.png").write_bytes((pets / "cat/deep/c.PNG").read_bytes())
    hashes = image_folder(pets).content_hashes()
    assert hashes[1] == hashes[3]
    assert len(set(hashes)) == 3


def test_folders_travel_to_workers(pets):
    images = pickle.loads(pickle.dumps(image_folder(pets)))
    assert int(images[2][0, 0, 0]) == 20

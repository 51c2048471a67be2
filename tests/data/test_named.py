"""The named sets, of small files in the formats of the real ones."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile

import numpy as np
import pytest
import scipy.io
from PIL import Image

from faiss_dmih.data import (
    LABELLED,
    PROTOCOLS,
    Dataset,
    DataUnavailable,
    Features,
    Images,
    InputError,
    datasets,
    files,
    labelled,
    named,
    paper_split,
)
from faiss_dmih.data import imagenet as imagenet_module


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """An empty data folder, and an empty cache."""
    monkeypatch.setenv("FAISS_DMIH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def jpeg(level, size=16):
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (level,) * 3).save(buffer, "JPEG")
    return buffer.getvalue()


def level(image):
    """The grey level that an image was made with."""
    assert np.ptp(image) <= 2
    return round(float(image.mean()))


def pack(files):
    """Header, payload and offsets of JPEGs as the packed sets have them."""
    scan = files[0].index(b"\xff\xda")
    bodies = [file[scan:-2] for file in files]
    assert all(file[:scan] == files[0][:scan] for file in files)
    return {
        "payload": np.frombuffer(b"".join(bodies), np.uint8),
        "offsets": np.cumsum([0, *map(len, bodies)]).astype(np.uint32),
    }, np.frombuffer(files[0][:scan], np.uint8)


def published(path):
    """A Remote for a file that is here already."""
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    return named.Remote(path.name, "http://127.0.0.1:9/", md5)


def test_unknown_names_list_the_known():
    with pytest.raises(InputError, match="unknown image set 'mnist'; known are cifar10, "):
        labelled("mnist")


@pytest.mark.parametrize(
    "name",
    ["cifar10-jpeg", "cifar10-features", "tiny-imagenet-100", "imagenet-100", "nus-wide", "awa2"],
)
def test_what_has_no_download_says_what_to_do(data, name):
    with pytest.raises(DataUnavailable, match=f"{name}: .*FAISS_DMIH_DATA") as caught:
        labelled(name)
    assert str(data) in str(caught.value)


def test_every_set_has_a_protocol():
    assert set(PROTOCOLS) == set(LABELLED)


def test_digits_have_the_levels_of_other_images():
    digits = labelled("digits")
    assert isinstance(digits, Images)
    assert len(digits) == 1797
    assert digits.classes == tuple("0123456789")
    assert digits.official_test.sum() == 297
    assert {0, 255} <= set(np.unique(np.stack(list(digits))).tolist())
    np.testing.assert_array_equal(digits.labels[-297:], datasets.load_dataset("digits").test_labels)


@pytest.mark.parametrize("name", ["cifar10", "fashion-mnist"])
def test_sets_of_arrays_are_training_and_test_images(name, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    y = np.array([1, 2, 3, 4, 9])
    monkeypatch.setitem(
        datasets.DATASETS,
        name,
        lambda progress: Dataset(name, pixels[:3], y[:3], pixels[3:], y[3:], ""),
    )
    images = labelled(name)
    assert isinstance(images, Images)
    assert images.name == name
    assert len(images.classes) == 10
    assert images.labels.tolist() == y.tolist()
    assert images.official_test.tolist() == [False] * 3 + [True] * 2
    np.testing.assert_array_equal(np.stack(list(images)), pixels)


def test_cifar10_jpeg(data):
    arrays, header = pack([jpeg(50), jpeg(100), jpeg(150)])
    y = np.array([6, 9, 0], np.uint8)
    np.savez(data / "cifar10_jpeg60k.npz", header=header, y=y, n_train=np.int64(2), **arrays)
    images = labelled("cifar10-jpeg")
    assert [level(image) for image in images] == [50, 100, 150]
    assert [images.classes[y] for y in images.labels] == ["frog", "truck", "airplane"]
    assert images.official_test.tolist() == [False, False, True]
    assert "slightly lossy" in LABELLED["cifar10-jpeg"].about


def test_cifar10_features(data):
    q = np.random.default_rng(0).integers(0, 256, (4, 512), dtype=np.uint8)
    scale = np.linspace(0.1, 1, 512, dtype=np.float32)
    y = np.arange(4, dtype=np.uint8)
    path = data / "cifar10_squeezenet_gap512_u8.npz"
    np.savez(path, q=q, scale=scale, y=y, n_train=np.int64(3))
    features = labelled("cifar10-features", skip_corrupt=True)
    assert isinstance(features, Features)
    assert features.dim == 512
    np.testing.assert_array_equal(features[[3, 0]].vectors, (q * scale)[[3, 0]])
    assert features.official_test.tolist() == [False, False, False, True]


def test_svhn(data, monkeypatch):
    rng = np.random.default_rng(0)
    remotes, expected = [], []
    for part, count in (("train", 3), ("extra", 4), ("test", 2)):
        x = rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        y = np.array([10, 1, 9, 5][:count], np.uint8)[:, None]
        path = data / f"{part}_32x32.mat"
        scipy.io.savemat(path, {"X": x, "y": y})
        remotes.append(published(path))
        expected += [x[..., i] for i in range(count)]
    assert [remote.name for remote in remotes] == [remote.name for remote in named.SVHN_FILES]
    monkeypatch.setattr(named, "SVHN_FILES", tuple(remotes))
    images = labelled("svhn")
    assert images.labels.tolist() == [0, 1, 9, 0, 1, 9, 5, 0, 1]
    assert images.official_test.tolist() == [False] * 7 + [True] * 2
    np.testing.assert_array_equal(np.stack(list(images)), expected)


def test_tiny_imagenet_100(data):
    # The second header differs by a comment, as the headers of other programs do.
    arrays, header = pack([jpeg(50, 64), jpeg(100, 64), jpeg(150, 64)])
    other = np.concatenate([header[:2], np.frombuffer(b"\xff\xfe\0\3x", np.uint8), header[2:]])
    np.savez(
        data / "tinyimagenet100_jpeg.npz",
        header0=header,
        header1=other,
        hid=np.array([0, 1, 0], np.uint8),
        y=np.array([1, 0, 1], np.uint8),
        n_train=np.int64(2),
        wnid=np.array(["n1", "n2"]),
        name=np.array(["goldfish", "bullfrog"]),
        **arrays,
    )
    images = labelled("tiny-imagenet-100")
    assert [level(image) for image in images] == [50, 100, 150]
    assert images.classes == ("goldfish", "bullfrog")
    assert images.labels.tolist() == [1, 0, 1]
    assert images.source.content(1)[: len(other)] == other.tobytes()
    assert images.official_test.tolist() == [False, False, True]


@pytest.fixture
def tiny_imagenet(data, monkeypatch):
    """Two classes, three training and two validation images, as in the official archive."""
    path = data / "tiny-imagenet-200.zip"
    top = "tiny-imagenet-200/"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(top + "wnids.txt", "n02\nn01\n")
        archive.writestr(top + "words.txt", "n01\tgoldfish, Carassius auratus\nn02\tbullfrog\n")
        for name, grey in (("n02_0", 60), ("n02_1", 80), ("n01_0", 40)):
            wnid = name[:3]
            archive.writestr(f"{top}train/{wnid}/images/{name}.JPEG", jpeg(grey, 64))
        archive.writestr(top + "train/n01/n01_boxes.txt", "n01_0.JPEG\t0\t0\t9\t9\n")
        boxes = "val_1.JPEG\tn01\t0\t32\t44\t62\nval_0.JPEG\tn02\t52\t55\t57\t59\n"
        archive.writestr(top + "val/val_annotations.txt", boxes)
        for i in range(2):
            archive.writestr(f"{top}val/images/val_{i}.JPEG", jpeg(100 + i, 64))
        archive.writestr(top + "test/images/test_0.JPEG", jpeg(0, 64))
    monkeypatch.setattr(named, "TINY_IMAGENET_FILE", published(path))


def test_tiny_imagenet(tiny_imagenet):
    images = labelled("tiny-imagenet")
    assert [level(image) for image in images] == [40, 60, 80, 100, 101]
    assert images.classes == ("goldfish", "bullfrog")
    assert images.labels.tolist() == [0, 1, 1, 1, 0]
    assert images.official_test.tolist() == [False] * 3 + [True] * 2


def test_the_papers_imagenet_queries_are_the_official_ones(tiny_imagenet, monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "tiny-imagenet", {"train_per_class": 1})
    images = labelled("tiny-imagenet")
    parts = paper_split(images)
    assert parts.queries.tolist() == [3, 4]
    assert parts.database.tolist() == [0, 1, 2]
    assert sorted(images.labels[parts.train]) == [0, 1]


def tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def imagenet(data, monkeypatch):
    """Three classes, of which two are taken, and four validation images."""
    wnids = ["n03", "n01", "n02", "n00"]
    inner = {}
    for c, wnid in enumerate(wnids[:3]):
        files = {f"{wnid}_{i}.JPEG": jpeg(10 * (c + 1) + i) for i in (1, 0)}
        inner[f"{wnid}.tar"] = tar(data / "inner.tar", files).read_bytes()
    fields = ("ILSVRC2012_ID", "WNID", "words", "num_children")
    synsets = np.empty(4, [(field, object) for field in fields])
    for c, wnid in enumerate(wnids):  # the last one is no leaf
        synsets[c] = (c + 1, wnid, f"name of {wnid}, and another", 3 * (c == 3))
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": synsets})
    devkit = {
        "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": b"2\n1\n3\n2\n",
    }
    val = {f"ILSVRC2012_val_{i:08}.JPEG": jpeg(100 + i) for i in (4, 2, 3, 1)}
    paths = [data / remote.name for remote in imagenet_module.ARCHIVES]
    tar(paths[0], inner)
    tar(paths[1], val)
    tar(paths[2], devkit, "w:gz")
    monkeypatch.setattr(imagenet_module, "ARCHIVES", tuple(published(path) for path in paths))
    return paths


def test_imagenet_100_is_read_out_of_the_archives(imagenet, monkeypatch):
    monkeypatch.setattr(imagenet_module, "CLASSES", 3)
    images = labelled("imagenet-100")
    assert images.classes == ("name of n01", "name of n02", "name of n03")
    assert [level(image) for image in images] == [10, 11, 20, 21, 30, 31, 101, 102, 103, 104]
    assert images.labels.tolist() == [2, 2, 0, 0, 1, 1, 0, 2, 1, 0]
    assert images.official_test.tolist() == [False] * 6 + [True] * 4
    assert images.item_name(0).endswith("ILSVRC2012_img_train.tar:n03_0.JPEG")
    assert len(set(images.content_hashes())) == 10
    monkeypatch.setattr(imagenet_module, "CLASSES", 2)
    fewer = labelled("imagenet-100")
    kept = [c for c in images.classes if c in fewer.classes]
    assert len(kept) == 2
    assert fewer.classes == tuple(kept)
    expected = [images.classes[label] in kept for label in images.labels]
    assert [level(image) for image in fewer] == [
        level(image) for image, is_kept in zip(images, expected, strict=True) if is_kept
    ]


def test_imagenet_is_checked_once(imagenet, monkeypatch):
    monkeypatch.setattr(imagenet_module, "CLASSES", 3)
    labelled("imagenet-100")
    monkeypatch.setattr(files, "md5_of", lambda path: pytest.fail("summed again"))
    labelled("imagenet-100")


def test_a_damaged_imagenet_archive_is_refused(imagenet):
    labelled("imagenet-100")
    with imagenet[1].open("r+b") as file:
        file.seek(700)
        file.write(b"damage")
    with pytest.raises(DataUnavailable, match=r"ILSVRC2012_img_val\.tar: MD5 is .*, expected"):
        labelled("imagenet-100")


@pytest.fixture
def nus_wide(data, monkeypatch):
    """Four images and 23 concepts: c00, c01 ... each with more images than the next, two with none.

    Images 0, 2, 3 have the first 21, 14, 7 concepts, image 1 has none of the frequent ones.
    """
    folder = data / "nus-wide"
    (folder / "ImageList").mkdir(parents=True)
    (folder / "Groundtruth/AllLabels").mkdir(parents=True)
    files = [f"sea\\{i:04}_9.jpg" for i in range(4)]
    (folder / "ImageList/Imagelist.txt").write_text("".join(f"{file} \r\n" for file in files))
    (folder / "ImageList/TestImagelist.txt").write_text(files[0])
    for c in range(23):
        has = [int(c < 21), int(c == 21), int(c < 14), int(c < 7)]
        path = folder / f"Groundtruth/AllLabels/Labels_c{c:02}.txt"
        path.write_text("".join(f"{value}\n" for value in has))
    (folder / "Flickr/sea").mkdir(parents=True)
    for i in range(4):
        (folder / f"Flickr/sea/{i:04}_9.jpg").write_bytes(jpeg(40 + i))
    monkeypatch.setattr(named, "NUS_WIDE_IMAGES", 4)
    return folder


def test_nus_wide(nus_wide):
    images = labelled("nus-wide")
    assert images.classes == tuple(f"c{c:02}" for c in range(21))
    assert images.labels.dtype == np.bool_
    assert images.labels.sum(axis=1).tolist() == [21, 14, 7]
    assert [level(image) for image in images] == [40, 42, 43]
    assert images.item_name(1) == str(nus_wide / "Flickr/sea/0002_9.jpg")


def test_nus_wide_where_a_photo_is_no_longer_had(nus_wide):
    (nus_wide / "Flickr/sea/0000_9.jpg").unlink()
    images = labelled("nus-wide", skip_corrupt=True)
    assert images.labels.sum(axis=1).tolist() == [14, 7]
    assert [item for item, _ in images.skipped] == [str(nus_wide / "Flickr/sea/0000_9.jpg")]


def test_nus_wide_lists_of_other_lengths(nus_wide):
    path = nus_wide / "Groundtruth/AllLabels/Labels_c03.txt"
    path.write_text("1\n0\n1\n")
    with pytest.raises(InputError, match=r"Labels_c03\.txt: got 3 values, .* 4 images in"):
        labelled("nus-wide")
    path.write_text("1\n0\n2\n0\n")
    with pytest.raises(InputError, match=r"Labels_c03\.txt: got 4 values, expected a 0 or 1"):
        labelled("nus-wide")
    path.unlink()
    (nus_wide / "Groundtruth/AllLabels/Labels_c04.txt").unlink()
    (nus_wide / "Groundtruth/AllLabels/Labels_c05.txt").unlink()
    with pytest.raises(DataUnavailable, match="and 20 files AllLabels"):
        labelled("nus-wide")


def test_nus_wide_with_half_a_list(nus_wide):
    path = nus_wide / "ImageList/Imagelist.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(DataUnavailable, match=r"Imagelist\.txt: got 2 images, expected the 4 that"):
        labelled("nus-wide")


def test_nus_wide_without_photos(nus_wide):
    (nus_wide / "Flickr").rename(nus_wide / "elsewhere")
    with pytest.raises(DataUnavailable, match=r"none of its images, as sea/0000_9\.jpg, is in"):
        labelled("nus-wide")
    (nus_wide / "elsewhere").rename(nus_wide / "images")
    assert level(labelled("nus-wide")[0]) == 40


def test_awa2(data, monkeypatch):
    for i, name in enumerate(["grizzly+bear", "antelope"]):
        folder = data / "Animals_with_Attributes2/JPEGImages" / name
        folder.mkdir(parents=True)
        (folder / f"{name}_10001.jpg").write_bytes(jpeg(50 + i))
    with pytest.raises(DataUnavailable, match="got 2 images of 2 classes, expected 37,322 of 50"):
        labelled("awa2")
    monkeypatch.setattr(named, "AWA2_CLASSES", 2)
    monkeypatch.setattr(named, "AWA2_IMAGES", 2)
    images = labelled("awa2")
    assert images.name == "awa2"
    assert images.classes == ("antelope", "grizzly+bear")
    assert [level(image) for image in images] == [51, 50]

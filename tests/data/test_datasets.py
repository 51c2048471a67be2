from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from faiss_dmih.data import DATASETS, DataUnavailable, InputError, datasets, load_dataset, located


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty data folder, and an empty cache."""
    monkeypatch.setenv("FAISS_DMIH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(header + array.tobytes())


def test_digits_need_no_file(folder):
    assert located("digits") == []
    digits = load_dataset("digits")
    assert digits.train.shape == (1500, 8, 8)
    assert digits.test.shape == (297, 8, 8)
    assert digits.train.dtype == np.uint8
    assert digits.is_images
    assert digits.train.max() == 16
    assert set(digits.test_labels) == set(range(10))
    np.testing.assert_array_equal(digits.train, load_dataset("digits").train)


def test_an_unknown_name_lists_the_known(folder):
    with pytest.raises(InputError, match="unknown data set 'mnist'; known are fashion-mnist, "):
        load_dataset("mnist")


@pytest.mark.parametrize("name", ["cifar10-jpeg", "cifar10-features"])
def test_what_has_no_download_says_what_to_do(folder, name):
    assert located(name) is None
    with pytest.raises(DataUnavailable, match="FAISS_DMIH_DATA") as caught:
        load_dataset(name)
    assert str(folder) in str(caught.value)


def test_fashion_mnist_from_npz(folder, rng):
    arrays = {
        "x_train": rng.integers(0, 256, (6, 28, 28), dtype=np.uint8),
        "y_train": np.arange(6, dtype=np.uint8),
        "x_test": rng.integers(0, 256, (2, 28, 28), dtype=np.uint8),
        "y_test": np.arange(2, dtype=np.uint8),
    }
    np.savez(folder / "fashion_mnist.npz", **arrays)
    assert located("fashion-mnist") == [folder / "fashion_mnist.npz"]
    loaded = load_dataset("fashion-mnist")
    np.testing.assert_array_equal(loaded.train, arrays["x_train"])
    np.testing.assert_array_equal(loaded.test_labels, [0, 1])
    assert loaded.test_labels.dtype == np.int64


def test_fashion_mnist_from_the_official_files(folder, rng, monkeypatch):
    arrays = {
        "train": rng.integers(0, 256, (5, 28, 28), dtype=np.uint8),
        "train_labels": np.arange(5, dtype=np.uint8),
        "test": rng.integers(0, 256, (3, 28, 28), dtype=np.uint8),
        "test_labels": np.arange(3, dtype=np.uint8),
    }
    remotes = {}
    for part, array in arrays.items():
        remote = datasets.FASHION_FILES[part]
        source = folder.parent / remote.name
        source.write_bytes(idx(array))
        remotes[part] = datasets.Remote(remote.name, source.as_uri(), md5(source))
    monkeypatch.setattr(datasets, "FASHION_FILES", remotes)
    assert located("fashion-mnist") is None
    loaded = load_dataset("fashion-mnist")  # downloads into the cache
    assert located("fashion-mnist") is not None
    np.testing.assert_array_equal(loaded.train, arrays["train"])
    np.testing.assert_array_equal(loaded.test, arrays["test"])
    np.testing.assert_array_equal(loaded.train_labels, arrays["train_labels"])
    np.testing.assert_array_equal(loaded.test_labels, arrays["test_labels"])


def test_something_else_than_idx_is_refused(folder):
    path = folder / "x.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x05abc"))
    with pytest.raises(DataUnavailable, match="not an IDX file"):
        datasets._read_idx(path)


def cifar_archive(path, rng, batch_of):
    with tarfile.open(path, "w:gz") as archive:
        for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
            raw = batch_of(rng)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))


def python2_string(value):
    return b"T" + len(value).to_bytes(4, "little") + value


def cifar_batch(rng):
    """A batch as Python 2 pickled the official ones: byte strings, numpy.core, protocol 2."""
    data = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
    dtype = b"cnumpy\ndtype\n" + python2_string(b"u1") + b"K\0K\1\x87R"
    dtype_state = b"(K\3" + python2_string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85"
    array = empty + python2_string(b"b") + b"\x87R"
    state = b"(K\1K\4M\0\x0c\x86" + dtype + dtype_state + b"\x89"
    array += state + python2_string(data.tobytes()) + b"tb"
    labels = b"](K\3K\1K\4K\1e"
    entries = python2_string(b"data") + array + python2_string(b"labels") + labels
    return b"\x80\2}(" + entries + b"u."


def use_archive(monkeypatch, path):
    remote = datasets.Remote(path.name, "http://127.0.0.1:9/", md5(path))
    monkeypatch.setattr(datasets, "CIFAR10_FILE", remote)


def test_cifar10_from_the_official_archive(folder, monkeypatch):
    path = folder / "cifar-10-python.tar.gz"
    cifar_archive(path, np.random.default_rng(5), cifar_batch)
    use_archive(monkeypatch, path)
    loaded = load_dataset("cifar10")
    assert loaded.train.shape == (20, 32, 32, 3)
    assert loaded.test.shape == (4, 32, 32, 3)
    assert loaded.train_labels.tolist() == [3, 1, 4, 1] * 5
    # A row of the archive holds the red plane, then green, then blue, each row by row.
    row = np.random.default_rng(5).integers(0, 256, (4, 3072), dtype=np.uint8)[2]
    assert loaded.train[2, 7, 9].tolist() == [row[7 * 32 + 9 + plane * 1024] for plane in range(3)]


def test_a_pickle_that_imports_is_refused(folder, monkeypatch):
    path = folder / "cifar-10-python.tar.gz"
    cifar_archive(path, None, lambda _: pickle.dumps(eval))
    use_archive(monkeypatch, path)
    with pytest.raises(pickle.UnpicklingError, match=r"unexpected builtins\.eval"):
        load_dataset("cifar10")


def test_cifar10_jpeg(folder):
    # Two images that share a header, as all images written with the same settings do.
    colours = np.array([[200, 30, 60], [10, 180, 90]], dtype=np.uint8)
    files = []
    for colour in colours:
        buffer = io.BytesIO()
        Image.fromarray(np.broadcast_to(colour, (32, 32, 3)).copy()).save(buffer, "JPEG")
        files.append(buffer.getvalue())
    scan = files[0].index(b"\xff\xda")
    header = files[0][:scan]
    assert files[1][:scan] == header
    bodies = [file[scan:-2] for file in files]
    np.savez(
        folder / "cifar10_jpeg60k.npz",
        header=np.frombuffer(header, np.uint8),
        payload=np.frombuffer(b"".join(bodies), np.uint8),
        offsets=np.cumsum([0, *map(len, bodies)]).astype(np.uint32),
        y=np.array([6, 9], np.uint8),
        n_train=np.int64(1),
    )
    loaded = load_dataset("cifar10-jpeg")
    assert loaded.train_labels.tolist() == [6]
    assert loaded.test_labels.tolist() == [9]
    for image, colour in zip((loaded.train[0], loaded.test[0]), colours, strict=True):
        assert np.abs(image.astype(int) - colour).max() <= 4


def test_cifar10_features(folder, rng):
    q = rng.integers(0, 256, (5, 512), dtype=np.uint8)
    scale = rng.random(512, dtype=np.float32)
    np.savez(
        folder / "cifar10_squeezenet_gap512_u8.npz",
        q=q,
        scale=scale,
        y=np.arange(5, dtype=np.uint8),
        n_train=np.int64(3),
    )
    loaded = load_dataset("cifar10-features")
    assert not loaded.is_images
    assert loaded.train.dtype == np.float32
    np.testing.assert_array_equal(loaded.test, q[3:] * scale)
    assert loaded.train_labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("content", [b"not a zip", b""])
def test_a_file_that_is_no_npz_is_named(folder, content):
    (folder / "fashion_mnist.npz").write_bytes(content)
    with pytest.raises(DataUnavailable, match=r"fashion_mnist\.npz: not an \.npz file"):
        load_dataset("fashion-mnist")


def test_every_data_set_says_where_it_would_lie():
    assert set(datasets.LOCAL_FILES) == set(DATASETS)

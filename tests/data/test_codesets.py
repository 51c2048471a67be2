from __future__ import annotations

import numpy as np
import pytest

from faiss_dmih.data import (
    GENERATORS,
    HELD_OUT,
    NEAR_DUPLICATE,
    PLANTED,
    InputError,
    cache_dir,
    codesets,
    dataset_codes,
    file_codes,
    synthetic_codes,
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty data folder, and an empty cache."""
    monkeypatch.setenv("FAISS_DMIH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def distances(a, b):
    return np.unpackbits(a[:, None] ^ b[None], axis=2).sum(axis=2, dtype=int)


def write_features(folder, n):
    """The features' file with `n` random items, all but 50 of them for training."""
    rng = np.random.default_rng(n)
    np.savez(
        folder / "cifar10_squeezenet_gap512_u8.npz",
        q=rng.integers(0, 256, (n, 512), dtype=np.uint8),
        scale=np.ones(512, np.float32),
        y=np.zeros(n, np.uint8),
        n_train=np.int64(n - 50),
    )


def assert_same(a, b):
    np.testing.assert_array_equal(a.xb, b.xb)
    assert a.queries.keys() == b.queries.keys()
    for kind in a.queries:
        np.testing.assert_array_equal(a.queries[kind], b.queries[kind])


# Synthetic codes


def test_uniform_codes_are_fair_coins():
    codes = synthetic_codes("uniform", bits=64, n=4000, nq=10, seed=3)
    assert codes.xb.shape == (4000, 8)
    assert codes.xb.dtype == np.uint8
    assert codes.d == 64
    means = np.unpackbits(codes.xb, axis=1).mean(axis=0)
    assert np.abs(means - 0.5).max() < 0.05


@pytest.mark.parametrize("bits", [8, 64, 256])
def test_planted_queries_lie_a_sixteenth_of_the_bits_away(bits):
    codes = synthetic_codes("uniform", bits=bits, n=300, nq=50, seed=0)
    to_codes = distances(codes.queries[PLANTED], codes.xb)
    assert (to_codes == bits // 16).any(axis=1).all()
    if bits >= 64:
        assert to_codes.min(axis=1).tolist() == [bits // 16] * 50


def test_clustered_codes_are_near_their_centres():
    codes = synthetic_codes("clustered", bits=128, n=2560, nq=20, seed=0)
    nearest = distances(codes.queries[HELD_OUT], codes.xb).min(axis=1)
    # Two codes of a cluster differ in 2 * 0.1 * 0.9 of the bits on average, others in half.
    assert nearest.max() < 32
    assert distances(codes.xb[:100], codes.xb[:100]).mean() > 50


def test_planted_queries_lie_as_far_away_as_asked():
    codes = synthetic_codes("uniform", bits=64, n=300, nq=50, seed=0, flips=7)
    assert distances(codes.queries[PLANTED], codes.xb).min(axis=1).tolist() == [7] * 50
    assert codes.info == {"seed": 0, "flips": 7}


def test_perceptual_hashes_have_versions():
    codes = synthetic_codes("perceptual", bits=256, n=2000, nq=100, seed=0, copied=0.4, flips=20)
    among = distances(codes.xb, codes.xb) + 256 * np.eye(len(codes.xb), dtype=int)
    to_next = among.min(axis=1)
    # Versions and the images they are made of; the other images are strangers to each other.
    assert 0.4 < (to_next <= 31).mean() < 0.8
    assert to_next[to_next > 31].min() > 64
    assert ((among <= 31).sum(axis=1) > 5).any()
    near = distances(codes.queries[NEAR_DUPLICATE], codes.xb).min(axis=1)
    assert near.max() <= 40
    assert 0 <= near.min() < 5 < near.max()
    assert distances(codes.queries[HELD_OUT], codes.xb).min() > 64


def test_learned_codes_are_few_and_unbalanced():
    codes = synthetic_codes("learned", bits=64, n=20_000, nq=400, seed=0, classes=5, distinct=300)
    values, counts = np.unique(codes.xb, axis=0, return_counts=True)
    assert 200 < len(values) <= 300
    # The largest class has 1 / (1 + 1/2 + .. + 1/5) of the images, its first code a fifth of that.
    assert 1500 < counts.max() < 2500
    apart = distances(values, values)
    assert 0.1 < (apart < 20).mean() < 0.3  # one class in five is one's own
    nearest = distances(codes.queries[HELD_OUT], values).min(axis=1)
    assert 0.4 < (nearest == 0).mean() < 0.8
    assert nearest.max() < 16


def test_zipf_clusters_have_very_different_sizes():
    codes = synthetic_codes("zipf-clusters", bits=256, n=5000, nq=100, seed=0, clusters=10)
    near = distances(codes.queries[HELD_OUT], codes.xb) < 80
    # Two codes of a cluster differ in 2 / 8 * 7 / 8 of the bits, others in half.
    sizes = np.unique(near.sum(axis=1)) / 5000
    share = 1 / np.arange(1, 11) / sum(1 / np.arange(1, 11))
    assert sizes.max() == pytest.approx(share[0], rel=0.1)
    assert sizes.min() < share[5]


def test_equal_codes_are_equal():
    codes = synthetic_codes("equal", bits=64, n=100, nq=10, seed=0)
    assert len(np.unique(codes.xb, axis=0)) == 1
    assert len(np.unique(codes.queries[HELD_OUT], axis=0)) == 10


def test_one_bit_is_constant():
    codes = synthetic_codes("constant-bit", bits=64, n=1000, nq=100, seed=0)
    means = np.unpackbits(codes.xb, axis=1, bitorder="little").mean(axis=0)
    assert means[0] == 1.0
    assert np.abs(means[1:] - 0.5).max() < 0.1
    assert 0.3 < (codes.queries[HELD_OUT][:, 0] & 1).mean() < 0.7


def test_far_queries_are_far_from_every_code():
    codes = synthetic_codes("far", bits=128, n=1000, nq=50, seed=0)
    assert distances(codes.queries[HELD_OUT], codes.xb).min() > 80
    assert (distances(codes.queries[HELD_OUT], codes.xb).max(axis=1) == 128).all()


def test_half_of_the_codes_share_a_substring():
    codes = synthetic_codes("one-bucket", bits=64, n=2000, nq=200, seed=0, shared=20)
    for array in (codes.xb, codes.queries[HELD_OUT]):
        prefix = np.unpackbits(array, axis=1, bitorder="little")[:, :20]
        assert 0.4 < (prefix == 0).all(axis=1).mean() < 0.6
        assert len(np.unique(array[:, 3:], axis=0)) > 0.99 * len(array)


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_keeps_its_promises(name):
    generator = GENERATORS[name]
    codes = synthetic_codes(name, bits=48, n=300, nq=20, seed=0)
    assert (codes.xb.shape, codes.xb.dtype) == ((300, 6), np.uint8)
    assert codes.xb.flags.c_contiguous
    assert tuple(codes.queries) == generator.kinds
    assert all(xq.shape == (20, 6) for xq in codes.queries.values())
    tiny = synthetic_codes(name, bits=8, n=1, nq=1, seed=0)
    assert tiny.xb.shape == (1, 1)


def test_unknown_options_are_named():
    with pytest.raises(InputError, match="learned has no option 'flips'; its options are: classes"):
        synthetic_codes("learned", bits=64, n=5, nq=5, seed=0, flips=3)


@pytest.mark.parametrize("name", GENERATORS)
def test_seeds_decide(name):
    kwargs = {"bits": 64, "n": 500, "nq": 20}
    assert_same(synthetic_codes(name, **kwargs, seed=1), synthetic_codes(name, **kwargs, seed=1))
    other = synthetic_codes(name, **kwargs, seed=2)
    assert (other.xb != synthetic_codes(name, **kwargs, seed=1).xb).any()


@pytest.mark.parametrize("bits", [0, -8, 60, 4104])
def test_bits_are_checked(bits):
    with pytest.raises(InputError, match=f"multiple of 8 from 8 to 4096, got {bits}"):
        synthetic_codes("uniform", bits=bits, n=5, nq=5, seed=0)


def test_unknown_synthetic_name():
    with pytest.raises(InputError, match="known are uniform, clustered"):
        synthetic_codes("gaussian", bits=64, n=5, nq=5, seed=0)


# Named data sets


def test_digits_at_their_own_size():
    codes = dataset_codes("digits", bits=64)
    assert codes.xb.shape == (1500, 8)
    assert {kind: len(xq) for kind, xq in codes.queries.items()} == {
        HELD_OUT: 297,
        NEAR_DUPLICATE: 297,
    }
    assert codes.info["views_per_item"] == 1
    assert codes.info["distinct_codes"] == len(np.unique(codes.xb, axis=0))


def test_views_make_more_items_and_begin_with_the_originals():
    small = dataset_codes("digits", bits=64)
    large = dataset_codes("digits", bits=64, n=4000)
    assert large.xb.shape == (4000, 8)
    assert large.info["views_per_item"] == 3
    np.testing.assert_array_equal(large.xb[:1500], small.xb)
    views = np.unpackbits(large.xb[1500:3000] ^ large.xb[:1500], axis=1).sum(axis=1)
    strangers = np.unpackbits(large.xb[1501:3000] ^ large.xb[:1499], axis=1).sum(axis=1)
    assert 0 < views.mean() < strangers.mean()
    assert (large.xb[1500:3000] != large.xb[:1500]).any()
    np.testing.assert_array_equal(large.queries[HELD_OUT], small.queries[HELD_OUT])


def test_near_duplicates_are_nearer_than_new_items(folder):
    write_features(folder, 400)
    codes = dataset_codes("cifar10-features", bits=64, method="lsh", nq=50)
    near, new = (
        distances(codes.queries[kind], codes.xb).min(axis=1).mean()
        for kind in (NEAR_DUPLICATE, HELD_OUT)
    )
    assert near < 10 < new


@pytest.mark.parametrize(
    ("method", "bits"),
    [("itq", 32), ("itq", 64), ("itq", 128), ("lsh", 32), ("lsh", 128), ("sign", 64)],
)
def test_binarised_neighbours_are_neighbours(method, bits):
    codes = dataset_codes("digits", bits=bits, method=method, nq=100)
    assert codes.xb.shape == (1500, bits // 8)
    from faiss_dmih.data import load_dataset

    digits = load_dataset("digits")
    order = np.random.default_rng([0, codesets.MAX_VIEWS]).permutation(297)[:100]
    nearest = distances(codes.queries[HELD_OUT], codes.xb).argmin(axis=1)
    right = digits.train_labels[nearest] == digits.test_labels[order]
    assert right.mean() > 0.75


def test_sign_needs_as_many_bits_as_features():
    with pytest.raises(InputError, match="64 features and 32 bits"):
        dataset_codes("digits", bits=32, method="sign")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n": 48_001}, r"between 1 and 48,000 available, got 48,001"),
        ({"nq": 298}, r"queries must be between 1 and 297 available, got 298"),
        ({"method": "pca"}, "known are sign, lsh, itq"),
        ({"bits": 12}, "multiple of 8"),
    ],
)
def test_impossible_requests_say_what_is_possible(kwargs, message):
    with pytest.raises(InputError, match=message):
        dataset_codes("digits", **({"bits": 64} | kwargs))


def test_unknown_data_set_lists_the_known():
    with pytest.raises(InputError, match=r"unknown data set 'mnist'; known are .*digits.*uniform"):
        dataset_codes("mnist", bits=64)


# The cache of codes


@pytest.fixture
def counted(monkeypatch):
    """Counts how often a data set is loaded."""
    calls = []
    original = codesets.load_dataset
    monkeypatch.setattr(
        codesets, "load_dataset", lambda *args: calls.append(args[0]) or original(*args)
    )
    return calls


def test_codes_are_made_once(counted):
    first = dataset_codes("digits", bits=64, method="lsh")
    again = dataset_codes("digits", bits=64, method="lsh")
    assert counted == ["digits"]
    assert_same(first, again)
    assert first.info == again.info


@pytest.mark.parametrize(
    "change", [{"bits": 32}, {"n": 700}, {"nq": 5}, {"method": "itq"}, {"seed": 1}]
)
def test_every_parameter_has_codes_of_its_own(counted, change):
    base = {"bits": 64, "method": "lsh"}
    first = dataset_codes("digits", **base)
    other = dataset_codes("digits", **(base | change))
    assert len(counted) == 2
    queries = [codes.queries[HELD_OUT] for codes in (first, other)]
    assert not (np.array_equal(first.xb, other.xb) and np.array_equal(*queries))


def test_a_changed_source_file_is_noticed(counted, folder):
    for n in (150, 170):
        write_features(folder, n)
        codes = dataset_codes("cifar10-features", bits=64, n=200, method="lsh")
        assert codes.info["items"] == n - 50
        assert codes.info["views_per_item"] == 2
    assert len(counted) == 2


@pytest.mark.parametrize("damage", [b"", b"no zip file", None])
def test_a_damaged_cache_file_is_made_anew(counted, damage):
    first = dataset_codes("digits", bits=64, method="lsh")
    (path,) = (cache_dir() / "codes").iterdir()
    path.write_bytes(path.read_bytes()[:2000] if damage is None else damage)
    assert_same(first, dataset_codes("digits", bits=64, method="lsh"))
    assert counted == ["digits", "digits"]
    dataset_codes("digits", bits=64, method="lsh")
    assert len(counted) == 2


def test_an_interrupted_computation_leaves_no_file(monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(codesets.np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dataset_codes("digits", bits=64, method="lsh")
    assert list((cache_dir() / "codes").iterdir()) == []


# Files


@pytest.fixture
def rows():
    return np.random.default_rng(0).integers(0, 256, (300, 8), dtype=np.uint8)


def test_npy_codes_are_split_into_database_and_queries(tmp_path, rows):
    np.save(tmp_path / "mine.npy", rows)
    codes = file_codes(tmp_path / "mine.npy", nq=40)
    assert codes.name == "mine"
    assert codes.xb.shape == (260, 8)
    together = np.concatenate([codes.xb, codes.queries[HELD_OUT]])
    np.testing.assert_array_equal(np.unique(together, axis=0), np.unique(rows, axis=0))
    assert distances(codes.queries[HELD_OUT], codes.xb).min() > 0
    assert_same(codes, file_codes(tmp_path / "mine.npy", nq=40))


def test_npz_with_xb_and_xq(tmp_path, rows):
    np.savez(tmp_path / "both.npz", xb=rows[:200], xq=rows[200:], note=np.array("hello"))
    codes = file_codes(tmp_path / "both.npz", n=150, nq=30)
    np.testing.assert_array_equal(codes.xb, rows[:150])
    np.testing.assert_array_equal(codes.queries[HELD_OUT], rows[200:230])


def test_npz_with_a_single_table(tmp_path, rows):
    np.savez(tmp_path / "one.npz", codes=rows, labels=np.arange(300))
    assert file_codes(tmp_path / "one.npz", nq=20).n == 280


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_vectors_are_binarised(tmp_path, dtype):
    x = np.random.default_rng(0).standard_normal((400, 20)).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    codes = file_codes(tmp_path / "x.npy", bits=16, nq=50)
    assert codes.xb.shape == (350, 2)
    assert codes.info["binarize"] == "itq"
    assert file_codes(tmp_path / "x.npy", nq=50).d == 64


def write(path, content):
    if isinstance(content, dict):
        np.savez(path, **content)
    elif isinstance(content, np.ndarray):
        np.save(path, content)
    else:
        path.write_bytes(content)


CODES = np.zeros((50, 8), np.uint8)


@pytest.mark.parametrize(
    ("name", "content", "kwargs", "message"),
    [
        ("a.npy", b"plain text", {}, r"not a \.npy or \.npz file of codes"),
        ("a.npy", b"", {}, r"not a \.npy or \.npz file of codes"),
        ("a.npz", b"PK\x03\x04 broken", {}, r"not a \.npy or \.npz file of codes"),
        ("a.npy", np.array([{"a": 1}], dtype=object), {}, "allow_pickle"),
        ("a.npy", CODES.astype(np.int64), {}, "got dtype int64, expected uint8"),
        ("a.npy", CODES.astype(bool), {}, "packbits"),
        ("a.npy", CODES[0], {}, r"got shape \(8,\), expected two axes"),
        ("a.npy", CODES[:0], {}, r"got shape \(0, 8\)"),
        ("a.npy", np.full((50, 4), np.nan), {}, "NaN or infinite"),
        ("a.npy", CODES[:1], {}, "at least 2 rows"),
        ("a.npy", CODES, {"bits": 128}, "have 64 bits, but 128 were asked for"),
        ("a.npy", np.zeros((9, 600), np.uint8), {}, "from 8 to 4096, got 4800"),
        ("a.npy", CODES, {"n": 41, "nq": 10}, "n must be between 1 and 40 available, got 41"),
        ("a.npy", CODES, {"nq": 50}, "queries must be between 1 and 49 available, got 50"),
        ("a.npy", CODES.astype(float), {"method": "pca"}, "unknown binarisation 'pca'"),
        ("a.npz", {"a": CODES, "b": CODES}, {}, r"got a uint8\(50, 8\), b uint8\(50, 8\)"),
        ("a.npz", {}, {}, "got none"),
        ("a.npz", {"xb": CODES, "xq": CODES[:, :4]}, {}, "they must agree"),
        ("a.npz", {"xb": CODES, "xq": CODES[:3]}, {"nq": 4}, "between 1 and 3 available, got 4"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, content, kwargs, message):
    write(tmp_path / name, content)
    with pytest.raises(InputError, match=message):
        file_codes(tmp_path / name, **kwargs)


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.npy", tmp_path):
        with pytest.raises(InputError, match="no such file"):
            file_codes(path)

"""Encoder and index together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import quick, vectors

from faiss_dmih import IndexDMIH, codes, reference
from faiss_dmih.encoded import EncodedIndex, StaleCodes
from faiss_dmih.encoders import DMIH, EnsembleDSH

X, LABELS = vectors()
NEW, _ = vectors(30, seed=7)


@pytest.fixture(scope="module")
def encoder() -> Any:
    return DMIH(16, n=240, backbone="features", training=quick()).fit(X, LABELS)


def ensemble() -> Any:
    return EnsembleDSH(32, backbone="features", training=quick(epochs=1)).fit(X, LABELS)


def test_as_an_index_of_its_codes(encoder: Any) -> None:
    index = EncodedIndex(encoder)
    assert index.index.cuts == encoder.cuts
    ids = np.arange(240)[::-1] * 7
    index.add(X[:100], ids[:100])
    index.add(X[100:], ids[100:])
    xb, xq = encoder.encode(X), encoder.encode(NEW)
    D, I = index.search(NEW, 250)
    expected_D, at = reference.knn(xb, xq, 250)
    np.testing.assert_array_equal(D, expected_D)
    np.testing.assert_array_equal(I, np.append(ids, -1)[at])
    lims, D_range, I_range = index.range_search(NEW, 4)
    expected = reference.range_search(xb, xq, 4)
    for got, want in zip((lims, D_range, I_range), (*expected[:2], ids[expected[2]]), strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(index.ids, ids)


def test_ids_count_on(encoder: Any) -> None:
    index = EncodedIndex(encoder, IndexDMIH(16))
    index.add(X[:10])
    index.add(X[10:30])
    np.testing.assert_array_equal(index.ids, np.arange(30))


def test_names(encoder: Any, tmp_path: Path) -> None:
    """Kept with the items, saved with them, and given to all or to none."""
    index = EncodedIndex(encoder)
    assert index.names is None
    index.add(X[:2], names=["a", "b"])
    with pytest.raises(ValueError, match="the 2 items have names, got items without names"):
        index.add(X[:1])
    with pytest.raises(ValueError, match="names: got 2, expected 3"):
        index.add(X[:3], names=["c", "d"])
    index.add(X[2:3], names=["ü"])
    assert (index.ntotal, index.names) == (3, ["a", "b", "ü"])
    index.save(tmp_path / "index")
    assert EncodedIndex.load(tmp_path / "index").names == ["a", "b", "ü"]
    (tmp_path / "index" / "names.json").write_text("[]")
    with pytest.raises(ValueError, match=r"names\.json holds 0 names, expected 3"):
        EncodedIndex.load(tmp_path / "index")
    nameless = EncodedIndex(encoder)
    nameless.add(X[:2])
    with pytest.raises(ValueError, match="the 2 items have no names, got items with names"):
        nameless.add(X[:1], names=["a"])


def test_reranking(encoder: Any) -> None:
    """Among the nearest by codes, by relaxed codes or features, in plain loops."""
    index = EncodedIndex(encoder)
    index.add(X, np.arange(240) + 5)
    h = encoder.relaxed(NEW)
    b = 2.0 * codes.unpack(encoder.encode(X)) - 1
    _, at = reference.knn(encoder.encode(X), encoder.encode(NEW), 40)
    for features, queries in ((None, None), (X, NEW)):
        D, I = index.rerank(NEW, 6, candidates=40, features=features, queries=queries)
        for q in range(len(NEW)):
            finer = [
                (
                    np.float32(
                        ((h[q] - b[i]) ** 2).sum() / 4
                        if features is None
                        else ((NEW[q] - X[i]) ** 2).sum()
                    ),
                    i,
                )
                for i in at[q]
            ]
            best = sorted(finer)[:6]
            np.testing.assert_allclose(D[q], [distance for distance, _ in best], rtol=1e-5)
            assert I[q].tolist() == [i + 5 for _, i in best]
    D, I = index.rerank(NEW, 300, candidates=300)
    assert (I[:, 240:] == -1).all()
    assert np.isinf(D[:, 240:]).all()
    with pytest.raises(ValueError, match="got k = 5 of 4 candidates"):
        index.rerank(NEW, 5, candidates=4)
    with pytest.raises(ValueError, match="go together"):
        index.rerank(NEW, 5, candidates=9, features=X)
    with pytest.raises(ValueError, match="got features of 239 items and 30 queries, expected 240"):
        index.rerank(NEW, 5, candidates=9, features=X[1:], queries=NEW)


def test_stale_codes_are_found_and_made_anew() -> None:
    """After update() one sub-model's bits, after extend() the new ones, and nothing else."""
    encoder = ensemble()
    index = EncodedIndex(encoder)
    index.add(X)
    assert index.upgrade(X) == 0
    encoder.update(*vectors(60, seed=9))
    for use in (
        lambda: index.search(NEW, 1),
        lambda: index.range_search(NEW, 1),
        lambda: index.add(NEW),
        lambda: index.rerank(NEW, 1, candidates=2),
    ):
        with pytest.raises(StaleCodes, match=r"sub-models \[0\] of the encoder.*240 codes"):
            use()
    with pytest.raises(ValueError, match="got 239 items, expected the 240"):
        index.upgrade(X[1:])
    assert index.upgrade(X) == 16
    encoder.extend(64, X, LABELS)
    with pytest.raises(StaleCodes, match=r"sub-models \[2, 3\]"):
        index.search(NEW, 1)
    assert index.upgrade(X) == 32
    expected = reference.knn(encoder.encode(X), encoder.encode(NEW), 9)
    for got, want in zip(index.search(NEW, 9), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_there_and_back(tmp_path: Path) -> None:
    encoder = ensemble()
    index = EncodedIndex(encoder)
    index.add(X, np.arange(240) * 3)
    index.save(tmp_path / "index")
    index.save(tmp_path / "index")
    loaded = EncodedIndex.load(tmp_path / "index")
    for got, want in zip(loaded.search(NEW, 9), index.search(NEW, 9), strict=True):
        np.testing.assert_array_equal(got, want)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    # Stale codes are still so after they have been saved.
    encoder.extend(48, X, LABELS)
    index.save(tmp_path / "index")
    loaded = EncodedIndex.load(tmp_path / "index")
    with pytest.raises(StaleCodes):
        loaded.search(NEW, 9)
    loaded.upgrade(X)
    assert loaded.search(NEW, 9)[1].shape == (30, 9)


def test_what_is_refused(encoder: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="for codes of 32 bits, the encoder makes 16"):
        EncodedIndex(encoder, IndexDMIH(32))
    full = IndexDMIH(16)
    full.add(np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="an index of 2 codes, expected an empty one"):
        EncodedIndex(encoder, full)
    index = EncodedIndex(encoder)
    with pytest.raises(ValueError, match=r"ids: got int64 \(3,\), expected integers \(2,\)"):
        index.add(X[:2], [1, 2, 3])
    assert index.ntotal == index.index.ntotal == 0
    with pytest.raises(FileNotFoundError, match=r"no index\.json"):
        EncodedIndex.load(tmp_path)
    index.add(X)
    index.save(tmp_path / "index")
    np.save(tmp_path / "index" / "ids.npy", np.arange(3))
    with pytest.raises(
        ValueError, match=r"codes\.npy holds uint8 \(240, 2\), expected uint8 \(3, 2\)"
    ):
        EncodedIndex.load(tmp_path / "index")
    said = json.loads((tmp_path / "index" / "index.json").read_text())
    (tmp_path / "index" / "index.json").write_text(json.dumps({**said, "version": 9}))
    with pytest.raises(ValueError, match="version 9, expected"):
        EncodedIndex.load(tmp_path / "index")

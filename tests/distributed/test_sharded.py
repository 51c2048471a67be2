"""ShardedIndexDMIH answers as IDMap2(IndexDMIH) over all codes does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import assert_same
from model import Model
from strategies import CODES, Case, make_queries

from faiss_dmih.distributed import CommitConflict, ShardedIndexDMIH, ShardsMissing

pytestmark = [pytest.mark.usefixtures("ray"), pytest.mark.filterwarnings("ignore")]

CASES = [
    Case(d=64, n=3000, nq=30, kind="clustered", seed=1),
    Case(d=32, n=2000, nq=30, kind="all equal", seed=2),
    Case(d=256, n=2, nq=20, kind="duplicates", seed=3),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}-{case.d}-{case.n}")
def test_a_life(case: Case, tmp_path: Path) -> None:
    """Built, searched, changed, committed, opened again: the same all the way."""
    rng, model = np.random.default_rng(case.seed), Model(case.xb)
    ShardedIndexDMIH.build(case.xb, 3, tmp_path / "index")
    index = ShardedIndexDMIH.open(tmp_path / "index", num_cpus=0.1)
    assert (index.d, index.code_size, index.num_shards) == (case.d, case.code_size, 3)
    for turn in range(2):
        for rounds in (1, 2):
            model.assert_equals(index, case.xq, rounds=rounds)
        x = CODES[case.kind](rng, 150, case.code_size)
        ids = index.add(x)
        np.testing.assert_array_equal(ids, ids[0] + np.arange(150))
        model.add(x, ids)
        gone = np.concatenate([rng.integers(0, ids[-1], 200), ids[:3], [-5, 10**15]])
        assert index.remove_ids(gone) == model.remove(gone)
        model.assert_equals(index, case.xq)
        if turn == 0:
            assert index.commit() == 2
            assert index.commit() == 2, "nothing was changed"
            model.assert_equals(index, case.xq, rounds=2)
    index.commit()
    index.close()
    with ShardedIndexDMIH.open(tmp_path / "index", num_cpus=0.1) as index:
        model.assert_equals(index, case.xq)
        assert index.add(x[:1])[0] == ids[-1] + 1, "ids do not come back"


def test_large_adds_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faiss_dmih.distributed.index._TO_ONE_SHARD", 20)
    rng = np.random.default_rng(0)
    xb = rng.integers(0, 256, (60, 8), dtype=np.uint8)
    ShardedIndexDMIH.build(xb, 3, tmp_path)
    with ShardedIndexDMIH.open(tmp_path, num_cpus=0.1) as index:
        model = Model(xb)
        for gone in (np.arange(20), np.arange(20, 25)):
            assert index.remove_ids(gone) == model.remove(gone) == len(gone)
        for n, sizes in [(20, [20, 15, 20]), (30, [29, 28, 28]), (0, [29, 28, 28])]:
            x = rng.integers(0, 256, (n, 8), dtype=np.uint8)
            model.add(x, index.add(x))
            assert sorted(s.ntotal for s in index._shards) == sorted(sizes)
        model.assert_equals(index, xb[:9])


def test_two_rounds_for_near_duplicates(tmp_path: Path) -> None:
    """What the second round is for: one shard has the near code, the others only far ones."""
    rng = np.random.default_rng(0)
    xb = rng.integers(0, 256, (20_000, 16), dtype=np.uint8)
    xq = xb[::400].copy()
    xq[:, 3] ^= 7
    xq[::5] = rng.integers(0, 256, (10, 16), dtype=np.uint8)
    xb[1::400, :] = xb[::400]  # ties
    model = Model(xb)
    ShardedIndexDMIH.build(xb, 4, tmp_path)
    with ShardedIndexDMIH.open(tmp_path, num_cpus=0.1) as index:
        for k in (1, 2, 3):
            assert_same(index.search(xq, k, rounds=2), model.index.search(xq, k))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Any]:
    xb = np.arange(160, dtype=np.uint8).reshape(20, 8)
    ShardedIndexDMIH.build(xb, 2, tmp_path)
    with ShardedIndexDMIH.open(tmp_path, num_cpus=0.1) as index:
        yield index


def test_sources(tmp_path: Path, ray: Any) -> None:
    xb = np.random.default_rng(0).integers(0, 256, (1000, 16), dtype=np.uint8)
    xq = make_queries(np.random.default_rng(1), xb, 10)
    model = Model(xb)
    for number, rows in enumerate(np.split(xb, [300, 301, 301])):
        np.save(tmp_path / f"{number}.npy", rows)
    np.save(tmp_path / "all.npy", xb)
    data = pytest.importorskip("ray.data")
    sources = {
        "files": [tmp_path / f"{number}.npy" for number in range(4)],
        "file": str(tmp_path / "all.npy"),
        "dataset": data.from_numpy([xb[:77], xb[77:]]),
    }
    for name, source in sources.items():
        ShardedIndexDMIH.build(source, 3, tmp_path / name, column="data", cuts=[16] * 8)
        with ShardedIndexDMIH.open(f"file://{tmp_path}/{name}", num_cpus=0.1) as index:
            model.assert_equals(index, xq)
    with pytest.raises(ValueError, match=r"with columns .'data'., expected 'code' among them"):
        ShardedIndexDMIH.build(sources["dataset"], 3, tmp_path / "new")
    floats = data.from_numpy(xb.astype(np.float32))
    with pytest.raises(ValueError, match=r"got .'float32'. rows of shapes"):
        ShardedIndexDMIH.build(floats, 3, tmp_path / "new", column="data")
    with pytest.raises(FileExistsError, match="holds shards already"):
        ShardedIndexDMIH.build(xb, 3, tmp_path / "file")
    assert not (tmp_path / "new").exists()


def test_what_is_refused(small: Any, tmp_path: Path) -> None:
    x = np.zeros((2, 8), np.uint8)
    for method in (small.add, lambda x: small.search(x, 1), lambda x: small.range_search(x, 1)):
        with pytest.raises(ValueError, match="got codes of 9 bytes, expected 8"):
            method(np.zeros((2, 9), np.uint8))
        with pytest.raises(TypeError, match="got dtype float64, expected uint8"):
            method(np.zeros((2, 8)))
    with pytest.raises(ValueError, match="got k = 0"):
        small.search(x, 0)
    with pytest.raises(ValueError, match="got rounds = 3, expected 1 or 2"):
        small.search(x, 1, rounds=3)
    with pytest.raises(TypeError, match="got ids of dtype float64"):
        small.remove_ids([0.5])
    with pytest.raises(ValueError, match=r"got ids of shape \(1, 1\)"):
        small.reconstruct_batch([[1]])
    with pytest.raises(RuntimeError, match="id 77 is not in the index"):
        small.reconstruct_batch([1, 77])
    assert small.reconstruct(19).tolist() == [*range(152, 160)]
    with pytest.raises(FileNotFoundError, match="holds no shards"):
        ShardedIndexDMIH.open(tmp_path / "nothing")
    with pytest.raises(ValueError, match="got replicas = 0"):
        ShardedIndexDMIH.open(tmp_path, replicas=0)
    for shards, options in [(0, {}), (2, {"cuts": [3]}), (2, {"mode": "fast"})]:
        with pytest.raises(ValueError, match=r"num_shards|cuts|mode"):
            ShardedIndexDMIH.build(x, shards, tmp_path / "new", **options)
    with pytest.raises(ShardsMissing, match="have not started within 2 s"):
        ShardedIndexDMIH.open(tmp_path, num_cpus=1000, timeout=2)
    assert small.ntotal == 20


def test_two_that_commit(small: Any, tmp_path: Path) -> None:
    x = np.zeros((2, 8), np.uint8)
    with ShardedIndexDMIH.open(tmp_path, num_cpus=0.1) as other:
        small.add(x)
        other.add(x[:1])
        assert small.commit() == 2
        with pytest.raises(CommitConflict, match="generation 1 was opened"):
            other.commit()
    with ShardedIndexDMIH.open(tmp_path, num_cpus=0.1) as other:
        assert other.ntotal == 22

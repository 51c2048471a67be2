"""FAISS's functions, extended: ours and composites of ours go through, all else is FAISS's."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from checks import assert_same
from strategies import Case

import faiss_dmih
from faiss_dmih import IndexDMIH

CASE = Case(d=64, n=5000, nq=40, kind="clustered", seed=2)
IDS = np.arange(CASE.n) * 7 + 10**12


def filled(n: int = CASE.n) -> IndexDMIH:
    index = IndexDMIH(64)
    index.add(CASE.xb[:n])
    return index


def id_map(cls: Any) -> Any:
    index = cls(IndexDMIH(64))
    index.add_with_ids(CASE.xb, IDS)
    return index


def shards() -> Any:
    index = faiss.IndexBinaryShards(64, True, True)
    for begin in (0, 2000, 4000):
        shard = faiss.IndexBinaryFlat(64) if begin == 4000 else IndexDMIH(64)
        shard.add(CASE.xb[begin : begin + 2000])
        index.add_shard(shard)
    return index


def replicas() -> Any:
    index = faiss.IndexBinaryReplicas(64)
    index.addIndex(filled())
    index.addIndex(filled())
    return index


def inverted_file() -> Any:
    index = faiss.IndexBinaryIVF(filled(16), 64, 16)
    index.is_trained = True
    index.set_direct_map_type(faiss.DirectMap.Hashtable)
    index.add(CASE.xb)
    index.nprobe = 5
    return index


def nested() -> Any:
    outer = faiss.IndexBinaryShards(64)
    for cls in (faiss.IndexBinaryIDMap2, faiss.IndexBinaryIDMap):
        inner = cls(IndexDMIH(64))
        inner.add_with_ids(CASE.xb, IDS)
        outer.add_shard(inner)
    return outer


COMPOSITES = {
    "idmap": lambda: id_map(faiss.IndexBinaryIDMap),
    "idmap2": lambda: id_map(faiss.IndexBinaryIDMap2),
    "shards": shards,
    "replicas": replicas,
    "ivf": inverted_file,
    "nested": nested,
}


@pytest.mark.parametrize("name", sorted(COMPOSITES))
def test_composites_come_back_whole(name: str, tmp_path: Path) -> None:
    index = COMPOSITES[name]()
    path = str(tmp_path / "index")
    faiss.write_index_binary(index, path)
    for back in (
        faiss.read_index_binary(path),
        faiss.read_index_binary(path, faiss.IO_FLAG_MMAP),
        faiss.read_index_binary(path, faiss.IO_FLAG_MMAP_IFC),
        faiss.deserialize_index_binary(faiss.serialize_index_binary(index)),
        faiss.clone_binary_index(index),
        pickle.loads(pickle.dumps(index)),
        copy.copy(index),
        copy.deepcopy(index),
    ):
        assert type(back) is type(index)
        gc.collect()  # nothing in it is kept by an object that is gone
        assert (back.d, back.code_size, back.ntotal) == (64, 8, index.ntotal)
        assert back.is_trained
        assert_same(back.search(CASE.xq, 7), index.search(CASE.xq, 7))
        if name not in ("shards", "nested", "replicas"):  # FAISS's have no range search
            assert_same(back.range_search(CASE.xq, 9), index.range_search(CASE.xq, 9))
        if name in ("idmap2", "ivf"):
            key = int(IDS[8]) if name == "idmap2" else 8
            np.testing.assert_array_equal(back.reconstruct(key), CASE.xb[8])
        if name != "ivf":  # whose map FAISS writes in the order of a hash table
            again = faiss.serialize_index_binary(back)
            np.testing.assert_array_equal(again, faiss.serialize_index_binary(index))


def test_what_comes_back_grows() -> None:
    index = faiss.deserialize_index_binary(faiss.serialize_index_binary(COMPOSITES["idmap2"]()))
    index.add_with_ids(CASE.xq, np.arange(CASE.nq))
    np.testing.assert_array_equal(index.reconstruct(3), CASE.xq[3])
    assert isinstance(faiss.downcast_IndexBinary(index.index), IndexDMIH)
    assert faiss.downcast_IndexBinary(index.index).ntotal == CASE.n + CASE.nq


def test_factory() -> None:
    for d, description, cls, cuts in (
        (64, "BDMIH", IndexDMIH, None),
        (64, "BDMIH4", IndexDMIH, (16,) * 4),
        (72, "BDMIH5", IndexDMIH, (15, 15, 14, 14, 14)),
        (64, "IDMap,BDMIH", faiss.IndexBinaryIDMap, None),
        (64, "IDMap2,BDMIH", faiss.IndexBinaryIDMap2, None),
        (64, "BDMIH4,IDMap2", faiss.IndexBinaryIDMap2, (16,) * 4),
        (64, "BFlat", faiss.IndexBinaryFlat, None),
        (64, "IDMap2,BFlat", faiss.IndexBinaryIDMap2, None),
    ):
        index = faiss.index_binary_factory(d, description)
        assert type(index) is cls
        inner = index
        if hasattr(index, "index"):
            inner = faiss.downcast_IndexBinary(index.index)
            index.add_with_ids(np.zeros((2, 8), np.uint8), np.array([5, 6]))
            assert index.ntotal == inner.ntotal == 2
        if isinstance(inner, IndexDMIH):
            assert (inner.d, inner.cuts) == (d, cuts)
    with pytest.raises(ValueError, match=r"BDMIH2 of 64 bits: tables of 1 to 26 bits are 3 to 64"):
        faiss.index_binary_factory(64, "BDMIH2")
    for description in ("BDMIHx", "IDMap2,BDMIH,IDMap", "nothing"):
        with pytest.raises(RuntimeError, match="did not generate an index"):
            faiss.index_binary_factory(64, description)


def test_faiss_s_own_indexes_are_faiss_s_matter(tmp_path: Path) -> None:
    flat = faiss.IndexBinaryFlat(64)
    flat.add(CASE.xb)
    data = faiss.serialize_index_binary.__wrapped__(flat)
    np.testing.assert_array_equal(faiss.serialize_index_binary(flat), data)
    path = tmp_path / "flat"
    faiss.write_index_binary(flat, str(path))
    assert path.read_bytes() == data.tobytes()
    pieces: list[bytes] = []
    faiss.write_index_binary(flat, faiss.PyCallbackIOWriter(lambda b: pieces.append(bytes(b))))
    assert b"".join(pieces) == data.tobytes()
    with path.open("rb") as file:
        for back in (
            faiss.read_index_binary(str(path)),
            faiss.deserialize_index_binary(data),
            faiss.read_index_binary(faiss.PyCallbackIOReader(file.read)),
            faiss.read_index_binary(faiss.BufferedIOReader(faiss.FileIOReader(str(path)))),
            faiss.read_index_binary(str(path), faiss.IO_FLAG_MMAP_IFC),
            faiss.clone_binary_index(flat),
        ):
            assert type(back) is faiss.IndexBinaryFlat
            assert_same(back.search(CASE.xq, 3), flat.search(CASE.xq, 3))
    for index in (flat, faiss.IndexBinaryIDMap2(faiss.IndexBinaryFlat(64))):
        for use in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot pickle"):
                use(index)
    with pytest.raises(RuntimeError, match="could not open"):
        faiss.read_index_binary(str(tmp_path / "nothing"))
    for argument in (None, 3, faiss.IndexFlatL2(8)):
        with pytest.raises((TypeError, RuntimeError)):
            faiss.write_index_binary(argument, str(path))


def test_writers_that_fail() -> None:
    def full(data: Any) -> None:
        raise OSError("no space left")

    with pytest.raises((OSError, RuntimeError)):
        faiss.write_index_binary(filled(), faiss.PyCallbackIOWriter(full))
    data = faiss.serialize_index_binary(filled()).tobytes()
    for size in (2, 100, 1000, len(data) - 1):
        pieces = (data[i : i + 1] for i in range(size))
        reader = faiss.PyCallbackIOReader(lambda n, pieces=pieces: next(pieces, b""))
        with pytest.raises((ValueError, RuntimeError), match=r"truncated|read error|Error"):
            faiss.read_index_binary(reader)
    with pytest.raises(TypeError, match=r"expected a path or a faiss\.IOWriter"):
        faiss.write_index_binary(filled(), 3)


def _neighbours(index: Any, xq: Any) -> Any:
    return index.search(xq, 3)


def test_spawned_processes() -> None:
    index = COMPOSITES["idmap2"]()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for each in (index, filled()):
            got = pool.apply(_neighbours, (each, CASE.xq))
            assert_same(got, each.search(CASE.xq, 3))


def test_a_process_that_imports_nothing(tmp_path: Path) -> None:
    """Unpickling imports faiss_dmih; without it, FAISS says what it does not know."""
    (tmp_path / "pickle").write_bytes(pickle.dumps(COMPOSITES["nested"]()))
    script = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).ntotal)"
    out = subprocess.check_output([sys.executable, "-c", script, tmp_path / "pickle"], text=True)
    assert int(out) == 2 * CASE.n
    for index, magic in ((filled(), "IBDM"), (COMPOSITES["idmap"](), "IBDC")):
        faiss_dmih.write_index(index, tmp_path / "index")
        script = "import faiss, sys; faiss.read_index_binary(sys.argv[1])"
        done = subprocess.run(
            [sys.executable, "-c", script, tmp_path / "index"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert f'("{magic}") not recognized' in done.stderr

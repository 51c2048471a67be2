"""`faiss-dmih info` and `faiss-dmih verify`."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from typer.testing import CliRunner

import faiss_dmih
from faiss_dmih import _engine
from faiss_dmih.cli.app import app
from faiss_dmih.inspection import inspect


@pytest.fixture
def path(tmp_path: Path) -> Path:
    index = faiss.IndexBinaryIDMap2(faiss_dmih.IndexDMIH(64, cuts=[20, 22, 22]))
    xb = np.random.default_rng(0).integers(0, 256, (9000, 8), dtype=np.uint8)
    index.add_with_ids(xb, np.arange(9000))
    faiss_dmih.write_index(index, tmp_path / "index")
    return tmp_path / "index"


def invoke(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, " ".join(done.output.split())


def test_info(path: Path) -> None:
    code, output = invoke("info", path)
    assert code == 0
    assert "idmap2: 64 bits, 72,000 bytes" in output
    assert "IndexDMIH: 9,000 codes of 64 bits" in output
    assert "cuts 20, 22, 22" in output
    for tag in ("codes", "parts", "offsets", "slots", "steps"):
        assert tag in output


def test_info_of_a_trained_index(tmp_path: Path) -> None:
    path = tmp_path / "index"
    index = faiss_dmih.IndexDMIH(8, cuts=[3, 5])
    index.add(np.arange(9, dtype=np.uint8)[:, None])
    assert "learned" not in _info_of(index, path)
    order, cuts = np.arange(8, dtype=np.int32)[::-1].copy(), np.array([3, 5], np.int32)
    _engine.repartition(index, order, cuts)
    output = _info_of(index, path)
    assert "version 2" in output
    assert "table 0, 3 bits: 7, 6, 5 table 1, 5 bits: 4, 3, 2, 1, 0" in output
    for verify in (False, True):
        assert inspect(path, verify=verify)[0].partition == index.partition
    data = bytearray(path.read_bytes())
    (at,) = (s.offset for s in inspect(path, verify=False)[0].sections if s.tag == "bits")
    data[at] ^= 1  # two bits are the same now
    path.write_bytes(data)
    assert inspect(path, verify=False)[0].partition is None
    assert invoke("verify", path)[0] == 1


def _info_of(index: faiss_dmih.IndexDMIH, path: Path) -> str:
    faiss_dmih.write_index(index, path)
    code, output = invoke("info", path)
    assert code == 0
    return output


def test_verify(path: Path) -> None:
    assert invoke("verify", path)[0] == 0
    _, leaf = inspect(path, verify=False)
    sound = bytearray(path.read_bytes())
    for tag, verdict in (("slots", "can be repaired"), ("codes", "cannot be read")):
        at = next(s.offset for s in leaf.sections if s.tag == tag)
        data = sound.copy()
        data[at + 5] ^= 1
        path.write_bytes(data)
        code, output = invoke("verify", path)
        assert code == 1
        assert f"damaged: section {tag} (segment 0, table 0)" in output
        assert verdict in output
    data = sound.copy()
    data[64 + 64 + 5] ^= 1
    path.write_bytes(data)
    code, output = invoke("verify", path)
    assert (code, "damaged: idmap2, 72,000 bytes" in output) == (1, True)


def test_what_is_no_index(path: Path) -> None:
    for command in ("info", "verify"):
        path.write_bytes(b"whatever this is")
        code, output = invoke(command, path)
        assert code == 1
        assert "error" in output
        assert "this is no index of faiss_dmih" in output
        assert invoke(command, path.parent / "nothing")[0] == 1

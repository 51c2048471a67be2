"""A file is the old one or the new one, whenever the process that writes it is killed."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import faiss
import numpy as np
import pytest

import faiss_dmih
from faiss_dmih import IndexDMIH
from faiss_dmih.folders import atomic_file

WRITER = """
import sys
import faiss_dmih, numpy as np
index = faiss_dmih.IndexDMIH(64)
index.add(np.random.default_rng(1).integers(0, 256, (int(sys.argv[2]), 8), dtype=np.uint8))
other = index.copy()
other.add(np.zeros((1, 8), np.uint8))
print("ready", flush=True)
import os
for child in iter(sys.stdin.readline, ""):
    pid = os.fork()
    if pid == 0:
        while True:
            faiss_dmih.write_index(index, sys.argv[1])
            faiss_dmih.write_index(other, sys.argv[1])
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("dead", flush=True)
"""


@pytest.mark.timeout(120)
def test_killed_at_any_moment(tmp_path: Path) -> None:
    path, n = tmp_path / "index.ibdm", 4000
    faiss_dmih.write_index(IndexDMIH(64), path)
    moments = random.Random(7)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, path, str(n)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    sizes, left, most = set[int](), 0, 0
    for _ in range(250):
        writer.stdin.write("\n")
        writer.stdin.flush()
        pid = int(writer.stdout.readline())
        time.sleep(moments.uniform(0, 0.015))
        os.kill(pid, signal.SIGKILL)
        assert writer.stdout.readline() == "dead\n"
        index = faiss_dmih.read_index(path)  # every checksum is verified; a repair is a warning
        sizes.add(index.ntotal)
        others = len(os.listdir(tmp_path)) - 1
        left += others > 0
        most = max(most, others)
    writer.stdin.close()
    writer.wait()
    writer.stdout.close()
    assert sizes >= {n, n + 1}
    assert sizes <= {0, n, n + 1}
    assert left > 20, "hardly any write was hit"
    assert most == 1, "they accumulate"
    faiss_dmih.write_index(index, path)
    assert os.listdir(tmp_path) == ["index.ibdm"]


def test_what_is_being_written_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "index"
    path.write_bytes(b"old")
    with atomic_file(path) as first:
        os.write(first, b"first")
        with atomic_file(path) as second:
            os.write(second, b"second")
        assert path.read_bytes() == b"second"
        assert len(os.listdir(tmp_path)) == 2
    assert path.read_bytes() == b"first"

    def stop() -> None:
        with atomic_file(path) as third:
            os.write(third, b"third")
            raise KeyError

    with pytest.raises(KeyError):
        stop()
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["index"]


def test_modes_links_and_pipes(tmp_path: Path) -> None:
    index = IndexDMIH(64)
    index.add(np.zeros((3, 8), np.uint8))
    path, link = tmp_path / "index", tmp_path / "link"
    faiss_dmih.write_index(index, path)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    path.chmod(0o640)
    link.symlink_to(path)
    faiss_dmih.write_index(index, link)
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    faiss_dmih.write_index(index, "/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(FileNotFoundError):
        faiss_dmih.write_index(index, tmp_path / "nowhere" / "index")
    with pytest.raises(TypeError, match=r"expected a faiss\.IndexBinary"):
        faiss_dmih.write_index(faiss.IndexFlatL2(8), path)
    assert faiss_dmih.read_index(path).ntotal == 3
    flat = faiss.IndexBinaryFlat(64)
    flat.add(np.zeros((2, 8), np.uint8))
    faiss_dmih.write_index(flat, path)  # in FAISS's format
    assert type(faiss_dmih.read_index(path)) is faiss.IndexBinaryFlat
    assert faiss_dmih.read_index(path, mmap=True).ntotal == 2

"""One shard, without Ray: whatever is done to it, it is a map of ids to codes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import assert_same
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import CODES, make_queries

import faiss_dmih
from faiss_dmih import reference
from faiss_dmih.distributed import CommitConflict, manifest, merging
from faiss_dmih.distributed.folder import Folder
from faiss_dmih.distributed.manifest import Manifest, ShardFiles
from faiss_dmih.distributed.shard import Behind, Shard

ACTIONS = st.sampled_from(["add", "add", "add one", "remove", "remove", "commit", "reopen", "copy"])


def empty(folder: Folder, d: int = 64) -> Manifest:
    return manifest.write(folder, Manifest(0, d, 0, (ShardFiles(),)), after=0)


def commit(folder: Folder, shard: Shard, state: Manifest, next_id: int) -> Manifest:
    files = shard.prepare(shard.changes())
    assert isinstance(files, ShardFiles)
    written = Manifest(0, state.d, next_id, (files,), state.options)
    written = manifest.write(folder, written, after=state.generation)
    shard.adopt(files)
    manifest.remove_unnamed(folder, written)
    return written


def assert_is(shard: Shard, model: dict[int, Any], xq: NDArray[np.uint8], own: bool) -> None:
    ids = np.array(sorted(model), np.int64)
    xb = np.array([model[key] for key in ids.tolist()], np.uint8).reshape(-1, xq.shape[1])
    now = shard.changes()
    for k in (1, 5, 40):
        D, I = reference.knn(xb, xq, k)
        expected = D, np.append(ids, -1)[I]
        assert_same(merging.unpack(shard.search(now, xq, k)), expected)
        for codes_seen in (1, 10, 1000):  # a bound, wherever it comes from, changes no near answer
            near = merging.unpack(shard.glance(now, xq, k, codes_seen))[0][:, -1]
            bound = np.minimum(near, D[:, -1] if own else near)
            got = merging.unpack(shard.search(now, xq, k, bound, near))
            rows, at = np.nonzero((bound[:, None] >= D) & (I >= 0))
            assert_same([part[rows, at] for part in got], [part[rows, at] for part in expected])
    for radius in (0, 1, 9, 30, 65):
        lims, D, I = shard.range_search(now, xq, radius)
        expected_lims, expected_D, expected_I = reference.range_search(xb, xq, radius)
        np.testing.assert_array_equal(lims, expected_lims)
        np.testing.assert_array_equal(D, expected_D)
        np.testing.assert_array_equal(I, ids[expected_I])
    asked = np.concatenate([ids, ids + 1, [-1, 10**12]])
    here, codes = shard.reconstruct(now, asked)
    np.testing.assert_array_equal(here, np.isin(asked, ids))
    np.testing.assert_array_equal(codes, [model[key] for key in asked[here].tolist()] or codes)


@given(
    actions=st.lists(ACTIONS, min_size=1, max_size=12),
    kind=st.sampled_from(sorted(CODES)),
    seed=st.integers(0, 1000),
    own=st.booleans(),
)
def test_any_sequence(actions: list[str], kind: str, seed: int, own: bool) -> None:
    rng = np.random.default_rng(seed)
    model = dict[int, Any]()
    committed, next_id = dict(model), 0
    with tempfile.TemporaryDirectory() as path:
        folder = Folder(path)
        state = empty(folder)
        shard = Shard(path, None, 0)
        for number, action in enumerate(actions, 1):
            before = shard.changes()
            if action.startswith("add"):
                x = CODES[kind](rng, 1 if action == "add one" else int(rng.integers(60)), 8)
                for _ in range(2):  # sent again, it is done once
                    assert shard.add(before, 1000 * seed + number, x, next_id) == len(x)
                model |= dict(enumerate(x, next_id))
                next_id += len(x) + int(rng.integers(3)) % 2
            elif action == "remove":
                gone = np.flatnonzero(rng.random(next_id + 1) < rng.choice([0.02, 0.5, 1]))
                left = {key: code for key, code in model.items() if key not in {*gone.tolist()}}
                for _ in range(2):
                    n = shard.remove(before, 1000 * seed + number, gone)
                    assert n == len(model) - len(left)
                model = left
            elif action == "commit":
                state = commit(folder, shard, state, next_id)
                committed = dict(model)
            elif action == "copy":  # a replica that was restarted
                replica = Shard(path, None, 0)
                replica.catch_up(shard.uncommitted())
                assert replica.changes() == shard.changes()
                shard = replica
            else:
                shard, model = Shard(path, None, 0), dict(committed)
                assert state.shards[0].ntotal == len(model)
        xb = np.array([*model.values()], np.uint8).reshape(-1, 8)
        assert_is(shard, model, make_queries(rng, xb, 9), own)


def test_parts_stay_few_and_files_too(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    state, shard = empty(folder), Shard(str(tmp_path), None, 0)
    rng = np.random.default_rng(0)
    for number in range(60):
        x = rng.integers(0, 256, (50, 8), dtype=np.uint8)
        shard.add(number, number + 1, x, 50 * number)
        state = commit(folder, shard, state, 50 * (number + 1))
        assert len(state.shards[0].parts) <= 5
    assert len(list(tmp_path.iterdir())) == 1 + len(state.shards[0].parts)
    assert state.shards[0].ntotal == 3000


def test_a_lost_change_is_told(tmp_path: Path) -> None:
    empty(Folder(tmp_path))
    shard, x = Shard(str(tmp_path), None, 0), np.zeros((2, 8), np.uint8)
    shard.add(0, 1, x, 0)
    shard.add(1, 2, x, 2)
    again = Shard(str(tmp_path), None, 0)
    assert again.add(2, 3, x, 4) == Behind(0)
    assert again.remove(2, 3, np.arange(3)) == Behind(0)
    assert again.search(2, x, 1) == again.range_search(1, x, 1) == Behind(0)
    assert again.reconstruct(1, np.arange(3)) == again.prepare(2) == Behind(0)
    assert again.glance(2, x, 1, 5) == Behind(0)


def test_two_writers(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    state = empty(folder)
    one, other = Shard(str(tmp_path), None, 0), Shard(str(tmp_path), None, 0)
    for shard in (one, other):
        shard.add(0, 1, np.full((3, 8), id(shard) % 256, np.uint8), 0)
    commit(folder, one, state, 3)
    with pytest.raises(CommitConflict, match="generation 1"):
        commit(folder, other, state, 3)
    assert manifest.newest(folder).generation == 2
    Shard(str(tmp_path), None, 0)


def test_half_a_manifest(tmp_path: Path) -> None:
    """What file systems without atomic writes leave; the next commit goes around it."""
    folder = Folder(tmp_path)
    state = empty(folder)
    whole = (tmp_path / "manifest-0000000001.json").read_bytes()
    (tmp_path / "manifest-0000000002.json").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(RuntimeWarning, match="damaged or half written"):
        assert manifest.newest(folder) == state
    with pytest.warns(RuntimeWarning, match="damaged or half written"):
        shard = Shard(str(tmp_path), None, 0)
    shard.add(0, 1, np.zeros((3, 8), np.uint8), 0)
    assert commit(folder, shard, state, 3).generation == 3
    assert manifest.newest(folder).shards[0].ntotal == 3
    changed = (tmp_path / "manifest-0000000003.json").read_bytes().replace(b"64", b"72")
    (tmp_path / "manifest-0000000003.json").write_bytes(changed)
    with pytest.raises(ValueError, match="its checksum is wrong"):
        manifest.newest(folder)


def test_damaged_files(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    state, shard = empty(folder), Shard(str(tmp_path), None, 0)
    shard.add(0, 1, np.zeros((3, 8), np.uint8), 0)
    state = commit(folder, shard, state, 3)
    file = tmp_path / state.shards[0].parts[0].codes.name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"has \d+ bytes, expected \d+, as the manifest says"):
        Shard(str(tmp_path), None, 0)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        Shard(str(tmp_path), None, 0)
    with pytest.raises(FileNotFoundError, match="holds no shards"):
        manifest.newest(Folder(tmp_path / "nothing"))


def test_elsewhere(tmp_path: Path) -> None:
    """Through fsspec: files are fetched once, checked, and forgotten when they are old."""
    pytest.importorskip("fsspec")
    path, cache = f"memory://{tmp_path.name}/index", tmp_path / "cache"
    folder = Folder(path, str(cache))
    folder.make()
    assert not folder.is_local
    state, shard = empty(folder), Shard(path, str(cache), 0)
    rng, model = np.random.default_rng(0), dict[int, Any]()
    for number in range(4):
        x = rng.integers(0, 256, (30, 8), dtype=np.uint8)
        shard.add(2 * number, 2 * number + 1, x, 30 * number)
        model |= dict(enumerate(x, 30 * number))
        shard.remove(2 * number + 1, 2 * number + 2, np.array([30 * number]))
        del model[30 * number]
        state = commit(folder, shard, state, 30 * (number + 1))
    assert_is(Shard(path, str(tmp_path / "other"), 0), model, x, False)
    names = {name for name in folder.names() if name.startswith("shard")}
    for local in (cache, tmp_path / "other"):
        assert {file.name.split("-", 2)[2] for file in local.iterdir()} == names
    with pytest.raises(FileExistsError):
        folder.create("manifest-0000000005.json", b"")
    codes = state.shards[0].parts[0].codes
    fs, root = folder._fs()
    data = bytearray(folder.read(codes.name))
    data[100] ^= 1
    fs.pipe_file(f"{root}/{codes.name}", bytes(data))
    with pytest.raises(ValueError, match="its checksum is wrong"):
        Folder(path, str(tmp_path / "third")).local(codes)


WRITER = """
import os, sys
import numpy as np
from faiss_dmih.distributed import manifest
from faiss_dmih.distributed.folder import Folder
from faiss_dmih.distributed.manifest import Manifest
from faiss_dmih.distributed.shard import Shard
path = sys.argv[1]
folder = Folder(path)
def commit_forever():
    while True:
        state, shard = manifest.newest(folder), Shard(path, None, 0)
        n = shard.changes()
        shard.add(n, n + 1, np.full((200, 8), (n + 1) % 256, np.uint8), 200 * (n + 1))
        shard._delta.remove(np.array([0]))
        files = shard.prepare(n + 1)
        state = manifest.write(folder, Manifest(0, 64, 200 * (n + 2), (files,)), state.generation)
        manifest.remove_unnamed(folder, state)
print("ready", flush=True)
for child in iter(sys.stdin.readline, ""):
    pid = os.fork()
    if pid == 0:
        commit_forever()
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("dead", flush=True)
"""


def test_a_writer_is_killed_at_any_moment(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    empty(folder)
    moments = random.Random(3)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    commits, left, killed = 0, 0, 0
    while killed < 100 or (commits <= 20 and killed < 500):  # a busy machine needs more turns
        killed += 1
        writer.stdin.write("\n")
        writer.stdin.flush()
        pid = int(writer.stdout.readline())
        time.sleep(moments.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        assert writer.stdout.readline() == "dead\n"
        state = manifest.newest(folder)  # a RuntimeWarning, of half a manifest, is an error
        (files,) = state.shards
        assert files.changes >= commits
        commits = files.changes
        assert files.ntotal == 199 * commits
        for part in files.parts:  # whole, every checksum of it
            assert faiss_dmih.read_index(folder.local(part.codes)).ntotal == part.n
        named = {file.name for part in files.parts for file in part.files()}
        left += bool({name for name in folder.names() if name.startswith("shard")} - named)
    writer.stdin.close()
    writer.wait()
    writer.stdout.close()
    assert commits > 20
    assert left > 5, "hardly any write was hit"
    codes = Shard(str(tmp_path), None, 0).reconstruct(commits, 200 * np.arange(commits + 1) + 7)
    np.testing.assert_array_equal(codes[1][:, 0], np.arange(1, commits + 1) % 256)


def test_copies_on_a_gpu_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an IndexDMIH in the place of the GPU's: what is mapped is copied once, and searched
    there; a commit copies what is new."""
    copies = list[int]()

    def to_gpu(index: Any) -> Any:
        copies.append(index.ntotal)
        return index.copy()

    monkeypatch.setattr(faiss_dmih.IndexDMIH, "to_gpu", to_gpu)
    folder = Folder(tmp_path)
    state, shard = empty(folder), Shard(str(tmp_path), None, 0, gpu=True)
    x = np.random.default_rng(0).integers(0, 256, (90, 8), dtype=np.uint8)
    shard.add(0, 1, x, 0)
    state = commit(folder, shard, state, 90)
    shard.remove(1, 2, np.arange(9))
    state = commit(folder, shard, state, 90)
    shard.add(2, 3, x[:10], 90)
    state = commit(folder, shard, state, 100)
    assert copies == [90, 10]
    model = dict(enumerate(x)) | dict(enumerate(x[:10], 90))
    assert_is(shard, {key: model[key] for key in range(9, 100)}, x[:20], False)
    assert all(part._searched is not part.index for part in shard._parts)

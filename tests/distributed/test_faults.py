"""Actors are killed: queries complete, what was committed stays, what was not is named."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import assert_same
from model import Model

from faiss_dmih import reference
from faiss_dmih.distributed import LostChanges, ShardedIndexDMIH, ShardsMissing

pytestmark = [pytest.mark.usefixtures("ray"), pytest.mark.filterwarnings("ignore")]


def uniform(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (n, 8), dtype=np.uint8)


def kill(ray: Any, actor: Any) -> None:
    """As the kernel does it when memory is short."""
    try:
        pid = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()))
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, ray.exceptions.RayActorError):
        pass  # the one before was not over yet


def test_replicas_bring_each_other_up(ray: Any, tmp_path: Path) -> None:
    """What one of a shard has lost the other one still has."""
    xb = uniform(200)
    model = Model(xb)
    ShardedIndexDMIH.build(xb, 2, tmp_path)
    with ShardedIndexDMIH.open(tmp_path, num_cpus=0.1, replicas=2) as index:
        for turn in range(4):
            model.add(xb[:9], index.add(xb[:9]))
            gone = np.array([turn, 50 + turn, 150 + turn])
            assert index.remove_ids(gone) == model.remove(gone)
            for shard in index._shards:
                kill(ray, shard.actors[turn % 2])
            if turn < 3:  # at last, a change is the first to find out
                model.assert_equals(index, xb[:20])
        model.add(xb[:9], index.add(xb[:9]))
        index.commit()
        model.assert_equals(index, xb[:20])
    with ShardedIndexDMIH.open(tmp_path, num_cpus=0.1) as index:
        model.assert_equals(index, xb[:20])


def test_lost_changes_are_named(ray: Any, tmp_path: Path) -> None:
    xb = uniform(40)
    model = Model(xb)
    ShardedIndexDMIH.build(xb, 2, tmp_path)
    with ShardedIndexDMIH.open(tmp_path, num_cpus=0.1) as index:
        model.add(xb[:9], index.add(xb[:9]))
        assert index.commit() == 2
        assert index.add(xb[:3]).tolist() == [49, 50, 51]  # to the second, the smaller one
        assert index.remove_ids([30, 31, 5]) == 3
        kill(ray, index._shards[1].actors[0])
        D, I, missing = index.search(xb[:5], 2, allow_partial=True)
        assert list(missing) == [1]
        assert "49 to 51" in missing[1]
        first = np.array([key for key in model.codes if key != 5 and not 20 <= key < 40])
        expected = reference.knn(np.array([model.codes[int(key)] for key in first]), xb[:5], 2)
        assert_same((D, I), (expected[0], first[expected[1]]))
        assert index.range_search(xb[:5], 64, allow_partial=True)[3] == missing
        for call in (
            lambda: index.search(xb[:5], 2),
            lambda: index.range_search(xb[:5], 2),
            lambda: index.reconstruct(3),
            lambda: index.add(xb[:1]),
            lambda: index.remove_ids([1]),
            index.commit,
        ):
            with pytest.raises(LostChanges, match="49 to 51 and the removal of 2 ids") as caught:
                call()
            assert (caught.value.shard, caught.value.added) == (1, ((49, 51),))
        index.rollback()
        model.assert_equals(index, xb[:9])
        assert index.add(xb[:1]).tolist() == [52]
        kill(ray, index._shards[1].actors[0])
        with pytest.raises(LostChanges, match="52 to 52"):
            index.commit()
        index.rollback()
        assert index.remove_ids([5]) == model.remove(np.array([5])) == 1
        assert index.commit() == 3
        assert index.remove_ids([5, 47, 1000]) == model.remove(np.array([47])) == 1
        assert index.commit() == 4
        assert index.remove_ids([5, 47, 1000]) == 0
        kill(ray, index._shards[0].actors[0])
        kill(ray, index._shards[1].actors[0])  # nothing is lost, and the change is made
        model.add(xb[:1], index.add(xb[:1]))
        assert index.commit() == 5
        model.assert_equals(index, xb[:9])


def test_a_bound_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first round has found may be removed before the second."""
    xb = uniform(4000)
    model = Model(xb)
    ShardedIndexDMIH.build(xb, 2, tmp_path)
    with ShardedIndexDMIH.open(tmp_path, num_cpus=0.1) as index:
        ask = ShardedIndexDMIH._ask

        def removing(self: Any, method: str, *arguments: Any) -> Any:
            answer = ask(self, method, *arguments)
            if method == "glance":
                assert self.remove_ids([3, 3000]) == model.remove(np.array([3, 3000])) == 2
            return answer

        monkeypatch.setattr(ShardedIndexDMIH, "_ask", removing)
        got = index.search(xb[[3, 3000]], 1, rounds=2)
        monkeypatch.undo()
        assert_same(got, model.index.search(xb[[3, 3000]], 1))
        assert (got[0] > 2).all()


def test_a_shard_that_does_not_come_back(ray: Any, tmp_path: Path) -> None:
    xb = uniform(40)
    ShardedIndexDMIH.build(xb, 2, tmp_path)
    with ShardedIndexDMIH.open(tmp_path, num_cpus=0.1, timeout=20) as index:
        ray.kill(index._shards[0].actors[0])
        with pytest.raises(ShardsMissing, match=r"shard 0: .*allow_partial=True") as caught:
            index.search(xb, 1)
        assert list(caught.value.shards) == [0]
        for rounds in (1, 2):
            D, I, missing = index.search(xb[20:], 1, allow_partial=True, rounds=rounds)
            assert (D.ravel().tolist(), I.ravel().tolist()) == ([0] * 20, [*range(20, 40)])
            assert list(missing) == [0]


def test_killed_at_random_under_load(ray: Any, tmp_path: Path) -> None:
    """Searches beside changes and commits, while actors are killed: nothing lost, nothing wrong.

    What is added is far from what is searched for, whose answers must be the same throughout.
    """
    xb = uniform(3000)
    xb[:, :4] = 0
    xq, far = xb[::100], uniform(4000, seed=1)
    far[:, :4] = 255
    expected = reference.knn(xb, xq, 10)
    ShardedIndexDMIH.build(xb, 3, tmp_path)
    index = ShardedIndexDMIH.open(tmp_path, num_cpus=0.1)
    model, chances = Model(xb), random.Random(5)
    over = threading.Event()
    searched, wrong, killed, lost = [0], [], 0, 0

    def search(rounds: int) -> None:
        while not over.is_set():
            try:
                assert_same(index.search(xq, 10, rounds=rounds), expected)
                searched[0] += 1
            except LostChanges:
                time.sleep(0.01)
            except BaseException as error:
                wrong.append(error)
                return

    searching = [threading.Thread(target=search, args=(rounds,)) for rounds in (1, 1, 2)]
    for thread in searching:
        thread.start()
    turn, until = 0, time.monotonic() + 8
    while not wrong and (time.monotonic() < until or killed < 3 or searched[0] < 10):
        turn += 1
        x = far[40 * turn % 3900 :][: chances.randrange(1, 60)]
        gone = np.array(chances.sample([key for key in model.codes if key >= 3000] or [-1], 1))
        if turn % 4 == 1:
            killer = threading.Timer(
                chances.uniform(0, 0.1), kill, (ray, chances.choice(index._shards).actors[0])
            )
            killer.start()
            killed += 1
        while True:
            try:
                ids = index.add(x)
                n = index.remove_ids(gone)
                index.commit()
                break
            except LostChanges:
                lost += 1
                index.rollback()
        model.add(x, ids)
        assert n == model.remove(gone)
    over.set()
    for thread in searching:
        thread.join()
    assert not wrong
    model.assert_equals(index, np.concatenate([xq, far[:20]]))
    index.close()
    with ShardedIndexDMIH.open(tmp_path, num_cpus=0.1) as index:
        model.assert_equals(index, np.concatenate([xq, far[:20]]))
    print(f"{turn} commits, {searched[0]} searches, {killed} killed, {lost} lost and made again")

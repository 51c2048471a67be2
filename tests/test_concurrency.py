"""Searches beside changes: each sees the index before a change or after it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faiss
import numpy as np
import pytest
from checks import ENGINES, assert_exact, make_index
from scripts import run

from faiss_dmih import reference

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("engine", ENGINES)
def test_searches_while_others_change_the_index(engine: str) -> None:
    """Blocks of one code each come and go: whatever is found is at its distance in some state."""
    rng = np.random.default_rng(0)
    block = np.repeat(rng.integers(0, 256, (1, 8), dtype=np.uint8), 5000, axis=0)
    index = make_index(64, engine)
    index.add(block)
    end = time.monotonic() + 0.6
    searches = []

    def search(worker: int) -> None:
        while time.monotonic() < end:
            params = None
            if worker % 2:
                params = faiss.SearchParameters(sel=faiss.IDSelectorRange(0, 10**6))
            D, I = index.search(block[:20], 6000, params=params)
            n = (I[0] >= 0).sum()
            assert n % 2500 == 0 or n == 6000
            assert (I[0] == I).all()
            assert (I[0, :n] == np.arange(n)).all()
            assert (D[0, :n] == 0).all()
            searches.append(n)

    def change(_: int) -> None:
        while time.monotonic() < end:
            index.add(block)
            index.remove_ids(faiss.IDSelectorRange(0, 2500))
            index.compact()
            if index.ntotal > 40_000:
                index.reset()

    with ThreadPoolExecutor(5) as pool:
        work = [pool.submit(search, worker) for worker in range(3)]
        work += [pool.submit(change, worker) for worker in range(2)]
        for done in work:
            done.result(timeout=100)
    assert searches
    n = index.ntotal
    assert n % 2500 == 0
    assert_exact(index, np.repeat(block[:1], n, axis=0), block[:3], 7, 5)


def test_adds_from_many_threads_are_all_there() -> None:
    index = make_index(64)
    xb = np.random.default_rng(0).integers(0, 256, (20_000, 8), dtype=np.uint8)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(index.add, np.array_split(xb, 400)))
    assert index.ntotal == len(xb)
    rows = index.reconstruct_n()
    assert (np.sort(rows.view(np.uint64).ravel()) == np.sort(xb.view(np.uint64).ravel())).all()
    assert_exact(index, rows, xb[:20], 5, 10)


def test_two_that_are_merged_into_each_other_do_not_wait_for_ever() -> None:
    code = np.zeros((3000, 8), np.uint8)
    one, two = make_index(64), make_index(64)
    one.add(code)

    def merge(into: Any, other: Any) -> None:
        for _ in range(100):
            into.merge_from(other)

    threads = [threading.Thread(target=merge, args=pair) for pair in ((one, two), (two, one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert one.ntotal + two.ntotal == 3000


def test_a_selector_may_use_the_index_that_asks_it() -> None:
    """It is asked before the search begins: what it changes is seen, and nobody waits for ever."""
    xb = np.random.default_rng(0).integers(0, 256, (500, 8), dtype=np.uint8)
    index = make_index(64)
    index.add(xb)

    def selects(i: int) -> bool:
        if i == 7 and index.ntotal == 500:
            index.add(xb[:1])
        return i % 2 == 0

    params = faiss.SearchParameters(sel=faiss.PyCallbackIDSelector(selects))
    now = np.concatenate([xb, xb[:1]])
    expected = reference.knn(now, xb[:5], 5, mask=np.arange(501) % 2 == 0)
    assert (index.search(xb[:5], 5, params=params)[1] == expected[1]).all()


def test_a_signal_handler_cannot_change_what_is_being_searched() -> None:
    run("""
        xb, xq = codes(200_000, 256), codes(300_000, 256, seed=1)
        index = faiss_dmih.IndexDMIH(256, mode="scan")
        index.add(xb)

        def handler(*_):
            index.add(xb)

        signal.signal(signal.SIGUSR1, handler)
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
        try:
            index.search(xq, 10)
        except RuntimeError as error:
            assert "by the same thread" in str(error), error
        else:
            sys.exit("the search ended before the signal came")
        assert index.ntotal == len(xb)
        assert_exact(index, xb, xb[:3])
    """)


def test_fork_while_another_thread_changes_the_index() -> None:
    """What that thread held is held by nobody in the child."""
    run("""
        import faulthandler

        xb = codes(100_000)
        index, waiting = faiss_dmih.IndexDMIH(64), faiss_dmih.IndexDMIH(64)
        index.add(xb[:9000])
        adder = threading.Thread(target=lambda: index.add(xb))
        adder.start()
        time.sleep(0.005)
        pid = os.fork()
        if pid == 0:
            faulthandler.dump_traceback_later(20, exit=True)
            n = index.ntotal
            assert (index.search(xb[:20], 1)[1].ravel() == np.arange(20)).all()
            index.add(xb[:10])
            assert index.ntotal == n + 10
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        adder.join()
        assert index.ntotal == 109_000
    """)


def test_writing_waits_for_changes_without_pythons_lock() -> None:
    """Who changes the index asks Python about Ctrl-C now and then: nobody may wait for it holding
    the lock that this takes."""
    run(
        """
        xb = codes(2_000_000)
        for way in (
            lambda index: faiss.serialize_index_binary(index),
            lambda index: faiss.write_index_binary(
                index, faiss.PyCallbackIOWriter(bytearray().extend)
            ),
            lambda index: index.copy(),
            lambda index: index.memory_usage(),
        ):
            index = faiss_dmih.IndexDMIH(64)
            changer = threading.Thread(target=index.add, args=(xb,))
            changer.start()
            calls = 0
            while changer.is_alive():
                way(index)
                calls += 1
            assert calls > 0
            assert index.ntotal == len(xb)
        """,
        timeout=100,
    )


def test_what_is_written_beside_changes_is_one_state() -> None:
    """Also of composites, whose files say how large each part is before they have it."""
    run(
        """
        import pickle, tempfile

        xb = codes(30_000)
        index = faiss_dmih.IndexDMIH(64)
        index.add(xb[:3000])
        shards = faiss.IndexBinaryShards(64)
        shards.add_shard(index)
        end = time.monotonic() + 1.5

        def change():
            while time.monotonic() < end:
                index.add(xb[:1000])
                if index.ntotal > 20_000:
                    index.remove_ids(np.arange(index.ntotal - 3000))

        def copy_in_a_file(index):
            with tempfile.TemporaryDirectory() as folder:
                faiss_dmih.write_index(index, folder + "/i")
                return faiss_dmih.read_index(folder + "/i")

        changer = threading.Thread(target=change)
        changer.start()
        sizes = set()
        while changer.is_alive():
            for of in (index, shards):
                for way in (
                    lambda of: faiss.deserialize_index_binary(faiss.serialize_index_binary(of)),
                    lambda of: pickle.loads(pickle.dumps(of)),
                    faiss.clone_binary_index,
                    copy_in_a_file,
                ):
                    copy = way(of)
                    assert copy.ntotal % 1000 == 0
                    sizes.add(copy.ntotal)
        assert len(sizes) > 1
        """
    )


def test_a_selector_that_always_meets_a_changed_index() -> None:
    """It is asked again while nobody can change the index: a search that others, or the selector
    itself, would outdate for ever comes to an end."""
    run("""
        xb = codes(400)
        index = faiss_dmih.IndexDMIH(64)
        index.add(xb)
        ended = threading.Event()

        def add():
            while not ended.is_set():
                index.add(xb[:1])
                time.sleep(0.001)

        def selects(i):
            time.sleep(0.0002)  # somebody else may run
            return i % 2 == 0 and (index.reconstruct(i) == xb[i % 400]).all()

        adder = threading.Thread(target=add)
        adder.start()
        slow = faiss.IDSelectorAnd(
            faiss.IDSelectorRange(0, 400), faiss.PyCallbackIDSelector(selects)
        )
        params = faiss.SearchParameters(sel=slow)
        assert (index.search(xb[:20:2], 1, params=params)[1].ravel() == np.arange(0, 20, 2)).all()
        assert index.remove_ids(slow) == 200
        ended.set()
        adder.join()

        def changes(i):
            index.search(xb[:1], 1)
            index.add(xb[:1])
            return True

        params = faiss.SearchParameters(sel=faiss.PyCallbackIDSelector(changes))
        for call in (
            lambda: index.search(xb[:1], 1, params=params),
            lambda: index.range_search(xb[:1], 1, params=params),
            lambda: index.remove_ids(params.sel),
        ):
            try:
                call()
            except RuntimeError as error:
                assert "by the same thread" in str(error), error
            else:
                sys.exit("it has ended")
        index.add(xb)
        assert (index.reconstruct_n(index.ntotal - 400, 400) == xb).all()
    """)

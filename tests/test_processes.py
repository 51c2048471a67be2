"""Processes and threads: forks, searches side by side, and what importing costs."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from checks import ENGINES, assert_same, make_index
from scripts import run
from strategies import Case

from faiss_dmih import reference

pytestmark = pytest.mark.timeout(120)


def test_fork_after_import() -> None:
    run("""
        pid = os.fork()
        if pid == 0:
            index, xb = faiss_dmih.IndexDMIH(64), codes(9000)
            index.add(xb)
            assert_exact(index, xb, xb[:100])
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    """)


@pytest.mark.parametrize("mode", ["auto", "mih", "scan"])
def test_fork_after_a_search(mode: str) -> None:
    """The child has none of the parent's threads, and must make its own. So must its child."""
    run(f"""
        faiss.omp_set_num_threads(4)
        index, xb = faiss_dmih.IndexDMIH(64, mode={mode!r}), codes(9000)
        expected = reference.knn(xb, xb[:200], 5)

        def check():
            for got, wanted in zip(index.search(xb[:200], 5), expected):
                np.testing.assert_array_equal(got, wanted)

        index.add(xb)
        check()
        assert threads() > 1
        for generation in range(3):
            pid = os.fork()
            if pid:
                assert os.waitpid(pid, 0)[1] == 0
                break
            assert threads() == 1
            check()
            assert threads() > 1
            index.reset()
            index.add(xb)
        check()
        os._exit(0)
    """)


def test_fork_while_another_thread_searches() -> None:
    """Whatever lock that search holds stays locked in the child for ever.

    Each length of code is new to the engine, so that forks also meet what is done only once.
    """
    run("""
        import faulthandler

        faiss.omp_set_num_threads(3)
        for d in range(64, 1600, 64):
            xb = codes(5000, d)
            index = faiss_dmih.IndexDMIH(d)
            index.add(xb)
            searcher = threading.Thread(target=lambda: index.search(xb[:100], 5))
            searcher.start()
            time.sleep(d % 5 * 0.0005)
            pid = os.fork()
            if pid == 0:
                faulthandler.dump_traceback_later(20, exit=True)
                assert (index.search(xb[:20], 1)[1].ravel() == np.arange(20)).all()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0, f"d = {d}"
            searcher.join()
    """)


def test_multiprocessing_by_fork() -> None:
    run("""
        import multiprocessing

        faiss.omp_set_num_threads(2)
        index, xb = faiss_dmih.IndexDMIH(64), codes(9000)
        index.add(xb)
        whole = index.search(xb[:400], 5)

        def search(at):
            return index.search(xb[at:at + 100], 5)

        with multiprocessing.get_context("fork").Pool(3) as pool:
            parts = pool.map(search, range(0, 400, 100))
        for got, expected in zip(map(np.concatenate, zip(*parts)), whole):
            np.testing.assert_array_equal(got, expected)
    """)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.usefixtures("threads")
def test_many_threads_search_one_index(engine: str) -> None:
    case = Case(d=128, n=9000, nq=300, kind="clustered", seed=8)
    index = make_index(case.d, engine)
    index.add(case.xb)
    knn = reference.knn(case.xb, case.xq, 10)
    in_range = reference.range_search(case.xb, case.xq, 20)
    together = threading.Barrier(8)

    def search_on(worker: int) -> None:
        together.wait(timeout=60)
        for _ in range(5):
            assert_same(index.search(case.xq, 10), knn)
            assert_same(index.range_search(case.xq, 20), in_range)
            row = slice(worker, worker + 1)
            assert_same(index.search(case.xq[row], 10), (knn[0][row], knn[1][row]))

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(search_on, worker) for worker in range(8)]:
            done.result(timeout=100)


def test_searches_of_several_indexes_side_by_side() -> None:
    """Threads that build and search indexes of their own do not meet."""
    cases = [Case(d=d, n=6000, nq=50, kind="uniform", seed=d) for d in (32, 64, 72, 256)]

    def live(case: Case) -> None:
        for _ in range(3):
            index = make_index(case.d)
            index.add(case.xb)
            assert_same(index.search(case.xq, 10), reference.knn(case.xb, case.xq, 10))

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(live, case) for case in cases]:
            done.result(timeout=100)


def test_the_number_of_threads_is_the_one_faiss_was_told() -> None:
    run("""
        index, xb = faiss_dmih.IndexDMIH(64, mode="scan"), codes(50_000)
        faiss.omp_set_num_threads(1)
        before = threads()
        index.add(xb)
        index.search(xb[:2000], 5)
        index.search(xb[:1], 5)
        assert threads() == before, "one thread was asked for"
        faiss.omp_set_num_threads(4)
        index.search(xb[:2000], 5)
        assert before < threads() <= before + 4, "several threads were asked for"
    """)


def test_importing_loads_nothing_that_is_optional() -> None:
    """Even an attempt at it would show, as when one of them is not installed."""
    script = """
        import sys

        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {"torch", "cupy", "ray", "typer", "matplotlib"}:
                    sys.exit(f"importing {name}")

        sys.meta_path.insert(0, Refuse())
        import faiss_dmih
        faiss_dmih.IndexDMIH(64)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_importing_starts_no_thread() -> None:
    script = """
        import os, faiss
        before = len(os.listdir("/proc/self/task"))
        import faiss_dmih
        index = faiss_dmih.IndexDMIH(64)
        print(len(os.listdir("/proc/self/task")) - before)
    """
    out = subprocess.check_output([sys.executable, "-c", textwrap.dedent(script)], timeout=60)
    assert out.split() == [b"0"]


def test_importing_is_quick() -> None:
    """Beyond FAISS's own import; the best of three, as anything may stop one of them."""
    script = (
        "import time, faiss; start = time.perf_counter(); import faiss_dmih; "
        "print(time.perf_counter() - start)"
    )
    seconds = [
        float(subprocess.check_output([sys.executable, "-c", script], timeout=60)) for _ in range(3)
    ]
    assert min(seconds) < 0.3


def test_two_threads_may_import_it_at_once() -> None:
    script = """
        import threading

        def load():
            import faiss_dmih
            done.append(faiss_dmih.IndexDMIH(64).d)

        done = []
        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(done)
    """
    out = subprocess.check_output([sys.executable, "-c", textwrap.dedent(script)], timeout=60)
    assert out.split() == b"[64, 64, 64, 64]".split()


def test_exit_while_threads_wait() -> None:
    """The pool's threads, idle or not, do not keep the process from ending, nor crash it."""
    out = run("""
        faiss.omp_set_num_threads(4)
        index, xb = faiss_dmih.IndexDMIH(64), codes(30_000)
        index.add(xb)
        index.search(xb[:1000], 5)
        threading.Thread(target=lambda: index.search(xb, 5), daemon=True).start()
        print("done")
    """)
    assert out.split() == ["done"]


def test_answers_of_a_child_are_those_of_the_parent() -> None:
    out = run("""
        xb = codes(9000, 128)
        index = faiss_dmih.IndexDMIH(128)
        index.add(xb)
        print(index.search(xb[:50], 5)[1].sum())
        sys.stdout.flush()
        if os.fork() == 0:
            print(index.search(xb[:50], 5)[1].sum())
            sys.stdout.flush()
            os._exit(0)
        os.wait()
    """).split()
    xb = np.random.default_rng(0).integers(0, 256, (9000, 16), dtype=np.uint8)
    assert out == [str(reference.knn(xb, xb[:50], 5)[1].sum())] * 2

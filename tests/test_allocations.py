"""Each allocation of each call fails once: an error arrives, and the index is what it was."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from scripts import run

SOURCE = Path(__file__).parent / "failing_allocations.cpp"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if not compiler:
        pytest.skip("no C++ compiler")
    out = str(tmp_path_factory.mktemp("preloaded") / "failing.so")
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, str(SOURCE), "-o", out, "-ldl"], check=True)
    return out


@pytest.mark.timeout(200)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("mode", ["auto", "mih", "scan"])
def test_every_allocation_fails(library: str, mode: str, threads: int) -> None:
    output = run(
        f"""
        import ctypes

        library = ctypes.CDLL({library!r})
        library.fail_allocation.argtypes = [ctypes.c_long]
        library.stop_failing.restype = ctypes.c_long
        faiss.omp_set_num_threads({threads})

        xb, more = codes(21_000), codes(12_000, seed=1)
        xb[::7] = xb[0]
        more[::5] = xb[1]
        xq = xb[::3000].copy()

        def make(*parts):
            index = faiss_dmih.IndexDMIH(64, mode={mode!r})
            for part in parts:
                index.add(part)
            return index

        order = np.random.default_rng(5).permutation(64).astype(np.int32)
        index, other = make(xb[:12_000], xb[12_000:20_950], xb[20_950:]), make(more)
        shuffled = index.copy()
        faiss_dmih._engine.repartition(shuffled, order, np.full(4, 16, np.int32))
        shuffled_data = faiss.serialize_index_binary(shuffled)
        data = faiss.serialize_index_binary(index)
        some = faiss.IDSelectorBatch(np.arange(0, 21_000, 3))
        few = faiss.IDSelectorBatch(np.arange(0, 21_000, 1000))
        most = faiss.IDSelectorRange(0, 18_000)
        filtered, gathered = (faiss.SearchParameters(sel=sel) for sel in (some, few))
        budget = faiss_dmih.SearchParametersDMIH(max_codes=100)
        expected = index.search(xq, 5)
        # Each begins with the same index, and changes it only where nothing fails.
        changes = [
            lambda: index.add(more),
            lambda: index.add(more[:20]),
            lambda: index.remove_ids(some),
            lambda: index.remove_ids(few),
            lambda: index.remove_ids(most),
            lambda: index.compact(),
            lambda: index.merge_from(other),
            lambda: faiss_dmih._engine.repartition(index, order, np.full(4, 16, np.int32)),
        ]
        questions = [
            lambda: index.search(xq, 5),
            lambda: index.search(more[:70], 5),
            lambda: index.search(xq, 5, params=filtered),
            lambda: index.search(xq, 5, params=gathered),
            lambda: index.search(xq, 5, params=budget),
            lambda: index.range_search(xq, 10),
            lambda: index.copy(),
            lambda: faiss.serialize_index_binary(index),
            lambda: faiss.deserialize_index_binary(data),
            lambda: shuffled.search(xq, 5),
            lambda: faiss.serialize_index_binary(shuffled),
            lambda: faiss.deserialize_index_binary(shuffled_data),
        ]
        for call in changes + questions:
            failures, n = 0, 0
            while True:
                library.fail_allocation(n)
                try:
                    call()
                except (MemoryError, RuntimeError):
                    failures += 1
                    assert library.stop_failing() < 0
                    assert (index.ntotal, other.ntotal) == (21_000, 12_000)
                    assert index.partition is None
                    if n % 16 == 0:
                        assert (index.search(xq, 5)[1] == expected[1]).all()
                else:
                    # The standard library's sorting does without memory that it does not get.
                    if library.stop_failing() >= 0:
                        break
                    assert call in questions
                n += 1 if n < 60 else 11
            assert failures > 0
            print(failures)
            if call in changes:
                index, other = faiss.deserialize_index_binary(data), make(more)
                expected = index.search(xq, 5)
        """,
        timeout=150,
        LD_PRELOAD=library,
    )
    assert len(output.split()) == 20

"""An add or a search that is stopped, or fails half-way, leaves the index as it was."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from checks import ENGINES, assert_same, make_index
from scripts import run
from strategies import Case

from faiss_dmih import reference

pytestmark = pytest.mark.timeout(120)

MODES = ["auto", "mih", "scan"]


@pytest.mark.parametrize("method", ["search(xq, 10)", "search(xq, 2000)", "range_search(xq, 80)"])
@pytest.mark.parametrize("mode", MODES)
def test_ctrl_c_ends_a_long_search(mode: str, method: str) -> None:
    run(f"""
        xb, xq = codes(300_000, 256), codes(400_000, 256, seed=1)
        index = faiss_dmih.IndexDMIH(256, mode={mode!r})
        index.add(xb)
        xq = xq[:50_000] if "2000" in {method!r} else xq
        assert_ctrl_c_ends(lambda: index.{method})
        assert_exact(index, xb, xb[:3])
    """)


@pytest.mark.parametrize(
    "method", ["search(xq, 10, params=params)", "range_search(xq, 90, params=params)"]
)
def test_ctrl_c_ends_a_long_filtered_search(method: str) -> None:
    """By a selector of any kind, of the index or of an id map."""
    run(f"""
        xb, xq = codes(300_000, 256), codes(400_000, 256, seed=1)
        index = faiss_dmih.IndexDMIH(256)
        index.add(xb)
        mapped = faiss.IndexBinaryIDMap(faiss_dmih.IndexDMIH(256))
        mapped.add_with_ids(xb, np.arange(len(xb)))
        mask = np.random.default_rng(0).random(len(xb)) < 0.6
        for selector in (
            faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little")),
            faiss.IDSelectorBatch(np.flatnonzero(mask)),
            faiss.IDSelectorArray(np.flatnonzero(mask)),
            faiss.PyCallbackIDSelector(lambda i: bool(mask[i])),
            faiss.PyCallbackIDSelector(lambda i: time.sleep(0.001) is None),
        ):
            params = faiss.SearchParameters(sel=selector)
            for of in (index, mapped):
                assert_ctrl_c_ends(lambda: of.{method})
        assert_exact(index, xb, xb[:3])
    """)


@pytest.mark.parametrize("mode", ["auto", "mih"])
def test_ctrl_c_ends_a_long_change(mode: str) -> None:
    """And leaves the index as it was, whenever it comes."""
    run(f"""
        xb = codes(3000, 256)
        index = faiss_dmih.IndexDMIH(256, mode={mode!r})
        index.add(xb)
        many = codes(2_000_000, 256, seed=1)
        for delay in (0.02, 0.1, 0.2):
            assert_ctrl_c_ends(lambda: index.add(many), delay)
            assert index.ntotal == 3000
        assert_exact(index, xb, xb[:30])
        index.add(xb)
        assert_exact(index, np.concatenate([xb, xb]), xb[:30])

        index.reset()
        index.add(many)
        mask = np.random.default_rng(0).random(len(many)) < 0.1
        selector = faiss.IDSelectorBatch(np.flatnonzero(mask))
        for delay in (0.01, 0.03):
            assert_ctrl_c_ends(lambda: index.remove_ids(selector), delay)
            assert index.ntotal == len(many)
        assert (index.search(many[:9], 1)[1].ravel() == np.arange(9)).all()
        assert index.remove_ids(selector) == mask.sum()
        assert_exact(index, many[~mask], many[:3])
    """)


@pytest.mark.parametrize("mode", MODES)
def test_faiss_s_timeout_ends_a_long_search(mode: str) -> None:
    run(f"""
        xb, xq = codes(400_000, 256), codes(1_000_000, 256, seed=1)
        index = faiss_dmih.IndexDMIH(256, mode={mode!r})
        index.add(xb)
        faiss.TimeoutCallback.reset(0.3)
        start = time.monotonic()
        try:
            index.search(xq, 10)
        except RuntimeError as error:
            assert "interrupt" in str(error), error
        else:
            sys.exit("the search ended before its time was up")
        assert time.monotonic() - start < 1.3
        faiss.PythonInterruptCallback.reset()
        assert_exact(index, xb, xb[:3])
    """)


@pytest.mark.parametrize("mode", MODES)
def test_an_add_without_memory(mode: str) -> None:
    """MemoryError, or FAISS's error for it; never the end of the process."""
    run(f"""
        import resource

        xb = codes(3000, 512)
        index = faiss_dmih.IndexDMIH(512, mode={mode!r})
        index.add(xb)
        index.search(xb[:100], 5)  # the threads have their stacks
        many = codes(1_500_000, 512, seed=1)  # 96 MB
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        failed = 0
        for spare in range(0, 100, 10):
            limit = used + (spare << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
            try:
                index.add(many)
            except (MemoryError, RuntimeError):
                failed += 1
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
            assert index.ntotal == 3000
        assert failed == 10
        assert_exact(index, xb, xb[:30])
        index.add(xb)
        assert_exact(index, np.concatenate([xb, xb]), xb[:30])
    """)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.usefixtures("threads")
def test_a_selector_written_in_python(engine: str) -> None:
    case = Case(d=64, n=5000, nq=60, kind="clustered", seed=3)
    index = make_index(case.d, engine)
    index.add(case.xb)
    params = faiss.SearchParameters(sel=faiss.PyCallbackIDSelector(lambda i: i % 3 == 0))
    mask = np.arange(case.n) % 3 == 0
    assert_same(
        index.search(case.xq, 5, params=params), reference.knn(case.xb, case.xq, 5, mask=mask)
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.usefixtures("threads")
def test_a_selector_that_raises(engine: str) -> None:
    """Its own exception where it was raised on the calling thread, otherwise FAISS's."""
    case = Case(d=64, n=5000, nq=60, kind="clustered", seed=3)
    index = make_index(case.d, engine)
    index.add(case.xb)

    def refuse(i: int) -> bool:
        if i % 7 == 0:
            raise KeyError(i)
        return True

    params = faiss.SearchParameters(sel=faiss.PyCallbackIDSelector(refuse))
    with pytest.raises((KeyError, RuntimeError)):
        index.search(case.xq, 50, params=params)
    with pytest.raises((KeyError, RuntimeError)):
        index.range_search(case.xq, 40, params=params)
    assert_same(index.search(case.xq, 5), reference.knn(case.xb, case.xq, 5))

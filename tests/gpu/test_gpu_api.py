"""What goes in and out of GpuIndexDMIH, when it waits, what it refuses, and what holds it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import pytest
import strict
from checks import assert_knn, assert_same, flat
from devices import StrictDevice, from_device, on_device
from strategies import Case

from faiss_dmih import reference
from faiss_dmih.gpu import GpuIndexDMIH, knn, range_search
from faiss_dmih.gpu import index as index_module

CASE = Case(d=64, n=3000, nq=20, kind="clustered", seed=1)


@pytest.fixture
def shim(launcher: Any, monkeypatch: pytest.MonkeyPatch) -> StrictDevice:
    """What a GPU does not tell: how often it was waited for, and how much memory there is."""
    if type(launcher).__name__ != "ShimLauncher":
        pytest.skip("a device that tells what it was asked for")
    device = StrictDevice(launcher)
    monkeypatch.setattr(index_module, "open_device", lambda number: device)
    return device


def filled(case: Case = CASE, **options: Any) -> GpuIndexDMIH:
    index = GpuIndexDMIH(case.d, **options)
    index.add(case.xb)
    index.compact()
    return index


@pytest.mark.parametrize("engine", ["scan", "probe", "auto"])
def test_device_in_device_out_without_waiting(shim: StrictDevice, engine: str) -> None:
    index = filled()
    index.force_engine(engine)
    strict.waits = 0
    D, I = index.search(on_device(CASE.xq), 7)
    assert strict.waits == 0
    assert type(D) is type(I) is strict.ndarray
    expected = reference.knn(CASE.xb, CASE.xq, 7)
    assert_same(from_device(D, I), expected)
    mask = np.arange(CASE.n) % 2 == 0
    D, I = index.search(on_device(CASE.xq), 7, mask=on_device(mask))
    assert strict.waits == 0
    expected = reference.knn(CASE.xb, CASE.xq, 7, mask=mask)
    assert_same(from_device(D, I), expected)
    lims, D, I = index.range_search(on_device(CASE.xq), 12)
    # Its size, what a probe's answers leave of it, and a sort.
    assert strict.waits == (3 if engine == "probe" else 2)
    assert type(lims) is type(D) is type(I) is strict.ndarray
    expected_range = reference.range_search(CASE.xb, CASE.xq, 12)
    assert_same(from_device(lims, D, I), expected_range)


def test_adds_from_the_device(shim: StrictDevice) -> None:
    index = GpuIndexDMIH(CASE.d)
    index.train(on_device(CASE.xb))
    index.add(on_device(CASE.xb))
    assert strict.waits == 0
    assert_knn(index, CASE.xb, CASE.xq, 5)
    # What the caller does to the array afterwards is no concern of the index.
    codes = CASE.xb.copy()
    index.reset()
    index.add(on_device(codes))
    codes[:] = 0
    assert_knn(index, CASE.xb, CASE.xq, 5)


def kept(x: Any) -> Iterator[strict.ndarray]:
    """The arrays that an object of the engine holds."""
    if isinstance(x, strict.ndarray):
        yield x
    elif isinstance(x, (list, tuple)):
        for one in x:
            yield from kept(one)
    elif type(x).__module__.startswith("faiss_dmih"):
        for one in vars(x).values():
            yield from kept(one)


def test_what_is_kept_is_made_where_it_is_changed(shim: StrictDevice) -> None:
    """Elsewhere its memory might be another's while somebody still reads it."""
    index = GpuIndexDMIH(CASE.d)

    def check() -> None:
        arrays = list(kept(index))
        assert len(arrays) >= 4
        assert {x.made_on for x in arrays} == {"kept"}

    check()
    for change in (
        lambda: index.add(on_device(CASE.xb)),
        lambda: index.add(CASE.xb[:100]),
        index.compact,
        lambda: index.remove_ids(on_device(np.arange(40))),
        lambda: index.remove_ids([0, 1]),
        index.reset,
    ):
        change()
        index.search(on_device(CASE.xq), 9)
        check()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint64, np.int64])
def test_ids_of_any_type(gpu: Any, dtype: Any) -> None:
    """Also of one that has not the number of codes."""
    index = filled()
    outside = [np.iinfo(dtype).max] if dtype in (np.uint64, np.int64) else []
    gone = np.array([3, 100, 3, *outside], dtype)
    assert index.remove_ids(gone) == 2
    assert_knn(index, np.delete(CASE.xb, [3, 100], axis=0), CASE.xq, 5)


def test_slices_of_arrays(gpu: Any) -> None:
    """Rows that are apart in memory, or begin at any byte."""
    wide = np.zeros((CASE.n, 11), np.uint8)
    wide[:, 3:] = CASE.xb
    index = GpuIndexDMIH(CASE.d)
    index.add(wide[:, 3:])
    assert_knn(index, CASE.xb, CASE.xq, 5)
    raw = np.zeros(1 + CASE.xq.size, np.uint8)
    raw[1:] = CASE.xq.ravel()
    assert_knn(index, CASE.xb, raw[1:].reshape(CASE.xq.shape), 5)
    assert_same(index.search(CASE.xq[::-2], 5), reference.knn(CASE.xb, CASE.xq[::-2], 5))


def test_the_planner_settles(shim: StrictDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near neighbours are probed for each time, far ones after longer and longer pauses."""
    monkeypatch.setattr("faiss_dmih.gpu.planner.scan_items", lambda *_: 3200.0)
    case = Case(d=64, n=3000, nq=20, kind="uniform", seed=1)
    index = filled(case, cuts=[10, 10, 11, 11, 11, 11])

    def probed(xq: Any, batches: int) -> list[bool]:
        out = []
        for _ in range(batches):
            before = len(shim.launcher.started)
            assert_knn(index, case.xb, xq, 1)
            out.append("probe_knn" in shim.launcher.started[before:])
        return out

    assert probed(case.xb[:20], 5) == [True] * 5
    uniform = np.random.default_rng(0).integers(0, 256, (20, 8), dtype=np.uint8)
    assert probed(uniform, 12) == [k in (0, 2, 5, 10) for k in range(12)]
    assert probed(case.xb[:20], 12)[-3:] == [True] * 3


def test_a_range_search_is_planned_by_its_radius(
    shim: StrictDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faiss_dmih.gpu.planner.scan_items", lambda *_: 1000.0)
    index = filled()
    for radius, engine in ((3, "probe_range"), (30, "scan_range")):
        before = len(shim.launcher.started)
        index.range_search(CASE.xq, radius)
        assert engine in shim.launcher.started[before:]
    # A query that looks at more than was thought fit is scanned for.
    monkeypatch.setattr("faiss_dmih.gpu.planner.scan_items", lambda *_: 20.0)
    xb = np.random.default_rng(0).integers(0, 256, (3000, 8), dtype=np.uint8)
    xb[:60, :2] = 7  # a bucket that is far larger than the others
    index = GpuIndexDMIH(64, cuts=[16, 16, 16, 16])
    index.add(xb)
    index.compact()
    xq = xb[50:70]
    before = len(shim.launcher.started)
    assert_same(index.range_search(xq, 4), reference.range_search(xb, xq, 4))
    assert shim.launcher.started[before:] == ["probe_range", "scan_range"]


def test_searches_by_batches(shim: StrictDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit into the work space at once is done in parts, with the same answers."""
    index = filled(mode="scan")
    held = index.memory_usage()["total"]
    shape = knn.Shape(64, 20, 20, index._store.slots, CASE.n)
    three = 3 * shape.bytes_per_query(3, sorted_by_block=False)
    small = GpuIndexDMIH(64, mode="scan", memory_budget=held + three)
    small.add(CASE.xb)
    small.compact()
    before = len(shim.launcher.started)
    assert_knn(small, CASE.xb, CASE.xq, 20)
    assert shim.launcher.started[before:].count("scan_knn") >= 7
    D, I = small.search(on_device(CASE.xq), 20)
    assert_same(from_device(D, I), reference.knn(CASE.xb, CASE.xq, 20))
    # Answers of a range search that do not fit together are found half by half.
    expected = reference.range_search(CASE.xb, CASE.xq, 40)
    room = int(np.diff(expected[0].astype(np.int64)).max()) + 10
    monkeypatch.setattr(small, "_workspace", lambda: room * range_search.BYTES_PER_ANSWER)
    assert_same(small.range_search(CASE.xq, 40), expected)
    monkeypatch.setattr(small, "_workspace", lambda: 10 * range_search.BYTES_PER_ANSWER)
    with pytest.raises(MemoryError, match=r"has \d+ codes within 39 bits, which takes \d+ bytes"):
        small.range_search(CASE.xq, 40)


def test_a_budget_is_kept(shim: StrictDevice) -> None:
    codes = 8 * CASE.n
    index = GpuIndexDMIH(64, memory_budget=codes + 100)
    index.add(CASE.xb[:1000])
    with pytest.raises(MemoryError, match=r"adding 2500 codes to 1000 needs 28000 bytes beside"):
        index.add(CASE.xb[:2500])
    assert index.ntotal == 1000
    np.testing.assert_array_equal(index.reconstruct_n(), CASE.xb[:1000])
    # Tables do not fit: answers come without.
    index = GpuIndexDMIH(64, memory_budget=codes + 100)
    index.add(CASE.xb)
    index.compact()
    assert index.memory_usage()["tables"] == 0
    with pytest.raises(MemoryError, match=r"k = 5 of 3000 codes needs \d+ bytes of work space"):
        index.search(CASE.xq, 5)
    # Tables that fit once give way to codes.
    index = GpuIndexDMIH(64, memory_budget=2**23)
    index.add(CASE.xb)
    index.compact()
    assert index.memory_usage()["tables"] > 0
    room = 2**23 - index.memory_usage()["codes"]
    index.add(np.zeros((room // 8 - CASE.n - 100, 8), np.uint8))
    assert index.memory_usage()["tables"] == 0


def test_adds_are_all_or_nothing(shim: StrictDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    index = filled()

    def no_memory(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(shim.xp, "zeros", no_memory)
    with pytest.raises(MemoryError, match=r"adding 3000 codes to 3000 needs 48000 bytes on device"):
        index.add(CASE.xb)
    monkeypatch.undo()
    assert index.ntotal == CASE.n
    np.testing.assert_array_equal(index.reconstruct_n(), CASE.xb)
    # Without memory for tables codes are there all the same.
    monkeypatch.setattr("faiss_dmih.gpu.tables.build", no_memory)
    monkeypatch.setattr(index_module, "open_device", lambda number: shim)
    monkeypatch.setattr(index_module, "_TAIL", 100)
    other = GpuIndexDMIH(64)
    other.add(CASE.xb)
    assert other.memory_usage()["tables"] == 0
    assert_knn(other, CASE.xb, CASE.xq, 5)


def test_what_is_refused(gpu: Any) -> None:
    index = filled()
    for x, error, message in (
        (CASE.xq.astype(np.int32), TypeError, "got dtype int32, expected uint8"),
        (CASE.xq[0], ValueError, r"got shape \(8,\)"),
        (CASE.xq[:, :7], ValueError, "got codes of 7 bytes, expected 8"),
    ):
        for call in (index.train, index.add, lambda x: index.search(x, 1)):
            with pytest.raises(error, match=message):
                call(x)
        with pytest.raises(error, match=message):
            index.range_search(x, 1)
    for k in (0, -1):
        with pytest.raises(ValueError, match="expected at least 1"):
            index.search(CASE.xq, k)
    for mask, error, message in (
        (np.ones(CASE.n, np.uint8), TypeError, "mask: got dtype uint8, expected bool"),
        (np.ones(CASE.n - 1, np.bool_), ValueError, r"mask: got shape \(2999,\)"),
    ):
        with pytest.raises(error, match=message):
            index.search(CASE.xq, 1, mask=mask)
    everything = faiss.SearchParameters(sel=faiss.IDSelectorAll())
    with pytest.raises(ValueError, match="got both params and mask"):
        index.search(CASE.xq, 1, params=everything, mask=np.ones(CASE.n, np.bool_))
    for key in (-1, CASE.n):
        with pytest.raises(ValueError, match=r"not in \[0, ntotal = 3000\)"):
            index.reconstruct(key)
    with pytest.raises(TypeError, match="ids: got dtype float64"):
        index.remove_ids(np.array([1.5]))
    assert index.ntotal == CASE.n
    with pytest.raises(ValueError, match="unknown mode 'fast'"):
        GpuIndexDMIH(64, mode="fast")
    with pytest.raises(ValueError, match="unknown engine 'gpu'"):
        index.force_engine("gpu")
    with pytest.raises(ValueError, match="multiple of 8"):
        GpuIndexDMIH(63)


def test_too_many_codes(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "MAX_CODES", 5000)
    index = filled()
    with pytest.raises(RuntimeError, match="at most 5000 codes, got 3000 \\+ 3000"):
        index.add(CASE.xb)
    assert index.ntotal == 3000


def test_edges(gpu: Any) -> None:
    index = GpuIndexDMIH(64)
    assert (index.ntotal, index.d, index.code_size, index.is_trained) == (0, 64, 8, True)
    assert_same(index.search(CASE.xq, 3), reference.knn(CASE.xb[:0], CASE.xq, 3))
    assert_same(index.range_search(CASE.xq, 3), reference.range_search(CASE.xb[:0], CASE.xq, 3))
    assert index.remove_ids(np.array([], np.int64)) == 0
    index.compact()
    index.add(CASE.xb[:0])
    index.add(CASE.xb)
    for xq in (CASE.xq[:0], CASE.xq[:1]):
        assert_same(index.search(xq, 3), reference.knn(CASE.xb, xq, 3))
        for radius in (-5, 0, 1000):
            expected = reference.range_search(CASE.xb, xq, max(0, min(radius, 65)))
            assert_same(index.range_search(xq, radius), expected)


def test_selectors_remove(gpu: Any) -> None:
    index, yardstick = filled(), flat(CASE.xb)
    for selector in (faiss.IDSelectorRange(10, 500), faiss.IDSelectorBatch([3, 3, 77])):
        assert index.remove_ids(selector) == yardstick.remove_ids(selector)
        assert_same(index.search(CASE.xq, 9), yardstick.search(CASE.xq, 9))


def test_inside_faiss(gpu: Any) -> None:
    """In an id map over threaded shards, as IndexBinaryFlat."""
    assert isinstance(GpuIndexDMIH(64), faiss.IndexBinary)
    composites = []
    kept_alive = []
    for make in (lambda: GpuIndexDMIH(64), lambda: faiss.IndexBinaryFlat(64)):
        shards = faiss.IndexBinaryShards(64, True, True)
        for _ in range(3):
            shards.add_shard(make())
        map_ = faiss.IndexBinaryIDMap2(shards)
        kept_alive.append(shards)
        map_.add_with_ids(CASE.xb, np.arange(CASE.n)[::-1].copy())
        composites.append(map_)
    ours, theirs = composites
    assert ours.ntotal == CASE.n
    for k in (1, 9, 100):
        assert_same(ours.search(CASE.xq, k), theirs.search(CASE.xq, k))
    alone = faiss.IndexBinaryIDMap2(GpuIndexDMIH(64))
    theirs = faiss.IndexBinaryIDMap2(faiss.IndexBinaryFlat(64))
    for map_ in (alone, theirs):
        map_.add_with_ids(CASE.xb, 7 * np.arange(CASE.n))
        map_.remove_ids(faiss.IDSelectorRange(70, 700))
    assert_same(alone.range_search(CASE.xq, 12), theirs.range_search(CASE.xq, 12))
    chosen = faiss.SearchParameters(sel=faiss.IDSelectorRange(0, 7000))
    assert_same(alone.search(CASE.xq, 9, params=chosen), theirs.search(CASE.xq, 9, params=chosen))
    np.testing.assert_array_equal(alone.reconstruct(7), CASE.xb[1])


def test_without_cupy_the_first_use_says_what_to_do() -> None:
    code = (
        "import sys; sys.modules['cupy'] = None\n"
        "import faiss_dmih\n"
        "from faiss_dmih.gpu import GpuIndexDMIH, GpuShards\n"
        "assert 'torch' not in sys.modules\n"
        "for make in (lambda: GpuIndexDMIH(64), lambda: GpuShards(64, [0]),\n"
        "             lambda: faiss_dmih.IndexDMIH(64).to_gpu()):\n"
        "    try: make()\n"
        "    except ImportError as error: print(error)\n"
    )
    said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert said.count("pip install 'faiss-dmih[cuda13]'") == 3

"""Where random tests do not come: the largest ids, threads, answers that hardly fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import assert_same
from devices import StrictDevice, on_device
from strategies import Case

from faiss_dmih import reference
from faiss_dmih.gpu import GpuIndexDMIH, knn, range_search
from faiss_dmih.gpu import index as index_module
from faiss_dmih.gpu.kernels import Launcher
from faiss_dmih.gpu.planner import Planner, Probe
from faiss_dmih.gpu.range_search import BYTES_PER_ANSWER
from faiss_dmih.gpu.store import MAX_CODES


@pytest.mark.parametrize("in_shared_memory", [True, False])
def test_ids_up_to_the_largest(launcher: Launcher, in_shared_memory: bool) -> None:
    """Of ids from all over the 32 bits the smallest win a tie."""
    rng, k, nq = np.random.default_rng(0), 7, 3
    edges = [0, 2**31 - 1, 2**31, MAX_CODES - 1]
    ids = np.array([[*edges, *rng.choice(MAX_CODES, 36)] for _ in range(nq)], np.uint64)
    distances = np.tile(np.array([2, 4095, 4096, 4096], np.uint64), (nq, 10))
    distances[:, :4] = 4096
    if in_shared_memory:  # one is nearer than all of those at the k-th distance
        distances[distances == 2] = 4096
        distances[:, 3], distances[distances == 4095] = 1, 4096
    entries = rng.permuted(distances << np.uint64(32) | ids, axis=1)
    expected = np.sort(entries, axis=1)[:, :k]
    kth = (expected[:, -1] >> np.uint64(32)).astype(np.int32)
    found = (entries >> np.uint64(32)).astype(np.int32)
    below, at = ((found < kth[:, None]).sum(1), (found == kth[:, None]).sum(1))
    which = (kth, below.astype(np.uint32), at.astype(np.uint32), np.zeros(nq, np.uint32))
    hist, bound, count = (np.zeros(1, np.uint32), np.zeros(1, np.int32), np.full(nq, 40, np.uint32))
    rest = (hist, bound, count, entries, np.int32(4096), np.uint32(40))
    none = (*(np.zeros(1, np.uint32) for _ in range(3)), np.uint32(0), np.uint32(0), np.int32(0))
    D, I = np.zeros((nq, k + 1), np.int32), np.zeros((nq, k + 1), np.int64)
    if in_shared_memory:
        kernel = launcher.kernel("answers", "answers_sorted")
        sizes = (np.uint32(k), np.uint32(8), np.int64(k + 1))
        kernel((nq,), (256,), (*which, *sizes, D, I, *rest, *none), shared=64)
    else:
        put, keys = np.zeros(nq, np.uint32), np.zeros((nq, k), np.uint64)
        kernel = launcher.kernel("answers", "answers_keys")
        kernel((nq,), (256,), (*which, np.uint32(k), put, keys, *rest, *none))
        sizes = (np.uint32(k), np.int64(k + 1), np.int64(nq))
        launcher.kernel("answers", "answers_write")(
            (2,), (256,), (np.sort(keys.reshape(-1)), *sizes, D, I)
        )
    np.testing.assert_array_equal(D[:, :k], expected >> np.uint64(32))
    np.testing.assert_array_equal(I[:, :k], expected & np.uint64(2**32 - 1))
    assert (D[:, k] == 2**31 - 1).all()
    assert (I[:, k] == -1).all()


def test_threads_share_a_planner(launcher: Launcher) -> None:
    """What one has found, another may just have taken."""

    class Shared(Planner):
        taken = False

        def __getattribute__(self, name: str) -> Any:
            value = super().__getattribute__(name)
            if name == "_outcome" and value is not None:
                if self.taken:
                    return None
                self.taken = True
            return value

    planner = Shared(StrictDevice(launcher))
    planner.tell(10, on_device(np.zeros(1, np.uint32)))
    planner._learn()
    assert planner.taken


CASE = Case(d=64, n=3000, nq=20, kind="clustered", seed=1)


def test_an_answer_may_take_all_memory(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work space is limited out of courtesy, unless there is a budget."""
    index = GpuIndexDMIH(64)
    index.add(CASE.xb)
    monkeypatch.setattr(index_module, "_WORKSPACE", 10 * BYTES_PER_ANSWER)
    expected = reference.range_search(CASE.xb, CASE.xq, 40)
    assert_same(index.range_search(CASE.xq, 40), expected)


def test_what_was_found_in_vain_needs_no_room(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query whose answers fit, but not beside those that it had when probing was given up."""
    xb = np.random.default_rng(0).integers(0, 256, (3000, 8), dtype=np.uint8)
    xb[:25] = xb[0]
    index = GpuIndexDMIH(64, mode="mih", cuts=[16, 16, 16, 16], memory_budget=1 << 30)
    index.add(xb)
    index.compact()
    index.add(xb[:25])  # a tail, which is scanned first
    expected = reference.range_search(np.concatenate([xb, xb[:25]]), xb[:1], 4)
    assert len(expected[1]) == 50
    monkeypatch.setattr("faiss_dmih.gpu.planner.scan_items", lambda *_: 20.0)
    assert_same(index.range_search(xb[:1], 4), expected)
    monkeypatch.setattr(range_search, "_FIRST_BUFFER", 1)
    monkeypatch.setattr(index, "_workspace", lambda: 50 * BYTES_PER_ANSWER)
    assert_same(index.range_search(xb[:1], 4), expected)


def test_chunks_without_ids(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """65 ids in chunks of 2: half of the 64 chunks have none."""
    for name, value in (("ROOM", 1), ("ROOM_PER_K", 1), ("ROOM_OF_BATCH", 0), ("CHUNK", 1)):
        monkeypatch.setattr(knn, name, value)
    xb = np.zeros((65, 8), np.uint8)
    xb[:, 0] = 1 << np.arange(65) % 8  # more at the k-th distance than there is room for
    index = GpuIndexDMIH(64, mode="scan")
    index.add(xb)
    xq = np.zeros((9, 8), np.uint8)
    assert_same(index.search(xq, 3), reference.knn(xb, xq, 3))


@pytest.mark.parametrize("d", [64, 128, 192])
def test_each_table_is_needed(gpu: Any, d: int) -> None:
    """For each table a query whose neighbour agrees with it there alone.

    After m steps of radius 0 all codes nearer than m have been seen, and of two that are m - 1 bits
    away, each in a table of its own, the one of the smaller id is the answer.
    """
    bits = 8
    m = d // bits
    rng = np.random.default_rng(0)
    xq = rng.integers(0, 256, (m, m), dtype=np.uint8)
    flips = 1 << rng.integers(0, bits, (2, m, m)).astype(np.uint8)
    tables = np.arange(m)
    flips[0, tables, tables] = 0
    flips[1, tables, (tables + 1) % m] = 0
    xb = np.concatenate(
        [rng.integers(0, 256, (500, m), dtype=np.uint8), xq ^ flips[0], xq ^ flips[1]]
    )
    index = GpuIndexDMIH(d, mode="mih", cuts=[bits] * m)
    index.add(xb)
    index.compact()
    index.force_engine("probe")
    given_up = list[int]()
    index._planner.tell = lambda nq, left: given_up.append(int(left[0]))
    for k in (1, 2):
        assert_same(index.search(xq, k), reference.knn(xb, xq, k))
    assert given_up == [0, 0]
    assert_same(index.range_search(xq, m), reference.range_search(xb, xq, m))


@pytest.mark.parametrize("mode", ["auto", "mih", "scan"])
def test_nothing_is_left_of_what_was_removed(gpu: Any, mode: str) -> None:
    """Tables and lists of codes that are there no more, or in other slots."""
    index = GpuIndexDMIH(64, mode=mode)
    index.force_engine("probe")
    other = Case(d=64, n=300, nq=5, kind="uniform", seed=2)

    def exact(xb: Any) -> None:
        assert_same(index.search(other.xq, 3), reference.knn(xb, other.xq, 3))
        assert_same(index.range_search(other.xq, 9), reference.range_search(xb, other.xq, 9))
        np.testing.assert_array_equal(index.reconstruct_n(), xb)

    duplicates = Case(d=64, n=400, nq=1, kind="duplicates", seed=1).xb
    index.add(duplicates)
    index.compact()
    index.reset()
    index.add(other.xb)
    exact(other.xb)
    index.compact()
    index.remove_ids(np.arange(100))
    exact(other.xb[100:])
    index.add(duplicates)
    index.compact()  # of lists, where there are any, and a tail
    both = np.concatenate([other.xb[100:], duplicates])
    exact(both)
    many = Case(d=64, n=5000, nq=1, kind="uniform", seed=3).xb
    index.add(many)
    exact(np.concatenate([both, many]))
    index.compact()  # few are equal now: the lists go
    exact(np.concatenate([both, many]))
    assert (index.memory_usage()["tables"] == 0) == (mode == "scan")
    assert index.remove_ids(np.array([-1, index.ntotal])) == 0
    index.remove_ids(np.arange(index.ntotal))
    index.add(other.xb)
    exact(other.xb)


def test_buckets_whose_lengths_overflow(gpu: Any) -> None:
    """Lengths are held against what may be looked at one by one: 8 of 2^31 are 0 together."""
    index = GpuIndexDMIH(64, mode="mih", cuts=[8] * 8)
    index.add(CASE.xb)
    index.compact()
    index.force_engine("probe")
    xq = np.array([[0, 3, 5, 6, 255, 0, 3, 5]], np.uint8)  # an even number of bits in each table
    odd = np.array([key.bit_count() % 2 for key in range(256)])
    ends = np.tile(np.cumsum([0, *odd]) % 2, 8).astype(np.uint32) << np.uint32(31)
    index._tables.offsets[:] = gpu.xp.asarray(ends)
    assert_same(index.search(xq, 3), reference.knn(CASE.xb, xq, 3))
    assert_same(index.range_search(xq, 25), reference.range_search(CASE.xb, xq, 25))


def test_probing_runs_out_of_room(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more codes near a query than are kept none is lost."""
    for name, value in (("ROOM", 4), ("ROOM_PER_K", 1), ("ROOM_OF_BATCH", 0), ("SAMPLE", 256)):
        monkeypatch.setattr(knn, name, value)
    xq = CASE.xq[:4]
    xb = np.repeat(xq, 9, axis=0)
    xb[:, 0] ^= 1 << np.arange(36, dtype=np.uint8) % 8
    xb = np.concatenate([CASE.xb[:1000], xb])
    index = GpuIndexDMIH(64, mode="mih", cuts=[8] * 8)
    index.add(xb)
    index.compact()
    index.force_engine("probe")
    for k in (1, 5):
        assert_same(index.search(xq, k), reference.knn(xb, xq, k))


@pytest.mark.parametrize("items", [5, 60, 200, 600, 2000])
def test_probing_is_given_up_anywhere(
    gpu: Any, items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = GpuIndexDMIH(64, cuts=[8] * 8)
    index.add(CASE.xb)
    index.compact()
    index.add(CASE.xb[:50])
    xb = np.concatenate([CASE.xb, CASE.xb[:50]])
    steps = len(index._tables.front.steps)
    monkeypatch.setattr(index._planner, "knn", lambda *_: Probe(steps, items, True))
    assert_same(index.search(CASE.xq, 3), reference.knn(xb, CASE.xq, 3))
    for radius in (3, 12):
        probe = Probe(radius, items, False)
        monkeypatch.setattr(index._planner, "range", lambda *_, probe=probe: probe)
        expected = reference.range_search(xb, CASE.xq, radius)
        assert_same(index.range_search(CASE.xq, radius), expected)


def test_batches(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """More queries than have numbers, and a buffer that ends amid the ids of a slot."""
    for module, name in ((index_module, "MAX_BATCH"), (knn, "MAX_BATCH")):
        monkeypatch.setattr(module, name, 7)
    monkeypatch.setattr(range_search, "_FIRST_BUFFER", 150)
    xb = np.repeat(CASE.xb[:5], 100, axis=0)
    index = GpuIndexDMIH(64)
    index.add(xb)
    index.compact()
    for engine in ("scan", "probe"):
        index.force_engine(engine)
        assert_same(index.search(CASE.xq, 3), reference.knn(xb, CASE.xq, 3))
        assert_same(index.range_search(CASE.xq, 40), reference.range_search(xb, CASE.xq, 40))


def test_more_samples_than_blocks(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4096 bits there is shared memory for the counters of 2 queries at a time."""
    for name, value in (("ROOM", 4), ("ROOM_PER_K", 1), ("ROOM_OF_BATCH", 0), ("SAMPLE", 256)):
        monkeypatch.setattr(knn, name, value)
    rng = np.random.default_rng(0)
    xb, xq = (rng.integers(0, 256, (n, 512), dtype=np.uint8) for n in (520, 18))
    index = GpuIndexDMIH(4096, mode="scan")
    index.add(xb)
    assert_same(index.search(xq, 3), reference.knn(xb, xq, 3))


@pytest.mark.parametrize("same", ["hash", "word"])
def test_codes_that_are_nearly_equal(gpu: Any, same: str) -> None:
    """Those of one hash are sorted as one, and are not; nor are those that share a word."""
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**64, (60, 2), dtype=np.uint64)
    hashed = words[:, 0] * np.uint64(0x9E3779B97F4A7C15)
    hashed ^= hashed >> np.uint64(29)
    # As Store._group has it: the sum is the hash.
    words[:, 1] = np.uint64(7) - hashed if same == "hash" else 7
    xb = np.tile(words, (5, 1)).view(np.uint8)
    index = GpuIndexDMIH(128)
    index.add(xb)
    index.compact()
    np.testing.assert_array_equal(index.reconstruct_n(), xb)
    assert_same(index.search(xb[:9], 7), reference.knn(xb, xb[:9], 7))


def test_the_largest_distance(gpu: Any) -> None:
    """4096, which is 13 bits of a key."""
    xq = np.random.default_rng(0).integers(0, 256, (3, 512), dtype=np.uint8)
    xb = np.concatenate([~xq, xq, ~xq])
    index = GpuIndexDMIH(4096, mode="scan")
    index.add(xb)
    assert_same(index.search(xq, 9), reference.knn(xb, xq, 9))
    assert_same(index.range_search(xq, 4097), reference.range_search(xb, xq, 4097))


@pytest.mark.parametrize("bits", [8, 16])
def test_the_farthest(gpu: Any, bits: int) -> None:
    """Codes up to d bits away, in tables and tail: rings show all, or (16 bits) end before."""
    d = 64
    index = GpuIndexDMIH(d, mode="mih", cuts=[bits] * (d // bits))
    xq = CASE.xq[:3]
    evenly = np.tile(np.array([0, 255], np.uint8), d // 16)  # as far in each substring of 16 bits
    xb = np.concatenate([CASE.xb[:100], ~xq, xq ^ evenly])
    index.add(xb)
    index.compact()
    index.add(xb)
    both = np.concatenate([xb, xb])
    index.force_engine("probe")
    mask = np.arange(len(both)) % 2 == 0
    for k in (len(both) - 1, len(both)):
        assert_same(index.search(xq, k), reference.knn(both, xq, k))
    assert_same(index.search(xq, 150, mask=mask), reference.knn(both, xq, 150, mask=mask))
    for radius in (30, 33, 40, 64, 65):
        expected = reference.range_search(both, xq, radius)
        assert_same(index.range_search(xq, radius), expected)

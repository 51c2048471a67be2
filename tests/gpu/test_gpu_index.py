"""GpuIndexDMIH gives the oracle's answers, whatever engine, shape of data and way of growth."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest
from checks import assert_knn, assert_range, assert_same
from devices import UNSANITIZED, StrictDevice, examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from strategies import Case, batches, cases, cuts, ks, radii

from faiss_dmih import IndexDMIH, reference
from faiss_dmih.gpu import GpuIndexDMIH, knn
from faiss_dmih.gpu.kernels import Kernel, Launcher

SIZES = (0, 1, 2, 31, 33, 255, 257, 1025, 2049, 3000)
SMALL = cases(sizes=SIZES).filter(lambda case: case.n * case.nq * case.d <= 1 << 24)
ENGINES = ("auto", "scan", "probe")


@pytest.fixture(params=["room", "tight"])
def room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With tight room bounds come from samples, and queries find more than is kept."""
    if request.param == "tight":
        monkeypatch.setattr(knn, "ROOM", 4)
        monkeypatch.setattr(knn, "ROOM_PER_K", 1)
        monkeypatch.setattr(knn, "ROOM_OF_BATCH", 0)
        monkeypatch.setattr(knn, "CHUNK", 300)


def grown(case: Case, sizes: list[int], compact_after: int, **options: Any) -> GpuIndexDMIH:
    """An index that was given its codes in so many adds, and made its tables after one of them."""
    index = GpuIndexDMIH(case.d, **options)
    at = 0
    for number, size in enumerate(sizes):
        index.add(case.xb[at : at + size])
        at += size
        if number == compact_after:
            index.compact()
    return index


@UNSANITIZED
@examples(2)
@given(case=SMALL, engine=st.sampled_from(ENGINES), data=st.data())
def test_exact(gpu: Any, room: None, case: Case, engine: str, data: st.DataObject) -> None:
    mode = data.draw(st.sampled_from(["auto", "mih", "scan"]))
    sizes = data.draw(batches(case.n))
    index = grown(
        case, sizes, data.draw(st.integers(0, 6)), mode=mode, cuts=data.draw(cuts(case.d))
    )
    index.force_engine(engine)
    assert index.ntotal == case.n
    assert_knn(index, case.xb, case.xq, data.draw(ks(case.n)))
    assert_range(index, case.xb, case.xq, data.draw(radii(case.d)))


@UNSANITIZED
@examples(2)
@given(case=SMALL, engine=st.sampled_from(ENGINES), data=st.data())
def test_filtered(gpu: Any, room: None, case: Case, engine: str, data: st.DataObject) -> None:
    index = grown(case, data.draw(batches(case.n)), data.draw(st.integers(0, 6)))
    index.force_engine(engine)
    share = data.draw(st.sampled_from([0, 0.01, 0.5, 1]))
    mask = np.random.default_rng(case.seed).random(case.n) < share
    k = data.draw(ks(case.n))
    expected = reference.knn(case.xb, case.xq, k, mask=mask)
    assert_same(index.search(case.xq, k, mask=mask), expected)
    chosen = faiss.SearchParameters(sel=faiss.IDSelectorBatch(np.flatnonzero(mask)))
    assert_same(index.search(case.xq, k, params=chosen), expected)
    radius = data.draw(radii(case.d))
    expected_range = reference.range_search(case.xb, case.xq, radius, mask=mask)
    assert_same(index.range_search(case.xq, radius, mask=mask), expected_range)


class Naive:
    """The scans by their shortest way."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def kernel(self, file: str, name: str, **defines: int) -> Kernel:
        naive = {"scan_knn": "scan_knn_naive", "scan_range": "scan_range_naive"}
        return self._launcher.kernel(file, naive.get(name, name), **defines)


@UNSANITIZED
@examples(0.5)
@given(case=SMALL, data=st.data())
def test_the_naive_scan_is_right_too(gpu: Any, case: Case, data: st.DataObject) -> None:
    index = GpuIndexDMIH(case.d, mode="scan")
    index.add(case.xb)
    gpu.launcher, launcher = Naive(gpu.launcher), gpu.launcher
    try:
        assert_knn(index, case.xb, case.xq, data.draw(ks(case.n)))
        assert_range(index, case.xb, case.xq, data.draw(radii(case.d)))
    finally:
        gpu.launcher = launcher


TIED = [
    Case(d=64, n=3000, nq=5, kind="all equal", seed=1),
    Case(d=64, n=3000, nq=5, kind="few bits", seed=2),
    Case(d=8, n=3000, nq=40, kind="uniform", seed=3),
    Case(d=256, n=2500, nq=5, kind="duplicates", seed=4),
    Case(d=4096, n=600, nq=5, kind="complements", seed=5),
    Case(d=72, n=3000, nq=33, kind="one bucket", seed=6),
]


@pytest.mark.parametrize("case", TIED, ids=lambda case: f"{case.kind}-{case.d}")
@pytest.mark.parametrize("mode", ["auto", "mih", "scan"])
def test_ties(gpu: Any, room: None, case: Case, mode: str) -> None:
    """Of many codes at the k-th distance the smallest ids win, filtered or not; by any engine."""
    index = grown(case, [2000, case.n - 2000] if case.n > 2000 else [case.n], 0, mode=mode)
    mask = np.arange(case.n) % 3 != 1
    for k, engine in ((1, "probe"), (7, "scan"), (9, "auto"), (100, "probe"), (case.n - 1, "scan")):
        index.force_engine(engine)
        assert_knn(index, case.xb, case.xq, k)
        expected = reference.knn(case.xb, case.xq, k, mask=mask)
        assert_same(index.search(case.xq, k, mask=mask), expected)


def test_what_is_tested(gpu: Any, room: None, request: pytest.FixtureRequest) -> None:
    """Room is short where it is to be: each kernel of the engine runs."""
    if not isinstance(gpu, StrictDevice):
        pytest.skip("only launches that are recorded")
    case = Case(d=64, n=3000, nq=40, kind="clustered", seed=1)
    index = grown(case, [2500, 500], 0)
    tight = request.node.callspec.params["room"] == "tight"
    for engine in ("scan", "probe"):
        index.force_engine(engine)
        for k in (3, 20):
            index.search(case.xq, k)
        index.range_search(case.xq, 10)
    started = set(gpu.launcher.started)
    needed = {"bucket_counts", "bucket_fill", "knn_begin", "knn_finish", "scan_knn", "scan_range"}
    needed |= {"probe_knn", "probe_range", "answers_sorted", "answers_keys", "answers_write"}
    short = {"scan_sample", "knn_first_bounds", "exact_ties", "exact_entries"}
    assert started == (needed | short if tight else needed)


def run_machine(n_codes: int) -> type[RuleBasedStateMachine]:
    class Life(RuleBasedStateMachine):
        """Adds, removals, rebuilds and searches in any order."""

        @initialize(d=st.sampled_from([8, 64, 72, 128]), mode=st.sampled_from(["auto", "mih"]))
        def begin(self, d: int, mode: str) -> None:
            self.index = GpuIndexDMIH(d, mode=mode)
            self.xb = np.empty((0, d // 8), np.uint8)

        @rule(
            case=st.builds(
                Case,
                d=st.just(8),
                n=st.integers(0, n_codes),
                nq=st.just(3),
                kind=st.sampled_from(["uniform", "duplicates"]),
                seed=st.integers(0, 1000),
            )
        )
        def add(self, case: Case) -> None:
            codes = np.resize(case.xb, (case.n, self.index.code_size))
            codes[:, 0] ^= np.arange(case.n, dtype=np.uint8) % 3
            self.index.add(codes)
            self.xb = np.concatenate([self.xb, codes])

        @rule(seed=st.integers(0, 1000), share=st.sampled_from([0.0, 0.1, 0.9]))
        def remove(self, seed: int, share: float) -> None:
            gone = np.random.default_rng(seed).random(len(self.xb)) < share
            ids = np.flatnonzero(gone)
            outside = np.array([-1, len(self.xb)])
            assert self.index.remove_ids(np.concatenate([ids, outside, ids])) == len(ids)
            self.xb = self.xb[~gone]

        @rule()
        def compact(self) -> None:
            self.index.compact()

        @precondition(lambda self: len(self.xb) > 0)
        @rule(engine=st.sampled_from(ENGINES), k=st.integers(1, 40), seed=st.integers(0, 1000))
        def search(self, engine: str, k: int, seed: int) -> None:
            self.index.force_engine(engine)
            xq = self.xb[np.random.default_rng(seed).integers(0, len(self.xb), 3)] ^ np.uint8(4)
            assert_knn(self.index, self.xb, xq, k)
            assert_range(self.index, self.xb, xq, 3)

        @rule()
        def reset(self) -> None:
            self.index.reset()
            self.xb = self.xb[:0]

        @invariant()
        def holds_what_was_added(self) -> None:
            if hasattr(self, "index"):
                assert self.index.ntotal == len(self.xb)
                np.testing.assert_array_equal(self.index.reconstruct_n(), self.xb)

    return Life


@UNSANITIZED
def test_life(gpu: Any) -> None:
    machine = run_machine(400)
    machine.TestCase.settings = settings(examples(0.5), stateful_step_count=12)
    machine.TestCase().runTest()


def test_there_and_back(gpu: Any) -> None:
    case = Case(d=96, n=3000, nq=5, kind="clustered", seed=1)
    for cut in (None, (20, 25, 25, 26)):
        cpu = IndexDMIH(case.d, cuts=cut)
        cpu.add(case.xb)
        there = cpu.to_gpu()
        assert (there.cuts or cut, there.mode, there.device) == (cut, "auto", 0)
        assert_knn(there, case.xb, case.xq, 10)
        back = there.to_cpu()
        assert back.mode == "auto"
        assert_knn(back, case.xb, case.xq, 10)
        np.testing.assert_array_equal(back.reconstruct_n(0, case.n), case.xb)


def test_tables_come_by_themselves(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And adds are amortised: most of them rebuild nothing."""
    from faiss_dmih.gpu import index as module

    monkeypatch.setattr(module, "_TAIL", 200)
    case = Case(d=32, n=2400, nq=5, kind="uniform", seed=1)
    index = GpuIndexDMIH(case.d)
    rebuilt = 0
    for at in range(0, case.n, 100):
        before = index.memory_usage()["tables"]
        index.add(case.xb[at : at + 100])
        rebuilt += index.memory_usage()["tables"] != before
    assert 3 <= rebuilt <= 8
    assert index.cuts is not None
    assert_knn(index, case.xb, case.xq, 10)


def test_equal_codes_share_a_row(gpu: Any) -> None:
    case = Case(d=64, n=3000, nq=5, kind="duplicates", seed=1)
    distinct = len(np.unique(case.xb, axis=0))
    assert distinct < 300
    index = GpuIndexDMIH(case.d)
    index.add(case.xb)
    index.compact()
    assert index.memory_usage()["codes"] == 8 * distinct
    apart = GpuIndexDMIH(case.d, mode="mih")
    apart.add(case.xb)
    apart.compact()
    assert apart.memory_usage()["codes"] == 8 * case.n

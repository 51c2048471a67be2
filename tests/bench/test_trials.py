from __future__ import annotations

import faiss
import pytest

from faiss_dmih import IndexDMIH, _engine
from faiss_dmih.bench import trials
from faiss_dmih.bench.results import Spread, TrialResult
from faiss_dmih.bench.sources import Source
from faiss_dmih.bench.trials import BuildTrial, GrowthTrial, KernelTrial, Stopwatch
from faiss_dmih.data.files import no_progress

CODES = Source("uniform", bits=64, n=3000, nq=50)
BUILD = BuildTrial(CODES, threads=(1, 2), rounds=2)
GROWTH = GrowthTrial(CODES, threads=2, rounds=2, adds=7, further=(1, 30), calls=3)


def by_name(result):
    return {figure.what: figure for figure in result.figures}


def test_ratios_are_taken_within_a_round():
    watch = Stopwatch()
    watch.seconds = {"a": [6.0, 2.0, 8.0], "b": [2.0, 1.0, 1.0]}
    figure = watch.ratio("a over b", "a", "b", "goal")
    assert (figure.value, figure.unit, figure.goal) == (Spread(3.0, 2.0, 8.0), "x", "goal")
    assert watch.figure("a", "a", 2).value == Spread(3.0, 1.0, 4.0)


def test_builds_are_compared_with_the_fastest_multihash(monkeypatch):
    times = iter(range(1, 1000))
    monkeypatch.setattr(trials.time, "perf_counter", lambda: float(next(times) ** 2))
    figures = by_name(BUILD.run(no_progress))
    names = [name for name in figures if name.startswith("multihash")]
    assert len(names) == 4
    assert {f.goal for f in figures.values()} == {"", *BuildTrial.GOALS}
    for threads in ("1 thread", "2 threads"):
        rival = min(figures[n].value.min for n in names if n.endswith(threads))
        own = figures[f"dmih-auto, {threads}"].value.min
        # The clock ticks ever slower, so the first round has the smallest times.
        ratios = figures[f"dmih-auto over multihash, {threads}"].value
        assert ratios.max == pytest.approx(rival / own)
    assert figures["dmih-mih, 2 threads over 1 thread"].goal == "threads"


def test_one_number_of_threads_is_compared_with_nothing():
    result = BuildTrial(CODES, threads=(2,), rounds=1).run(no_progress)
    assert not [f for f in result.figures if f.goal == "threads"]
    assert result.error == ""


def test_threads_are_put_back():
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    try:
        BUILD.run(no_progress)
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)


def test_growth_asks_after_every_kind_of_add(monkeypatch):
    log = []

    class Logged(IndexDMIH):
        def add(self, x):
            log.append(("add", len(x)))
            super().add(x)

        def search(self, x, k):
            log.append(("search", self.ntotal))
            return super().search(x, k)

    monkeypatch.setattr(trials, "IndexDMIH", Logged)
    result = GROWTH.run(no_progress)
    assert result.error == ""
    a_round = [
        ("add", 3000),
        *[("search", 3000)] * 3,
        *[("add", 3000 // 7 + (i < 3000 % 7)) for i in range(7)],
        *[("search", 3000)] * 3,
        *[("search", 3000)] * 3,  # after adds one by one, which are not made from Python
        ("add", 1),
        *[("search", 3001)] * 3,
        ("add", 30),
        *[("search", 3031)] * 3,
    ]
    assert log == a_round * 2
    goals = [figure.what for figure in result.figures if figure.goal == "speed"]
    assert goals == [
        f"speed after {what}, of that after one add"
        for what in ("7 adds", "one by one", "1 more", "30 more")
    ]
    assert TrialResult.read({**vars(result), "figures": []}).title == GROWTH.title


@pytest.mark.parametrize(("ntotal", "where"), [(3000, "after one add"), (3031, "after 30 more")])
def test_growth_with_a_wrong_answer_fails(monkeypatch, ntotal, where):
    class Lying(IndexDMIH):
        def search(self, x, k):
            D, I = super().search(x, k)
            I[7] += self.ntotal == ntotal
            return D, I

    monkeypatch.setattr(trials, "IndexDMIH", Lying)
    result = GROWTH.run(no_progress)
    assert result.error.startswith(f"{where}: answer differs from IndexBinaryFlat's in 1 of 50")
    assert result.figures == []


def test_kernels_are_held_against_their_limits(monkeypatch):
    def speeds(d):
        scale = d / 64
        return {
            "block": 512.0,
            "fold": 25.6 * scale,
            "fold_limit": 20.48 * scale,
            "planes": 700.0,
            "row": 2.0 * scale,
            "row_limit": 1.0 * scale,
        }

    monkeypatch.setattr(_engine, "kernel_speeds", speeds)
    result = KernelTrial(bits=(64, 128), rounds=3).run(no_progress)
    medians = {
        (f.what, f.unit): (f.value.median, f.goal) for f in result.figures if "128 bits" in f.what
    }
    assert medians == {
        ("batches, 128 bits: distances", "/s"): (pytest.approx(1e10), ""),
        ("batches, 128 bits: part of the vector units' peak", "%"): (pytest.approx(0.8), "fold"),
        ("batches, 128 bits: making a block's planes", "s"): (pytest.approx(7e-7), ""),
        ("lone queries, 128 bits: distances", "/s"): (pytest.approx(2.5e8), ""),
        ("lone queries, 128 bits: part of the memory's peak", "%"): (0.5, "row"),
    }
    assert len(result.figures) == 10


def test_kernels_of_this_build():
    result = KernelTrial(bits=(64,), rounds=1).run(no_progress)
    assert all(figure.value.median > 0 for figure in result.figures)


def test_names_and_keys_tell_trials_apart():
    others = [
        BUILD,
        GROWTH,
        BuildTrial(Source("uniform", 64, 4000), (1, 2), 2),
        KernelTrial((64,), 1),
    ]
    assert len({trial.name for trial in others}) == len(others)
    assert BUILD.key() != BuildTrial(CODES, threads=(1, 2), rounds=3).key()
    assert BUILD.key() != BuildTrial(Source("uniform", 64, 3000, nq=50, seed=1), (1, 2), 2).key()

from __future__ import annotations

import json
from dataclasses import asdict

import faiss
import numpy as np
import pytest

from faiss_dmih import IndexDMIH
from faiss_dmih.bench import approximate, memory, partitions, scaling
from faiss_dmih.bench.approximate import ApproximateTrial
from faiss_dmih.bench.competitors import FAMILIES
from faiss_dmih.bench.memory import MemoryTrial
from faiss_dmih.bench.partitions import PartitionTrial
from faiss_dmih.bench.results import TrialResult
from faiss_dmih.bench.scaling import ScalingTrial
from faiss_dmih.bench.sources import Source
from faiss_dmih.data.files import no_progress

CODES = Source("uniform", bits=64, n=3000, nq=40)
MANY = Source("uniform", bits=64, n=50_000, nq=40)
MEMORY = MemoryTrial(MANY, threads=2, rounds=2, k=5, budgets=(0, 8))
SCALING = ScalingTrial(64, n=(500, 5000), batch=(1, 40), threads=2, rounds=2, seed=0)
APPROXIMATE = ApproximateTrial(
    CODES, "held-out", 5, (1, 40), recall=0.9, competitors=("hnsw", "ivf"), threads=1, rounds=2
)
PARTITION = PartitionTrial(
    Source("learned", bits=64, n=20_000, nq=40, options={"distinct": 15_000}),
    k=5,
    strategies=("data-driven", "entropy"),
    threads=1,
    rounds=2,
)


def by_name(result):
    return {figure.what: figure.value.median for figure in result.figures}


def found(result):
    """What a trial has found, when it has been to JSON and back."""
    again = TrialResult.read(json.loads(json.dumps(asdict(result))))
    assert again == result
    assert again.error == ""
    return again


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    for module in (scaling, memory, partitions):
        timed = module.seconds_per_query
        monkeypatch.setattr(
            module, "seconds_per_query", lambda *a, timed=timed: timed(*a, least=0.0)
        )
    sweeps = {"hnsw": ("hnsw.efSearch", (10, 64)), "ivf": ("nprobe", (1, 64))}
    monkeypatch.setattr(approximate, "SWEEPS", sweeps)
    monkeypatch.setattr(approximate, "MAX_CODES", (30, 100_000))


def test_memory_is_told_by_parts_and_budgets():
    result = found(MEMORY.run(no_progress))
    figures = by_name(result)
    index = IndexDMIH(64)
    index.add(MANY.load().xb)
    index.search(np.zeros((40, 8), np.uint8), 5)
    usage, m = index.memory_usage(), len(index.cuts)
    assert m > 2
    for part in usage:
        assert figures[f"{part}, bytes per code"] == pytest.approx(usage[part] / 50_000, rel=0.05)
    beyond = figures["beyond the codes, bytes per code"]
    assert beyond == pytest.approx(figures["total, bytes per code"] - 8)
    (share,) = (f for f in result.figures if f.goal == "bytes")
    assert share.value.median == pytest.approx(beyond / (8 * m + 10))
    (chart,) = result.charts
    assert [curve.name for curve in chart.curves] == ["held-out queries", "planted queries"]
    for curve in chart.curves:
        assert curve.points == ["0 B", "8 B", "default"]
        assert curve.x == sorted(curve.x)
        assert curve.x[-1] == pytest.approx(figures["total, bytes per code"])
        assert all(y.min > 0 for y in curve.y)


def test_peaks_are_those_of_another_process():
    figures = by_name(MEMORY.run(no_progress))
    held, build, search = (
        figures[f"{what}, beyond the given codes, per code"]
        for what in ("resident after building", "peak of building", "peak of searching")
    )
    assert 0 < held <= build
    assert held <= search
    assert 30 * 2**20 < figures["peak of the whole process"] < 2**30


def test_peaks_that_cannot_be_known_are_said_so(monkeypatch):
    monkeypatch.setattr(memory.sys, "executable", "/bin/false")
    result = MEMORY.run(no_progress)
    assert result.notes == ["Peaks are not known: exit status 1"]
    assert not [what for what in by_name(result) if "peak" in what]


def test_times_are_measured_for_every_n():
    result = found(SCALING.run(no_progress))
    assert result.notes == []
    for chart, size in zip(result.charts, ("one query at a time", "batches of 40"), strict=True):
        assert size in chart.title
        kinds = ["near-duplicate", "new", "uniform", "IndexBinaryFlat"]
        assert [curve.name for curve in chart.curves] == kinds
        assert all(curve.x == [500, 5000] for curve in chart.curves)
        for curve in chart.curves:
            (exponent,) = (
                f.value for f in result.figures if f.what == f"exponent of n, {size}: {curve.name}"
            )
            assert np.isfinite([exponent.min, exponent.max]).all()


def test_an_exponent_is_the_slope_of_logarithms():
    n = [10, 1000, 100_000]
    assert scaling._slope(n, [3 * x**0.75 for x in n]) == pytest.approx(0.75)


def test_what_does_not_fit_the_memory_is_left_out_and_said_so(monkeypatch):
    monkeypatch.setattr(scaling, "_available", lambda: 600_000)
    result = SCALING.run(no_progress)
    assert result.notes == ["5,000 codes were left out: they may take 0.0 GiB, 0.0 are available"]
    assert {x for chart in result.charts for curve in chart.curves for x in curve.x} == {500}
    assert not [f for f in result.figures if "exponent" in f.what]
    assert scaling._lacking(10**9, 64).startswith("they may take 134.1 GiB")


@pytest.mark.parametrize(
    ("module", "trial"), [(scaling, SCALING), (memory, MEMORY), (partitions, PARTITION)]
)
def test_a_wrong_answer_fails(monkeypatch, module, trial):
    class Lying(IndexDMIH):
        def search(self, x, k):
            D, I = super().search(x, k)
            if self.memory_budget == 0 or self.ntotal == 5000 or self.partition is not None:
                I[0, 0] += 1
            return D, I

    monkeypatch.setattr(module, "IndexDMIH", Lying)
    result = trial.run(no_progress)
    assert "differs from IndexBinaryFlat's in 1 of" in result.error
    assert result.figures == result.charts == []


def test_recall_is_weighed_against_speed():
    result = found(APPROXIMATE.run(no_progress))
    assert len(result.charts) == 2
    for chart in result.charts:
        curves = {curve.name: curve for curve in chart.curves}
        names = ["IndexDMIH (max_codes)", "IndexDMIH, exact", "hnsw (efSearch)", "ivf (nprobe)"]
        assert list(curves) == names
        assert curves["IndexDMIH, exact"].x == [1.0]
        ours = curves["IndexDMIH (max_codes)"]
        assert [int(point) for point in ours.points] == list(approximate.MAX_CODES)
        assert ours.x == sorted(ours.x)
        assert ours.x[0] < 0.9 <= ours.x[-1]
    goals = [f.what for f in result.figures if f.goal == "ahead"]
    assert len(goals) == 4


def test_strategies_are_held_against_contiguous_bits():
    result = found(PARTITION.run(no_progress))
    figures = by_name(result)
    kinds = PARTITION.source.kinds
    for kind in kinds:
        assert figures[f"candidates a query, {kind}: contiguous"] > 0
        for strategy in PARTITION.strategies:
            assert 0.1 < figures[f"candidates over contiguous, {kind}: {strategy}"] < 10
            for engine in ("tables alone", "planner"):
                assert figures[f"time over contiguous, {kind}, {engine}: {strategy}"] > 0
    assert figures["learning by entropy"] > 0
    assert len([f for f in result.figures if f.goal == "candidates"]) == 2 * len(kinds)
    assert "learning by contiguous" not in figures


def test_the_least_lead_counts():
    def point(subject, recall, *seconds):
        return approximate._Point(subject, "", "", None, list(seconds), recall)

    findings = approximate.Findings()
    points = [
        point("IndexDMIH", 0.5, 0.1, 0.1),
        point("IndexDMIH", 0.93, 1.0, 2.0),
        point("IndexDMIH, exact", 1.0, 4.0, 4.0),
        point("hnsw", 0.8, 0.01, 0.01),
        point("hnsw", 0.92, 3.0, 3.0),  # beaten thrice
        point("hnsw", 0.99, 8.0, 2.0),  # by the exact search only: twice, or half as fast
        point("ivf", 0.89, 1.0, 1.0),
    ]
    APPROXIMATE._compare(findings, points, "in calls")
    (figure,) = findings.figures
    assert (figure.value.max, figure.value.min) == (2.0, 0.5)
    assert findings.notes == ["ivf, in calls: no recall of 0.9 reached"]


def test_who_is_not_installed_is_no_fault(monkeypatch):
    keys = [APPROXIMATE.key()]
    monkeypatch.setattr(FAMILIES["hnsw"], "missing", classmethod(lambda cls: "not here"))
    keys.append(APPROXIMATE.key())
    assert keys[0] != keys[1]
    result = APPROXIMATE.run(no_progress)
    assert result.notes[0] == "hnsw took no part: not here"
    assert not [f for f in result.figures if "hnsw" in f.what]


def test_threads_are_put_back():
    before = faiss.omp_get_max_threads()
    APPROXIMATE.run(no_progress)
    assert faiss.omp_get_max_threads() == before


def test_names_tell_trials_apart():
    trials = [MEMORY, SCALING, APPROXIMATE, PARTITION]
    assert len({trial.name for trial in trials}) == len({trial.title for trial in trials}) == 4

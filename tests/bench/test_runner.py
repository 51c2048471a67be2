from __future__ import annotations

import json
from dataclasses import replace
from typing import ClassVar

import faiss
import numpy as np
import pytest
from matplotlib.image import imread

from faiss_dmih.bench import Cell, Group, Protocol, Run, Suite, run, runner
from faiss_dmih.bench.archive import Archive
from faiss_dmih.bench.cells import grid
from faiss_dmih.bench.competitors import FAMILIES, DmihAuto, DmihScan, MultiHash
from faiss_dmih.bench.plots import write_plots
from faiss_dmih.bench.protocol import Timing
from faiss_dmih.bench.report import disturbance, duration, markdown, ratio
from faiss_dmih.bench.results import Spread
from faiss_dmih.data import DataUnavailable, synthetic_codes

# Long enough for all queries, and over after two rounds.
QUICK = Protocol(cell_seconds=10.0, min_rounds=2, max_rounds=2, min_seconds=0.0, settle_seconds=0.0)


class Liar:
    """An index that answers right but for one id."""

    def __init__(self, index):
        self._index = index

    def __getattr__(self, name):
        return getattr(self._index, name)

    def search(self, xq, k):
        D, I = self._index.search(xq, k)
        I[-1, -1] += 1
        return D, I

    def range_search(self, xq, thresh):
        lims, D, I = self._index.range_search(xq, thresh)
        I[-1] += 1
        return lims, D, I


def groups(n=500, nq=40, ks=(1, 5), batches=(1, 40), families=()):
    codes = synthetic_codes("uniform", bits=64, n=n, nq=nq, seed=0)
    cells = grid(
        "uniform",
        d=64,
        n=n,
        nq={"held-out": nq, "planted": nq},
        ks={"held-out": list(ks), "planted": [1]},
        batches=list(batches),
        threads=2,
    )
    return [Group(lambda progress: codes, dict.fromkeys(cells, tuple(families)), QUICK)]


def quick_run(families=("dmih-auto", "multihash"), **kwargs):
    return run(Suite(groups(families=families), protocol=QUICK, threads=2), **kwargs)


@pytest.fixture(scope="module")
def result():
    return quick_run()


def by_name(cell_result):
    return {m.competitor: m for m in cell_result.measurements}


def test_all_cells_are_measured_and_right(result):
    assert [r.cell for r in result.cells] == list(groups()[0].cells)
    assert result.failures() == []
    for cell in result.cells:
        names = by_name(cell)
        assert next(iter(names)) == "flat"
        assert names["flat"].speedup.median == 1.0
        assert names["dmih-auto"].exact
        assert names["dmih-auto"].recall == names["dmih-auto"].distance_recall == 1.0
        assert not names["multihash-7x9-nflip0"].exact
        recalls = [names[f"multihash-7x9-nflip{i}"].distance_recall for i in range(3)]
        assert recalls == sorted(recalls)
        if cell.cell.queries == "held-out":
            assert recalls[0] < 1.0


def test_ratios_are_times_of_flat_over_ones_own(result):
    for cell in result.cells:
        for m in cell.measurements:
            assert 0 < m.speedup.min <= m.speedup.median <= m.speedup.max
            times = m.seconds_per_query
            assert 0 < times.min <= times.median <= times.max
            assert m.rounds == 2


def test_variants_share_one_build(monkeypatch):
    made = []

    class Counted(MultiHash):
        def make(self, d):
            made.append(self.label)
            return super().make(d)

    monkeypatch.setitem(FAMILIES, "multihash", Counted)
    result = quick_run(families=["multihash"])
    variants = [m.label for m in result.cells[0].measurements if m.family == "multihash"]
    assert len(variants) == 6
    # A small index to warm up and the real one, however many variants and cells there are.
    assert sorted(made) == sorted(2 * list(dict.fromkeys(variants)))


def test_builds_are_timed_and_weighed(result):
    builds = {b.label: b for b in result.cells[0].builds}
    assert builds["flat"].bytes == 500 * 8
    assert builds["flat"].bytes_per_code == 8.0
    assert all(
        b.success and b.add_seconds > 0 and b.first_search_seconds > 0 for b in builds.values()
    )
    assert builds["dmih-auto"].bytes_from == "memory_usage()"
    assert builds["multihash-7x9"].bytes > builds["flat"].bytes


def test_a_lying_index_is_caught(monkeypatch):
    class Lying(DmihScan):
        def make(self, d):
            return Liar(super().make(d))

    monkeypatch.setitem(FAMILIES, "dmih-scan", Lying)
    result = quick_run(families=["dmih-scan"])
    failures = result.failures()
    assert len(failures) == len(result.cells)
    assert failures[0].startswith(f"{result.cells[0].cell.id}, dmih-scan: answer differs from")
    assert "differs from IndexBinaryFlat's in" in markdown(result, [])
    assert all(by_name(r)["flat"].success for r in result.cells)


def test_an_index_that_cannot_be_built_fails_and_the_others_go_on(monkeypatch):
    class Broken(DmihScan):
        def make(self, d):
            raise RuntimeError("out of luck | really")

    monkeypatch.setitem(FAMILIES, "dmih-scan", Broken)
    result = quick_run(families=["dmih-scan", "dmih-auto"])
    for r in result.cells:
        names = by_name(r)
        assert not names["dmih-scan"].success
        assert names["dmih-scan"].error == "RuntimeError: out of luck | really"
        assert names["dmih-auto"].success
        assert names["flat"].success
    assert "out of luck" in markdown(result, [])


def test_threads_are_set_and_put_back(monkeypatch):
    seen = []

    class Watching(DmihScan):
        def make(self, d):
            seen.append(faiss.omp_get_max_threads())
            return super().make(d)

    monkeypatch.setitem(FAMILIES, "dmih-scan", Watching)
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(1)
        quick_run(families=["dmih-scan"])
        assert faiss.omp_get_max_threads() == 1
    finally:
        faiss.omp_set_num_threads(before)
    assert set(seen) == {2}


def test_flat_is_not_slowed_down_by_threads_it_cannot_use(result):
    for r in result.cells:
        threads = {m.family: m.threads for m in r.measurements}
        assert threads["flat"] == (1 if r.cell.batch == 1 else 2)
        assert threads["dmih-auto"] == threads["multihash"] == 2


def test_each_competitor_runs_with_its_threads(monkeypatch):
    seen = []

    class Watched(DmihScan):
        def make(self, d):
            index = super().make(d)
            search = index.search

            def watched(xq, k):
                seen.append(faiss.omp_get_max_threads())
                return search(xq, k)

            index.search = watched
            return index

    monkeypatch.setitem(FAMILIES, "dmih-scan", Watched)
    quick_run(families=["dmih-scan"])
    assert set(seen) == {2}


def test_results_go_to_json_and_back(result, tmp_path):
    result.save(tmp_path / "bench.json")
    assert Run.load(tmp_path / "bench.json") == result
    machine = json.loads((tmp_path / "bench.json").read_text())["machine"]
    for key in ("cpu", "cores", "ram_gib", "os", "faiss", "numpy", "python", "faiss_dmih", "date"):
        assert machine[key]


def test_results_of_another_format_are_refused(tmp_path):
    (tmp_path / "old.json").write_text('{"format": 0}')
    with pytest.raises(ValueError, match="not results of format"):
        Run.load(tmp_path / "old.json")


def test_each_cell_is_written_when_it_is_done(tmp_path):
    result = quick_run(families=[], archive=Archive(tmp_path, {}))
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {f"{r.cell.id}.json" for r in result.cells}
    raw = json.loads((tmp_path / f"{result.cells[0].cell.id}.json").read_text())
    assert raw["cell"]["k"] == 1
    assert raw["measurements"][0]["competitor"] == "flat"


def test_markdown_has_a_row_for_every_measurement(result):
    text = markdown(result, ["speedup.png"])
    assert "![speedup.png](speedup.png)" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    for r in result.cells:
        for m in r.measurements:
            assert any(line.startswith(f"| {r.cell.k} | {m.competitor} |") for line in rows)
    # Every table is well formed: rows have as many cells as their header.
    width = 0
    for line in text.splitlines():
        if line.startswith("|"):
            width = width or line.count("|")
            assert line.count("|") == width
        else:
            width = 0


def test_plots_are_images_of_the_expected_size(result, tmp_path):
    paths = write_plots(result, tmp_path)
    assert [p.name for p in paths] == ["speedup.png", "recall_batch1.png", "recall_batch40.png"]
    for path in paths:
        image = imread(path)
        height, width = image.shape[:2]
        # Two workloads make two columns; two batches or two k make two rows.
        assert 900 <= width <= 1100
        assert 850 <= height <= 1100
        assert len(np.unique(image[..., :3].reshape(-1, 3), axis=0)) > 20


def test_no_cells_no_plots(result, tmp_path):
    empty = Run(result.machine, result.protocol, 2, 0)
    assert write_plots(empty, tmp_path) == []


def test_a_busy_machine_is_reported(result):
    quiet = [type(r)(**{**vars(r), "bystanders": 0.05}) for r in result.cells]
    busy = [*quiet[1:], type(quiet[0])(**{**vars(quiet[0]), "bystanders": 1.4})]
    assert disturbance(type(result)(**{**vars(result), "cells": quiet})) == ""
    message = disturbance(type(result)(**{**vars(result), "cells": busy}))
    assert f"1 of {len(busy)} cells" in message
    assert "1.4" in message


def test_range_searches_are_measured_and_checked():
    codes = synthetic_codes("perceptual", bits=64, n=500, nq=40, seed=0)
    cells = [
        Cell("perceptual", kind, 64, 500, 40, 0, batch, 1, radius=20)
        for kind in codes.queries
        for batch in (1, 40)
    ]
    families = ["dmih-auto", "dmih-engines", "dmih-mih", "dmih-scan", "multihash"]
    group = Group(lambda progress: codes, dict.fromkeys(cells, families), QUICK)
    result = run(Suite([group], protocol=QUICK))
    assert result.failures() == []
    for r in result.cells:
        names = by_name(r)
        assert names["dmih-auto"].recall == names["dmih-auto"].distance_recall == 1.0
        assert names["dmih-auto"].speedup.median > 0
    near = by_name(result.cells[2])
    assert 0 < near["multihash-7x9-nflip0"].recall < 1
    # At a distance below 20 one of seven substrings differs in 19 / 7 bits at most.
    assert [near[f"multihash-7x9-nflip{i}"].exact for i in range(3)] == [False, False, True]
    assert "| radius | competitor |" in markdown(result, [])


def test_who_is_not_installed_is_left_out_and_said_so(monkeypatch, tmp_path):
    archive = Archive(tmp_path, {}, reuse=True)
    with monkeypatch.context() as patch:
        patch.setattr(DmihScan, "missing", classmethod(lambda cls: "not on this planet"))
        result = quick_run(families=["dmih-auto", "dmih-scan"], archive=archive)
        assert result.failures() == []
        assert result.absent == {"dmih-scan": "not on this planet"}
        assert all(list(by_name(r)) == ["flat", "dmih-auto"] for r in result.cells)
        assert "not on this planet" in markdown(result, [])
    # Once it is there, its cells are measured anew.
    result = quick_run(families=["dmih-auto", "dmih-scan"], archive=archive)
    assert (result.reused, result.absent) == (0, {})


def test_others_are_held_against_the_planner(result):
    for cell in result.cells:
        names = by_name(cell)
        assert names["dmih-auto"].behind == Spread(1.0, 1.0, 1.0)
        both = names["flat"].behind, names["dmih-auto"].speedup
        assert both[0] == both[1]


def test_a_range_search_that_lies_is_caught(monkeypatch):
    class Lying(DmihScan):
        def make(self, d):
            return Liar(super().make(d))

    monkeypatch.setitem(FAMILIES, "dmih-scan", Lying)
    codes = synthetic_codes("perceptual", bits=64, n=500, nq=40, seed=0)
    cell = Cell("perceptual", "near-duplicate", 64, 500, 40, 0, 40, 1, radius=20)
    group = Group(lambda progress: codes, {cell: ["dmih-scan"]}, QUICK)
    (failure,) = run(Suite([group], protocol=QUICK)).failures()
    assert failure.startswith(
        f"{cell.id}, dmih-scan: answer differs from IndexBinaryFlat's in 1 of"
    )


class Recorder(DmihAuto):
    """dmih-auto, with a log of what is asked of its index."""

    log: ClassVar[list[str]]

    def make(self, d):
        index, log = super().make(d), self.log
        search, force = index.search, index.force_engine

        def forced(engine):
            log.append(f"force {engine}")
            force(engine)

        def searched(xq, k):
            log.append("search")
            return search(xq, k)

        index.force_engine, index.search = forced, searched
        log.append("make")
        return index


def test_engines_alone_run_on_the_planners_own_index(monkeypatch):
    log = []
    monkeypatch.setitem(FAMILIES, "dmih-auto", type("Auto", (Recorder,), {"log": log}))
    result = run(Suite(groups(families=["dmih-auto", "dmih-engines"])[:1], protocol=QUICK))
    assert result.failures() == []
    assert log.count("make") == 2  # the small one to warm up, and the one
    labels = [b.label for b in result.cells[0].builds]
    assert labels == ["flat", "dmih-auto"]
    names = [m.competitor for m in result.cells[0].measurements]
    assert names == ["flat", "dmih-auto", "dmih-auto+scan", "dmih-auto+probe"]
    # Whoever has the turn sets its engine, so that nobody runs with another's.
    turns = [entry for entry in log[log.index("force auto") :] if entry.startswith("force")]
    assert turns == ["force auto", "force scan", "force probe"] * (len(turns) // 3)


def test_regret_is_the_time_over_the_best_engines_of_the_same_round():
    families = ["flat", "dmih-auto", "dmih-engines", "dmih-engines", "dmih-mih"]
    seconds = [[9, 9, 9], [2, 3, 4], [1, 9, 8], [5, 2], [4, 4, 2]]
    timings = [Timing(seconds=s) for s in seconds]
    assert runner._regret(families, timings) == Spread(2.0, 1.5, 2.0)
    # Without the engines of the planner there is nothing to compare it with.
    assert runner._regret(families[:2] + families[4:], timings[:2] + timings[4:]) is None
    assert runner._regret(families[2:], timings[2:]) is None
    assert runner._regret(families, [Timing() for _ in families]) is None


def test_cells_with_the_engines_have_a_regret(tmp_path):
    result = run(Suite(groups(families=["dmih-auto", "dmih-engines", "dmih-mih"]), protocol=QUICK))
    assert all(r.regret.min > 0 for r in result.cells)
    result.save(tmp_path / "bench.json")
    assert Run.load(tmp_path / "bench.json") == result
    rows = [line for line in markdown(result, []).splitlines() if line.startswith("| 1 | ")]
    with_regret = [line for line in rows if not line.endswith("|  |")]
    assert with_regret
    assert all("| dmih-auto |" in line for line in with_regret)


def test_each_cell_races_its_own_competitors():
    (group,) = groups()
    first, second, *_ = group.cells
    group = Group(group.load, {first: ["dmih-auto"], second: ["dmih-scan"]}, QUICK)
    result = run(Suite([group], protocol=QUICK))
    assert [list(by_name(r)) for r in result.cells] == [
        ["flat", "dmih-auto"],
        ["flat", "dmih-scan"],
    ]


@pytest.fixture
def saved(tmp_path):
    """An archive that holds all the cells but one, and what they were measured by."""
    archive = Archive(tmp_path, {"build": "1"}, reuse=True)
    suite = Suite(groups(families=["dmih-scan"]), protocol=QUICK, threads=2)
    result = run(suite, archive=archive)
    assert result.reused == 0
    (tmp_path / f"{result.cells[2].cell.id}.json").unlink()
    return archive, suite, result


def test_what_is_in_the_archive_is_not_measured_again(saved):
    archive, suite, first = saved
    second = run(suite, archive=archive)
    assert second.reused == len(first.cells) - 1
    assert [r.cell for r in second.cells] == [r.cell for r in first.cells]
    same = [a == b for a, b in zip(first.cells, second.cells, strict=True)]
    assert same == [i != 2 for i in range(len(same))]
    assert run(suite, archive=archive).reused == len(first.cells)


def test_data_are_loaded_only_for_what_is_missing(saved):
    archive, suite, _ = saved
    run(suite, archive=archive)
    (group,) = suite.groups

    def load(progress):
        raise AssertionError("loaded")

    complete = Suite([replace(group, load=load)], protocol=QUICK, threads=2)
    assert len(run(complete, archive=archive).cells) == len(group.cells)


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": replace(QUICK, max_rounds=3)},
        {"key": {"seed": 1}},
        {"cells": dict.fromkeys(groups()[0].cells, ("dmih-mih",))},
    ],
)
def test_other_work_is_measured(saved, change):
    archive, suite, _ = saved
    (group,) = suite.groups
    assert run(Suite([replace(group, **change)]), archive=archive).reused == 0


def test_a_failure_is_given_another_chance(saved, monkeypatch):
    archive, suite, _ = saved

    class Lying(DmihScan):
        def make(self, d):
            return Liar(super().make(d))

    fresh = replace(archive, reuse=False)
    with monkeypatch.context() as patch:
        patch.setitem(FAMILIES, "dmih-scan", Lying)
        assert run(suite, archive=fresh).failures()
    again = run(suite, archive=archive)
    assert (again.reused, again.failures()) == (0, [])


def test_a_group_without_data_is_left_out_and_said_so():
    (here,) = groups(families=["dmih-scan"])
    cell = Cell("elsewhere", "held-out", 64, 500, 40, 1, 1, 1)

    def load(progress):
        raise DataUnavailable("not on this planet")

    away = Group(load, {cell: ["dmih-scan"]}, QUICK)
    result = run(Suite([away, here], protocol=QUICK))
    assert result.skipped == {cell.id: "not on this planet"}
    assert len(result.cells) == len(here.cells)
    assert f"- {cell.id}: not on this planet" in markdown(result, [])
    assert result.failures() == []


def test_cells_have_names_of_their_own():
    cells = list(groups()[0].cells)
    assert len({cell.id for cell in cells}) == len(cells) == 6
    assert Cell("x", "held-out", 8, 9, 5, 0, 1, 1, 3).id == "x_held-out_d8_n9_nq5_r3_batch1_t1"
    assert {cell.workload for cell in cells} == {"uniform", "uniform, planted"}


def test_a_batch_beyond_the_queries_is_measured_once():
    cells = grid(
        "x", d=8, n=9, nq={"held-out": 5}, ks={"held-out": [1]}, batches=[1, 5, 64], threads=1
    )
    assert cells == [Cell("x", "held-out", 8, 9, 5, 1, batch, 1) for batch in (1, 5)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.5, "1.50 s"), (0.00183, "1.83 ms"), (2.5e-5, "25.0 µs"), (3e-8, "30.0 ns")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,234x"), (12.34, "12.3x"), (1.234, "1.23x"), (0.0312, "0.031x")]
)
def test_ratios(value, text):
    assert ratio(value) == text

from __future__ import annotations

import json

import faiss
import numpy as np
import pytest
from matplotlib.image import imread

from faiss_dmih.bench import Cell, Group, Protocol, Run, run
from faiss_dmih.bench.cells import grid
from faiss_dmih.bench.competitors import FAMILIES, DmihScan, MultiHash
from faiss_dmih.bench.plots import write_plots
from faiss_dmih.bench.report import disturbance, duration, markdown, ratio
from faiss_dmih.data import synthetic_codes

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


def groups(n=500, nq=40, ks=(1, 5), batches=(1, 40)):
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
    return [Group(lambda: codes, cells)]


def quick_run(families=("dmih-auto", "multihash"), **kwargs):
    return run(groups(), list(families), protocol=QUICK, threads=2, seed=0, **kwargs)


@pytest.fixture(scope="module")
def result():
    return quick_run()


def by_name(cell_result):
    return {m.competitor: m for m in cell_result.measurements}


def test_all_cells_are_measured_and_right(result):
    assert [r.cell for r in result.cells] == groups()[0].cells
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
    _, m = failures[0]
    assert m.competitor == "dmih-scan"
    assert "differs from IndexBinaryFlat's in" in m.error
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
    result = quick_run(families=[], cell_folder=tmp_path)
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


def test_cells_have_names_of_their_own():
    cells = groups()[0].cells
    assert len({cell.id for cell in cells}) == len(cells) == 6
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

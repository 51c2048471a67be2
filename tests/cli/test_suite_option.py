from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console
from typer.testing import CliRunner

from faiss_dmih.bench.competitors import FAMILIES, DmihAuto
from faiss_dmih.bench.results import Run
from faiss_dmih.cli import bench as bench_module
from faiss_dmih.cli.app import app
from faiss_dmih.cli.console import show_run

SUITE = """
threads = 2
competitors = ["dmih-auto", "dmih-engines", "dmih-mih"]
max_regret = 1000

[protocol]
cell_seconds = 0.02
max_rounds = 3
min_batch_queries = 32
warm_seconds = 0.001

[[group]]
dataset = "uniform"
bits = 64
n = 600
nq = 40
cells = [
    { k = [1, 5], batch = [1, 40], goal = { dmih-auto = 0.001 } },
    { queries = "planted", k = 1, batch = 40, goal = { dmih-auto = 1_000_000 } },
]

[[group]]
dataset = "perceptual"
bits = 256
n = 600
nq = 40
threads = 1
cells = [{ queries = ["held-out", "near-duplicate"], radius = 31, batch = 40 }]

[[group]]
dataset = "cifar10-features"
bits = 64
n = 600
cells = [{ k = 10, batch = 1, goal = { dmih-auto = 2 } }]

[[build]]
dataset = "uniform"
bits = 64
n = 600
rounds = 1

[[growth]]
dataset = "uniform"
bits = 64
n = 600
nq = 40
rounds = 1
adds = 4
further = [1, 5]
calls = 2
goal = { speed = 1e-6 }
"""
CELLS = 7
TRIALS = 2


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A folder with the suite, no data, and an empty cache."""
    monkeypatch.delenv("FAISS_DMIH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(SUITE)
    return tmp_path


@pytest.fixture
def no_plots(monkeypatch):
    monkeypatch.setattr(bench_module, "write_plots", lambda run, folder: [])


def invoke(*arguments):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def the_run(home):
    return Run.load(home / "bench-out" / "bench.json")


def test_a_suite_writes_everything_and_missed_goals_are_no_failure(home):
    result = invoke("--suite", "mine.toml")
    assert result.exit_code == 0, result.output
    out = home / "bench-out"
    assert {path.name for path in out.iterdir()} == {
        "bench.json",
        "bench.md",
        "bench.html",
        "cells",
        "ranked.png",
        "suite.png",
        "speedup_uniform.png",
    }
    run = the_run(home)
    assert (run.suite, run.threads, len(run.cells), len(run.trials)) == ("mine", 2, CELLS, TRIALS)
    assert len(list((out / "cells").iterdir())) == CELLS + TRIALS
    assert list(run.skipped) == ["cifar10-features_held-out_d64_n600_nq1024_k10_batch1_t2"]

    fates = [outcome.met for outcome in run.outcomes if "planner" not in outcome.what]
    assert fates == [True] * 4 + [False, None] + [True] * 4
    tally = "15 of 18 goals met, 1 missed, 2 not measured"
    text = (out / "bench.md").read_text()
    assert tally in text
    assert f"Goals: {tally}" in result.stdout
    # Each goal, with what became of it; each figure; the regret of each cell.
    assert "| uniform 600 x 64 bits, 2 threads | planted, k = 1, batch 40: dmih-auto over" in text
    assert text.count("| **missed** |") == 1
    assert text.count("**not measured**: cifar10-features: cifar10_squeezenet") == 2
    for where in (text, result.stdout):
        assert "speed after 4 adds, of that after one add" in where
        assert "near-duplicate, radius 31, batch 40" in where
        assert "not measured:" in where.lower()
    assert all(cell.regret is not None for cell in run.cells)


def test_the_tables_of_a_suite_fit_the_terminal(home, no_plots):
    invoke("--suite", "mine.toml")
    for width in (80, 120):
        console = Console(width=width, record=True, file=io.StringIO())
        show_run(console, the_run(home))
        lines = console.export_text().splitlines()
        assert max(map(len, lines)) <= width
        assert "…" not in "".join(lines)
    text = "\n".join(lines)
    assert "planted, k = 1, batch 40: dmih-auto over flat" in text
    assert "regret" in text


def test_the_plots_show_every_cell(home):
    invoke("--suite", "mine.toml")
    for name, columns in (("suite.png", (1600, 1800)), ("speedup_uniform.png", (450, 700))):
        image = imread(home / "bench-out" / name)
        assert columns[0] <= image.shape[1] <= columns[1]
        assert len(np.unique(image[..., :3].reshape(-1, 3), axis=0)) > 20


def test_a_second_run_takes_up_the_first_and_fresh_does_not(home, no_plots):
    invoke("--suite", "mine.toml")
    first = the_run(home)
    again = invoke("--suite", "mine.toml")
    assert f"({CELLS + TRIALS} results of an earlier run)" in again.stdout
    assert (the_run(home).cells, the_run(home).trials) == (first.cells, first.trials)
    assert (
        f"{CELLS + TRIALS} results taken from an earlier run"
        in (home / "bench-out" / "bench.md").read_text()
    )
    fresh = invoke("--suite", "mine.toml", "--fresh")
    assert "earlier run" not in fresh.stdout
    assert the_run(home).reused == 0
    assert not {c.seconds for c in first.cells} & {c.seconds for c in the_run(home).cells}


def test_goals_may_change_without_measuring_anew(home, no_plots):
    invoke("--suite", "mine.toml")
    (home / "mine.toml").write_text(SUITE.replace("1_000_000", "0.001"))
    invoke("--suite", "mine.toml")
    assert the_run(home).reused == CELLS + TRIALS
    assert False not in [outcome.met for outcome in the_run(home).outcomes]


@pytest.mark.parametrize(
    ("old", "new", "reused"),
    [
        ("n = 600\nnq = 40\ncells", "n = 601\nnq = 40\ncells", CELLS + TRIALS - 5),
        ("max_rounds = 3", "max_rounds = 4", TRIALS),
        ("calls = 2", "calls = 3", CELLS + TRIALS - 1),
        ("threads = 2", "threads = 2\nseed = 1", 0),
        ('dataset = "perceptual"', 'dataset = "perceptual"\nseed = 5', CELLS + TRIALS - 2),
    ],
)
def test_only_what_has_changed_is_measured(home, no_plots, old, new, reused):
    invoke("--suite", "mine.toml")
    (home / "mine.toml").write_text(SUITE.replace(old, new, 1))
    invoke("--suite", "mine.toml")
    assert the_run(home).reused == reused


def test_a_run_that_was_killed_is_taken_up(home):
    # Rounds of 20 ms pauses: seven cells take some seconds.
    slow = SUITE.replace("max_rounds = 3", "max_rounds = 9\nmin_rounds = 9")
    (home / "mine.toml").write_text(slow)
    command = [
        *(sys.executable, "-c", "from faiss_dmih.cli import main; main()"),
        *("bench", "--suite", "mine.toml"),
    ]
    cells = home / "bench-out" / "cells"
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while len(list(cells.glob("*.json"))) < 3:
            assert running.poll() is None, running.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        running.stdout.close()
    assert not (home / "bench-out" / "bench.json").exists()
    kept = {path: path.read_text() for path in cells.glob("*.json")}
    assert 3 <= len(kept) < CELLS + TRIALS

    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = the_run(home)
    assert run.reused == len(kept)
    assert (len(run.cells), len(run.trials)) == (CELLS, TRIALS)
    assert run.failures() == []
    assert {path: path.read_text() for path in kept} == kept
    results = [json.loads(text) for text in kept.values()]
    measured = {result["seconds"] for result in results}
    assert measured <= {r.seconds for r in (*run.cells, *run.trials)}


def test_a_wrong_answer_fails_the_run(home, monkeypatch, no_plots):
    class Lying(DmihAuto):
        def make(self, d):
            index = super().make(d)
            search = index.range_search

            def lie(xq, thresh):
                lims, D, I = search(xq, thresh)
                D[:1] += 1
                return lims, D, I

            index.range_search = lie
            return index

    monkeypatch.setitem(FAMILIES, "dmih-auto", Lying)
    result = invoke("--suite", "mine.toml")
    assert result.exit_code == 1
    assert "FAILED" in result.stdout
    assert "dmih-auto: answer differs from IndexBinaryFlat's in" in result.stdout
    note = [o.note for o in the_run(home).outcomes if "near-duplicate" in o.what]
    assert note
    assert all("differs from IndexBinaryFlat's" in text for text in note)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k", "1"], "leave --k out, or --suite"),
        (["--seed", "0"], "leave --seed out, or --suite"),
        (["--query-kind", "held-out"], "leave --query-kind out, or --suite"),
        (["--cell-seconds", "3"], "leave --cell-seconds out, or --suite"),
        (["--data", "x.npy", "--out", "there"], "leave --data out, or --suite"),
    ],
)
def test_options_of_the_grid_are_refused(home, arguments, message):
    result = invoke("--suite", "mine.toml", *arguments)
    assert result.exit_code == 2
    assert result.stderr == f"error: --suite says what is measured: {message}\n"
    assert not (home / "bench-out").exists()


def test_fresh_goes_with_a_suite(home):
    result = invoke("--fresh")
    assert result.exit_code == 2
    assert "--fresh goes with --suite" in result.stderr


def test_a_typo_is_one_line(home):
    (home / "mine.toml").write_text(SUITE.replace("batch = 40", "bitch = 40", 1))
    result = invoke("--suite", "mine.toml")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "error: mine.toml, [[group]] 1 (uniform), cell 2: unknown key 'bitch'" in result.stderr
    assert invoke("--suite", "kern").stderr.startswith(
        "error: unknown suite 'kern'; known are core"
    )


def test_help_names_the_suites():
    text = " ".join(invoke("--help").output.split())
    assert "--suite" in text
    assert "core" in text
    assert "--fresh" in text

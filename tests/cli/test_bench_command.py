from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from faiss_dmih import cli
from faiss_dmih.bench.competitors import FAMILIES, DmihAuto
from faiss_dmih.bench.results import Run
from faiss_dmih.cli import bench as bench_module
from faiss_dmih.cli.app import app
from faiss_dmih.cli.console import show_run
from faiss_dmih.cli.terminal import progress_bar
from faiss_dmih.data import GENERATORS, datasets

QUICK = ["--n", "600", "--queries", "20", "--k", "1,3", "--batch", "1,20", "--cell-seconds", "0.02"]
FEW = ["--competitors", "dmih-auto"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No data, an empty cache, and no way out to the network."""
    monkeypatch.delenv("FAISS_DMIH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    remotes = {
        part: datasets.Remote(remote.name, "http://127.0.0.1:9/x", remote.md5)
        for part, remote in datasets.FASHION_FILES.items()
    }
    monkeypatch.setattr(datasets, "FASHION_FILES", remotes)
    return tmp_path


@pytest.fixture
def no_plots(monkeypatch):
    """Drawing takes seconds: one test looks at the files, the others do without."""
    monkeypatch.setattr(bench_module, "write_plots", lambda run, folder: [])


def invoke(*arguments):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def test_a_run_writes_everything_and_exits_0(home):
    result = invoke("--dataset", "synthetic", *QUICK)
    assert result.exit_code == 0, result.output
    out = home / "bench-out"
    assert {path.name for path in out.iterdir()} == {
        "bench.json",
        "bench.md",
        "bench.html",
        "cells",
        "recall_batch1.png",
        "recall_batch20.png",
        "speedup.png",
    }
    run = Run.load(out / "bench.json")
    workloads = {r.cell.workload for r in run.cells}
    assert workloads == {"uniform", "uniform, planted", "clustered"}
    assert len(list((out / "cells").iterdir())) == len(run.cells) == 2 * (2 + 1 + 2)
    assert {r.cell.k for r in run.cells if r.cell.queries == "planted"} == {1}
    families = {m.family for m in run.cells[0].measurements}
    assert families == {"flat", "dmih-auto", "dmih-scan", "dmih-mih", "multihash"}
    for text in (result.stdout, (out / "bench.md").read_text()):
        assert "uniform: 600 codes of 64 bits, batches of 20" in text
        assert "multihash-" in text


def test_digits_at_their_own_size_when_nothing_is_found(home, no_plots, monkeypatch):
    monkeypatch.setattr(bench_module, "MILLION", 3000)
    result = invoke("--k", "1", "--batch", "1024", "--cell-seconds", "0.02", *FEW)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stderr.splitlines() if "digits is measured" in line]
    assert len(lines) == 1
    assert "refused" in lines[0]
    cells = [r.cell for r in Run.load(home / "bench-out" / "bench.json").cells]
    assert (cells[0].dataset, cells[0].n, cells[0].nq, cells[0].batch) == ("digits", 1500, 297, 297)
    assert {cell.n for cell in cells[1:]} == {3000}


def test_the_first_preferred_set_that_is_here_is_taken(home, monkeypatch, no_plots):
    monkeypatch.setenv("FAISS_DMIH_DATA", str(home))
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 30)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        np.save(home / f"{split}.npy", images)
    np.savez(
        home / "fashion_mnist.npz",
        x_train=np.load(home / "train.npy"),
        y_train=np.zeros(40, np.uint8),
        x_test=np.load(home / "test.npy"),
        y_test=np.zeros(30, np.uint8),
    )
    result = invoke(*QUICK, *FEW, "--binarize", "lsh", "--query-kind", "held-out,near-duplicate")
    assert result.exit_code == 0, result.output
    run = Run.load(home / "bench-out" / "bench.json")
    assert run.cells[0].cell.dataset == "fashion-mnist"
    assert run.cells[0].info["views_per_item"] == 15
    assert "fashion-mnist, near-duplicate" in {r.cell.workload for r in run.cells}


def test_codes_from_a_file(home, no_plots):
    rows = np.random.default_rng(0).integers(0, 256, (700, 4), dtype=np.uint8)
    np.save(home / "mine.npy", rows)
    result = invoke("--data", "mine.npy", *QUICK, *FEW, "--out", "elsewhere", "--threads", "1")
    assert result.exit_code == 0, result.output
    cells = [r.cell for r in Run.load(home / "elsewhere" / "bench.json").cells]
    assert cells[0].dataset == "mine"
    assert {cell.d for cell in cells} == {32}
    assert {cell.threads for cell in cells} == {1}


def test_an_index_that_lies_exits_1_and_is_shown(home, monkeypatch, no_plots):
    class Lying(DmihAuto):
        def make(self, d):
            index = super().make(d)
            search = index.search

            def lie(xq, k):
                D, I = search(xq, k)
                D[0, 0] += 1
                return D, I

            index.search = lie
            return index

    monkeypatch.setitem(FAMILIES, "dmih-auto", Lying)
    result = invoke("--dataset", "synthetic", *QUICK, *FEW)
    assert result.exit_code == 1
    assert "FAILED" in result.stdout
    assert "answer differs from IndexBinaryFlat's in" in result.stdout
    text = (home / "bench-out" / "bench.md").read_text()
    assert "10 measurements failed" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k", "0"], "--k must be positive, got 0"),
        (["--k", "ten"], "--k takes numbers"),
        (["--batch", "-1"], "--batch must be positive, got -1"),
        (["--n", "0"], "--n must be positive, got 0"),
        (["--threads", "0"], "--threads must be positive, got 0"),
        (["--cell-seconds", "0"], "--cell-seconds must be positive, got 0"),
        (["--bits", "63"], "bits must be a multiple of 8 from 8 to 4096, got 63"),
        (["--dataset", "mnist"], "unknown data set 'mnist'; known are fashion-mnist, "),
        (["--competitors", "flat,annoy"], "unknown competitor 'annoy'; known are flat, dmih-auto"),
        (["--query-kind", "odd"], "unknown query kind 'odd'; known are held-out, near-duplicate"),
        (["--binarize", "pca"], "unknown binarisation 'pca'; known are sign, lsh, itq"),
        (["--dataset", "digits", "--n", "50000"], "between 1 and 48,000 available, got 50,000"),
        (["--dataset", "digits", "--queries", "400"], "between 1 and 297 available, got 400"),
        (["--dataset", "cifar10-features"], "cifar10_squeezenet_gap512_u8.npz is not in"),
        (["--dataset", "fashion-mnist"], "downloading http://127.0.0.1:9/x failed"),
        (["--data", "none.npy"], "none.npy: no such file"),
        (["--data", "x.npy", "--dataset", "digits"], "--data and --dataset exclude each other"),
        (["--data", "bad.npy"], "bad.npy: got dtype int64, expected uint8"),
        (["--data", "text.npy"], "text.npy: not a .npy or .npz file of codes"),
        (["--data", "ok.npy", "--bits", "128"], "have 64 bits, but 128 were asked for"),
        (
            ["--data", "ok.npy", "--query-kind", "near-duplicate"],
            "ok has queries of kind held-out only",
        ),
        (["--queries", "9", "--batch", "2000"], "--batch 2000 needs as many --queries, got 9"),
        (["--dataset", "synthetic", "--out", "text.npy"], "--out text.npy: cannot be made"),
    ],
)
def test_options_that_cannot_be_used(home, arguments, message):
    np.save(home / "bad.npy", np.zeros((5, 8), np.int64))
    np.save(home / "ok.npy", np.zeros((50, 8), np.uint8))
    (home / "text.npy").write_text("hello")
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert f"error: {message}" in result.stderr or message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_bad_number_is_refused_by_the_parser():
    assert invoke("--n", "many").exit_code == 2


def test_help_names_the_choices():
    text = invoke("--help").output
    for word in ("--competitors", "--binarize", "near-duplicate", "multihash"):
        assert word in text


def test_failed_options_leave_no_folder(home):
    assert invoke("--k", "0").exit_code == 2
    assert not (home / "bench-out").exists()


def test_tables_fit_the_terminal(home, no_plots):
    invoke("--dataset", "synthetic", *QUICK)
    run = Run.load(home / "bench-out" / "bench.json")
    for width in (60, 80, 140):
        console = Console(width=width, record=True, file=io.StringIO())
        show_run(console, run)
        lines = console.export_text().splitlines()
        assert max(map(len, lines)) <= width
        text = "".join(lines)
        assert "…" not in text
        for m in run.cells[0].measurements:
            assert m.competitor in text


def test_progress_shows_on_a_terminal_only(tmp_path):
    for terminal in (True, False):
        path = tmp_path / str(terminal)
        with path.open("w") as file:
            console = Console(file=file, force_terminal=terminal, width=80)
            with progress_bar(console) as progress:
                progress("building x", 1, 4)
        assert ("building x" in path.read_text()) == terminal


def test_missing_packages_are_named_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(
        cli, "find_spec", lambda name: None if name in ("typer", "PIL") else object()
    )
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert capsys.readouterr().err == (
        "faiss-dmih needs typer, PIL: pip install 'faiss-dmih[bench]'\n"
    )


def test_the_package_itself_imports_nothing_heavy():
    code = (
        "import sys, faiss_dmih; "
        "print([m for m in ('typer', 'rich', 'matplotlib', 'sklearn', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_entry_point_runs():
    done = subprocess.run(
        [sys.executable, "-c", "from faiss_dmih.cli import main; main()", "bench", "--k", "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "error: --k must be positive, got 0\n"


def test_seeds_and_cells_are_recorded(home, no_plots):
    invoke("--dataset", "synthetic", *QUICK, *FEW, "--seed", "7")
    raw = json.loads((home / "bench-out" / "bench.json").read_text())
    assert raw["seed"] == 7
    assert raw["cells"][0]["info"] == {"seed": 7}


def test_preferred_sets_exist():
    assert {*bench_module.PREFERRED, bench_module.FALLBACK, bench_module.DOWNLOADED} <= set(
        datasets.DATASETS
    )
    assert set(bench_module.SYNTHETIC) <= set(GENERATORS)

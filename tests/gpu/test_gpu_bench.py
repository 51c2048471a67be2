"""`faiss-dmih bench --device cuda`, over stand-ins for the GPU and the index."""

from __future__ import annotations

import io
import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest
from devices import OverStrict
from rich.console import Console
from shim import ShimLauncher
from standins import HostDevice, OracleIndex
from typer.testing import CliRunner

from faiss_dmih.bench.cells import Cell
from faiss_dmih.bench.cuda import limits, plan, runner
from faiss_dmih.bench.cuda.competitors import GPU_FLAT, PROBE, SCAN, TENSOR
from faiss_dmih.bench.cuda.plots import write_plot
from faiss_dmih.bench.cuda.report import markdown
from faiss_dmih.bench.cuda.results import (
    OF_FLOOR,
    OF_POPC,
    OF_TENSOR,
    PAIRS,
    QUERIES,
    CudaCell,
    CudaRun,
    Timed,
)
from faiss_dmih.bench.results import Figure, Spread
from faiss_dmih.cli import bench as bench_command
from faiss_dmih.cli import cuda as cuda_command
from faiss_dmih.cli.app import app
from faiss_dmih.data import HELD_OUT, PLANTED
from faiss_dmih.data.files import no_progress

SMALL = [
    plan.database(
        64, 2000, [(HELD_OUT, 1, 10), (HELD_OUT, 40, 3), (PLANTED, 20, 1), (PLANTED, 20, None)], 2
    ),
    plan.database(128, 1500, [(PLANTED, 20, 1), (HELD_OUT, 20, 10)], 2),
]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_LAUNCH_SECONDS", 0.0)
    monkeypatch.setattr(limits, "_ROUNDS", 2)
    monkeypatch.setattr(runner, "_CELL_SECONDS", 0.0)
    monkeypatch.setattr(runner, "_ALONE_SECONDS", 0.5)  # machines may be slow


@pytest.fixture
def device(shim_cache: Path) -> HostDevice:
    return HostDevice(OverStrict(ShimLauncher(shim_cache)))


def measured(device: HostDevice, index: Any = OracleIndex, **changed: Any) -> CudaRun:
    options: dict[str, Any] = {
        "databases": SMALL,
        "threads": 2,
        "seed": 0,
        "seconds": 1e9,
        "progress": no_progress,
        "save": lambda _: None,
    }
    return runner.run(device, index, **options | changed)


def test_a_run(device: HostDevice, tmp_path: Path) -> None:
    before = faiss.omp_get_max_threads()
    saved: list[CudaRun] = []
    result = measured(device, save=saved.append)
    assert faiss.omp_get_max_threads() == before
    assert result.failures() == []
    assert [len(partial.cells) for partial in saved] == [4, 6]
    ours, hosts = {"dmih-scan", "dmih-probe", "dmih-auto"}, {"host flat", "host dmih-auto"}
    for cell in result.cells:
        assert cell.checked == min(16, cell.cell.nq)
        names = {timed.competitor for timed in cell.timed}
        hopeless = cell.cell.d == 128 and cell.cell.queries == HELD_OUT
        tensor = {TENSOR} if cell.cell.queries == HELD_OUT else set()
        assert names == ours - ({PROBE} if hopeless else set()) | tensor | hosts
        assert {t.competitor for t in cell.timed if t.host_clock} == hosts
        for timed in cell.timed:
            assert timed.rounds == 3
            assert timed.seconds is not None
            assert (timed.alone is None) == timed.host_clock
            rate = timed.figure(QUERIES)
            assert rate is not None
            assert rate.value.median == pytest.approx(timed.nq / timed.seconds.median)
    assert [(b.d, b.competitor, b.bytes) for b in result.builds] == [
        (64, "dmih", 2 * 2000 * 8),
        (64, "host flat", None),
        (64, "host dmih-auto", None),
        (128, "dmih", 2 * 1500 * 16),
        (128, "host flat", None),
        (128, "host dmih-auto", None),
    ]
    result.save(tmp_path / "bench.json")
    raw = json.loads((tmp_path / "bench.json").read_text())
    assert raw["format"] == "cuda 1"
    assert raw["gpu"]["name"] == "stand-in"
    assert raw["cells"][1]["timed"][0]["figures"][2]["what"] == OF_POPC


def test_scans_are_held_against_the_limits(device: HostDevice) -> None:
    result = measured(device)
    lone, batch = result.cells[0].of(SCAN), result.cells[1].of(SCAN)
    assert lone is not None
    assert batch is not None
    assert lone.seconds is not None
    assert batch.seconds is not None
    floor, part = lone.figure(OF_FLOOR), batch.figure(OF_POPC)
    assert lone.figure(OF_POPC) is batch.figure(OF_FLOOR) is None
    assert floor is not None
    assert part is not None
    reading = 2000 * 8 / result.limits.memory.median
    assert floor.value.median == pytest.approx(lone.seconds.median / reading)
    counting = 2000 * 40 * 2 / result.limits.popc.median
    assert part.value.median == pytest.approx(counting / batch.seconds.median)


def test_tensor_cores_are_held_against_theirs(device: HostDevice) -> None:
    result = measured(device)
    assert result.limits.tensor is not None
    assert result.limits.tensor_by == "wgmma"
    for cell in result.cells:
        if (timed := cell.of(TENSOR)) is None:
            continue
        assert timed.seconds is not None
        part = timed.figure(OF_TENSOR)
        assert part is not None
        rate = cell.cell.n * timed.nq / timed.seconds.median
        assert part.value.median == pytest.approx(rate / result.limits.tensor.median)


def test_tensor_cores_without_1_bit_products(device: HostDevice) -> None:
    device._gpu = replace(device._gpu, compute_capability="12.0")
    result = measured(device, databases=SMALL[:1])
    found = result.limits
    assert found.tensor is not None
    assert found.tensor_by == "imma"
    rates = [found.tensor_pairs(d) / found.tensor.median for d in (64, 128, 136, 512)]
    assert rates == pytest.approx([2, 1, 2 / 3, 1 / 4])


def test_without_tensor_cores_they_take_no_part(device: HostDevice) -> None:
    device._gpu = replace(device._gpu, compute_capability="7.5")
    result = measured(device, databases=SMALL[1:])
    assert result.limits.tensor is None
    assert all(cell.of(TENSOR) is None for cell in result.cells)
    assert "dmih-tensor: wgmma: not on compute capability 75; mma: not" in markdown(result, [])
    assert result.failures() == []


def test_codes_are_the_same_everywhere(device: HostDevice) -> None:
    codes = limits.random_codes(device, 3, 128, seed=1234567)
    assert codes.shape == (3, 16)
    assert device.download(codes).ravel().view(np.uint64)[:2].tolist() == [
        6457827717110365317,
        3203168211198807973,
    ]


@pytest.mark.parametrize("what", ["popc", "memory", "sectors"])
def test_limits_are_work_over_time(device: HostDevice, what: str) -> None:
    ticks = itertools.count()

    class Clockwork(HostDevice):
        def timed(self, action: Any) -> Any:
            return 0.01 * (1 + next(ticks) % 2), action()

    clockwork = Clockwork(device.launcher)
    gpu = clockwork.describe()
    found = limits.Scratch(clockwork, gpu).limits()
    threads = 8 * gpu.multiprocessors * 256
    work = {"popc": 8 * threads, "memory": found.scratch_bytes, "sectors": 8 * threads}[what]
    assert getattr(found, what) == Spread.of([work / 0.01, work / 0.02])


def test_scratch_is_an_eighth_of_the_memory_and_8_gib_at_most(shim_cache: Path) -> None:
    class Counted(HostDevice):
        asked = 0

        def empty(self, count: int) -> Any:
            self.asked = max(self.asked, 8 * count)
            return super().empty(min(count, 100))

    launcher = SimpleNamespace(kernel=lambda *_: lambda *_: None)
    for gib, expected in ((24, 3 << 30), (139.8, 8 << 30)):
        device = Counted(launcher, memory_gib=gib)  # type: ignore[arg-type]
        assert limits.Scratch(device, device.describe()).bytes == device.asked == expected


class Lying(OracleIndex):
    """Wrong for one query, by one engine."""

    query = 0

    def search(self, x: Any, k: int) -> Any:
        D, I = super().search(x, k)
        if self.engine == "probe" and len(D) > self.query:
            I[self.query] += 1
        return D, I


@pytest.mark.parametrize(("query", "said"), [(3, ""), (17, "; beyond 16 queries dmih-scan's is")])
def test_a_wrong_answer_is_found(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch, query: int, said: str
) -> None:
    monkeypatch.setattr(Lying, "query", query)
    result = measured(device, Lying, databases=SMALL[:1])
    assert len(result.failures()) == 2  # the cells of 40 and 20 queries
    for failure in result.failures():
        assert "dmih-probe: answer differs from IndexBinaryFlat's in" in failure
        assert f"first at query {query}, rank 0" in failure
        assert said in failure


def test_answers_of_later_rounds_are_checked(device: HostDevice) -> None:
    class Tiring(OracleIndex):
        calls = 0

        def range_search(self, x: Any, radius: int) -> Any:
            Tiring.calls += 1
            lims, D, I = super().range_search(x, radius)
            return lims, D + (Tiring.calls == 20), I

    (failure,) = measured(device, Tiring, databases=SMALL[:1]).failures()
    assert "_r8_" in failure


def test_what_raises_fails_alone(device: HostDevice) -> None:
    class Raising(OracleIndex):
        def search(self, x: Any, k: int) -> Any:
            if self.engine == "scan":
                raise RuntimeError("out of luck")
            return super().search(x, k)

    result = measured(device, Raising)
    assert len(result.failures()) == 5
    assert all(f.endswith("dmih-scan: RuntimeError: out of luck") for f in result.failures())
    assert all(o.met is None and o.note.endswith("out of luck") for o in result.outcomes)


def test_an_index_that_cannot_be_built(device: HostDevice) -> None:
    class Large(OracleIndex):
        def add(self, x: Any) -> None:
            if self.d == 64:
                raise MemoryError("needs 7 GiB, 3 GiB are free")
            raise RuntimeError("no such width")

    result = measured(device, Large)
    assert result.cells == []
    assert set(result.skipped.values()) == {
        "not enough memory: needs 7 GiB, 3 GiB are free",
        "RuntimeError: no such width",
    }
    assert result.failures() == [
        "adding 1,500 codes of 128 bits to dmih: RuntimeError: no such width"
    ]
    assert "needs 7 GiB" in markdown(result, [])


def test_nothing_is_begun_when_the_time_is_over(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(measured(device, seconds=0).skipped) == 6
    elapsed = iter([0.0, 0.0, 0.0, *[11.0] * 100])
    monkeypatch.setattr(runner._Runner, "_elapsed", lambda self: next(elapsed))
    result = measured(device, seconds=10)
    assert len(result.cells) == 2
    assert set(result.skipped.values()) == {"no time left: 10 s were over"}
    assert {*result.skipped, *(c.cell.id for c in result.cells)} == {
        cell.id for database in SMALL for cell in database.cells
    }


def test_a_slow_competitor_is_given_fewer_queries(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(HostDevice):
        def timed(self, action: Any) -> Any:
            answer = action()
            return (0.2, answer) if answer is None else (len(answer[0]) * 0.1, answer)

    monkeypatch.setattr(runner, "_HOST_TURN_SECONDS", 0.0)
    (cell,) = measured(
        Slow(device.launcher), databases=[plan.database(64, 500, [(HELD_OUT, 40, 2)], 1)]
    ).cells
    assert {t.nq for t in cell.timed if not t.host_clock} == {10}
    assert {t.alone for t in cell.timed} == {None}
    assert {t.nq for t in cell.timed if t.host_clock} == {8}


def test_gpu_flat_takes_part_where_faiss_has_it(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    class GpuFlat(faiss.IndexBinaryFlat):  # type: ignore[misc]
        def __init__(self, resources: Any, d: int) -> None:
            super().__init__(d)

    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "GpuIndexBinaryFlat", GpuFlat, raising=False)
    result = measured(device, databases=SMALL[:1])
    assert result.failures() == []
    takes_part = [cell.of(GPU_FLAT) is not None for cell in result.cells]
    assert takes_part == [True, True, True, False]
    assert "Derived" not in markdown(result, [])


def cell_result(cell: Cell, competitor: str, figure: Figure | None, error: str = "") -> CudaCell:
    figures = [figure] if figure else []
    return CudaCell(cell, 16, [Timed(competitor, False, figures=figures, error=error)])


def test_the_plans_goals() -> None:
    databases = plan.databases(16)
    wanted = plan.goals(databases)
    assert [(g.cell.d, g.cell.n, g.cell.batch, g.figure) for g in wanted if g.cell.d == 64] == [
        (64, 100_000_000, 1, OF_FLOOR),
        (64, 100_000_000, 10_000, OF_POPC),
        (64, 100_000_000, 10_000, PAIRS),
        (64, 100_000_000, 10_000, QUERIES),
    ]
    assert [(g.cell.d, g.cell.n, g.bound) for g in wanted if g.competitor == TENSOR] == [
        (64, 100_000_000, 1e13),
        (256, 100_000_000, 5e12),
        (128, 100_000_000, 1e13),
    ]
    asked = {
        (cell.d, cell.n, cell.batch)
        for database in databases
        for cell in database.cells
        if (cell.queries, cell.k) == (HELD_OUT, 10)
    }
    sizes = (10**6, 10**7, 10**8)
    assert asked >= set(itertools.product((64, 128, 256, 512), sizes, (1, 100, 10_000)))
    assert {g.cell.d for g in wanted if g.figure == OF_POPC} == {64, 128, 256, 512}
    ids = [cell.id for database in databases for cell in database.cells]
    assert len(set(ids)) == len(ids)
    scan = next(g for g in wanted if g.figure == OF_POPC)
    lone = next(g for g in wanted if g.figure == OF_FLOOR)
    probe = next(g for g in wanted if g.figure == QUERIES)
    for goal, values in ((scan, (0.7, 0.69)), (lone, (2.0, 2.1)), (probe, (1e6, 9e5))):
        for value, met in zip(values, (True, False), strict=True):
            figure = Figure(goal.figure, Spread(value, value, value), goal.unit)
            for error, expected in (("", met), ("wrong", None)):
                result = cell_result(goal.cell, goal.competitor, figure, error)
                (outcome,) = plan.judge([goal], [result], {})
                assert (outcome.met, outcome.note) == (expected, error)
    (outcome,) = plan.judge([scan], [], {scan.cell.id: "no time left"})
    assert (outcome.met, outcome.note) == (None, "no time left")


@pytest.fixture
def command(device: HostDevice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench_command, "CudaDevice", lambda: device)
    monkeypatch.setattr(cuda_command, "databases", lambda threads: SMALL)
    monkeypatch.setattr(cuda_command, "GpuIndexDMIH", OracleIndex)
    return lambda *options: CliRunner().invoke(app, ["bench", "--device", "cuda", *options])


def test_the_command_writes_everything_and_exits_0(command: Any, tmp_path: Path) -> None:
    result = command()
    assert result.exit_code == 0, result.output
    out = tmp_path / "bench-out"
    assert {path.name for path in out.iterdir()} == {"bench.json", "bench.md", "bench.png"}
    for text in (result.stdout, (out / "bench.md").read_text()):
        flat = " ".join(text.split())
        for words in (
            "2,000 codes of 64 bits; planted, radius 8, batch 20",
            "dmih-probe",
            "x the floor",
            "% of POPC",
            "GpuIndexBinaryFlat was not measured. Derived",
            "goals met",
        ):
            assert words in flat


def test_a_wrong_answer_exits_1(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_command, "GpuIndexDMIH", Lying)
    result = command()
    assert result.exit_code == 1, result.output
    assert "FAILED" in result.stdout
    assert "answer differs from IndexBinaryFlat's" in result.stderr


def test_tables_fit_the_terminal(device: HostDevice) -> None:
    result = measured(device)
    for width in (70, 100):
        console = Console(width=width, record=True, file=io.StringIO())
        cuda_command.show(console, console, result)
        assert max(map(len, console.export_text().splitlines())) <= width


def test_a_run_without_cells_has_no_plot(device: HostDevice, tmp_path: Path) -> None:
    assert write_plot(measured(device, seconds=0), tmp_path / "x.png") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--k", "3"], "--device cuda says what is measured: leave --k out, or --device cuda"),
        (["--suite", "core"], "--device cuda says what is measured: leave --suite out"),
        (["--seconds", "0"], "--seconds must be positive, got 0"),
    ],
)
def test_options_that_do_not_go_together(command: Any, options: list[str], message: str) -> None:
    result = command(*options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_the_other_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for options, message in (
        (["--seconds", "9"], "--seconds goes with --device cuda"),
        (["--device", "tpu"], "unknown device 'tpu'; known are cpu, cuda"),
    ):
        result = CliRunner().invoke(app, ["bench", *options])
        assert result.exit_code == 2
        assert message in result.stderr


def test_without_a_gpu_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoLauncher:
        def kernel(self, *_: str) -> None:
            raise ImportError("the GPU engine needs CuPy, and there is none")

    monkeypatch.setattr("faiss_dmih.bench.cuda.device.CudaLauncher", NoLauncher)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["bench", "--device", "cuda"])
    assert result.exit_code == 2
    assert result.stderr == "error: the GPU engine needs CuPy, and there is none\n"
    assert list(tmp_path.iterdir()) == []

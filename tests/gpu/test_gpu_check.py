"""`make gpu-check`'s runner, with steps that stand in for the real ones."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import check
import pytest
from check import FAILED, NO_TIME, PASSED, TIMED_OUT, UNAVAILABLE, Result, Step

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENV = {"PATH": os.environ["PATH"]}
LATER = 1000.0


def sh(name: str, script: str, seconds: float = 20, **options: object) -> Step:
    return Step(name, ("sh", "-c", script), seconds, **options)  # type: ignore[arg-type]


def run(out: Path, *steps: Step, left: float = LATER) -> list[Result]:
    return check.run_all(steps, out, time.monotonic() + left, ENV)


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is not just waiting for its parent to look."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_steps_go_on_after_failures(tmp_path: Path) -> None:
    results = run(
        tmp_path,
        sh("one", "echo hello; exit 3"),
        Step("two", (str(tmp_path / "nothing"),), 20),
        sh("three", "exit 0", tool="there-is-no-such-tool"),
        sh("four", "echo done"),
    )
    assert [(r.status, r.returncode) for r in results] == [
        (FAILED, 3),
        (FAILED, 127),
        (UNAVAILABLE, None),
        (PASSED, 0),
    ]
    assert [r.bad for r in results] == [True, True, False, False]
    assert results[0].tail == "hello\n"
    assert "nothing" in results[1].tail
    assert results[3].tail == "done\n"
    log = (tmp_path / "log.txt").read_text()
    assert "===== one: sh -c 'echo hello; exit 3'\nhello\n" in log
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["passed"] is False
    assert [step["name"] for step in summary["steps"]] == ["one", "two", "three", "four"]
    assert summary["steps"][0]["command"] == "sh -c 'echo hello; exit 3'"
    assert summary["steps"][0]["tail"] == "hello\n"


@pytest.mark.parametrize("ignore", ["", "trap '' TERM; "])
def test_what_hangs_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignore: str
) -> None:
    monkeypatch.setattr(check, "_GRACE", 0.3)
    script = f"{ignore}sh -c '{ignore}sleep 100; sleep 100' & echo $$ $!; wait; sleep 100"
    started = time.monotonic()
    hung, after = run(tmp_path, sh("hangs", script, seconds=0.5), sh("after", "exit 0"))
    assert time.monotonic() - started < 10
    assert (hung.status, hung.bad, hung.returncode) == (TIMED_OUT, True, None)
    assert after.status == PASSED
    pids = [int(pid) for pid in hung.tail.split()[:2]]
    assert len(pids) == 2
    time.sleep(0.1)
    assert not any(map(alive, pids))


def test_what_a_step_leaves_behind_is_killed(tmp_path: Path) -> None:
    (result,) = run(tmp_path, sh("leaves", "sleep 100 & echo $!"))
    assert result.status == PASSED
    time.sleep(0.1)
    assert not alive(int(result.tail))


def test_an_output_that_is_not_as_expected_fails(tmp_path: Path) -> None:
    some = next(step.expect for step in check.plan(tmp_path, tmp_path) if step.name == "gpu tests")
    for line, status in (
        ("12 passed, 3 skipped in 0.1s", PASSED),
        ("37 skipped, 112 deselected in 0.14s", FAILED),
        ("0 passed", FAILED),
    ):
        (result,) = run(tmp_path, sh("tests", f"echo '{line}'", expect=some))
        assert result.status == status
    results = run(tmp_path, sh("a", "echo '1 passed'"), sh("b", "exit 0", expect="1 passed"))
    assert results[1].status == FAILED  # by its own output


def test_a_tool_that_refuses_is_unavailable(tmp_path: Path) -> None:
    memcheck = next(step for step in check.plan(tmp_path, tmp_path) if step.name == "memcheck")
    ncu = next(step for step in check.plan(tmp_path, tmp_path) if step.name == "ncu")
    for tool, said, status in (
        (memcheck, "Error: Device not supported", UNAVAILABLE),
        (memcheck, "Invalid __global__ write", FAILED),
        (ncu, "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission", UNAVAILABLE),
        (ncu, "==WARNING== No kernels were profiled.", FAILED),
    ):
        step = sh(tool.name, f"echo '{said}'; exit 1", refusal=tool.refusal)
        (result,) = run(tmp_path, step)
        assert result.status == status


def test_a_report_is_kept(tmp_path: Path) -> None:
    ncu = next(step for step in check.plan(tmp_path, tmp_path) if step.name == "ncu")
    pattern = re.compile(ncu.command[ncu.command.index("--kernel-name") + 1].removeprefix("regex:"))
    names = [f"scan_{name}knn" for name in ("", "mma_", "wgmma_", "imma_")]
    assert all(map(pattern.search, names))
    assert not any(map(pattern.search, ["scan_sample", "scan_range", "scan_mma_knn_naive"]))
    title = "  scan_wgmma_knn (132, 1, 1)x(384, 1, 1), Context 1, Stream 7, Device 0, CC 9.0"
    kept = {"expect": ncu.expect, "refusal": ncu.refusal, "report": ncu.report}
    (result,) = run(tmp_path, sh("ncu", f"echo '{title}'", **kept))
    assert result.status == PASSED
    report = tmp_path / "ncu.txt"
    assert report.read_text() == title + "\n"
    report.unlink()
    for script, status in (("echo ERR_NVGPUCTRPERM", UNAVAILABLE), ("exit 0", FAILED)):
        (result,) = run(tmp_path, sh("ncu", script, **kept))
        assert (result.status, report.exists()) == (status, status == FAILED)
    assert not ncu.judged


def test_time_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_RESERVE", 0.0)
    monkeypatch.setattr(check, "_GRACE", 0.1)
    monkeypatch.setattr(check, "_LEAST", 0.5)
    cut, none = run(tmp_path, sh("cut", "sleep 100", seconds=2), sh("none", "exit 0"), left=1)
    assert (cut.status, cut.bad) == (NO_TIME, False)
    assert cut.limit == pytest.approx(1, abs=0.2)
    assert (none.status, none.seconds) == (NO_TIME, 0)


def test_a_step_is_told_when_to_begin_nothing_more(tmp_path: Path) -> None:
    (result,) = run(tmp_path, sh("bench", "echo {seconds}", seconds=180))
    assert result.tail == "140\n"
    (result,) = run(tmp_path, sh("bench", "echo {seconds}", seconds=180), left=100)
    assert 50 <= int(result.tail) <= 55


def test_information_is_not_judged(tmp_path: Path) -> None:
    (result,) = run(tmp_path, sh("info", "exit 1", judged=False))
    assert (result.status, result.bad) == (FAILED, False)
    assert json.loads((tmp_path / "summary.json").read_text())["passed"] is True


def test_steps_have_their_own_environment(tmp_path: Path) -> None:
    first, second = run(tmp_path, sh("a", "echo $MARK", env={"MARK": "x"}), sh("b", "echo $MARK"))
    assert (first.tail, second.tail) == ("x\n", "\n")


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    check.show(
        [
            Result("build", PASSED, True, "", 31.4, tail="done\n"),
            Result("gpu tests", FAILED, True, "", 2.0, tail="why\n1 failed in 2 s\n\n"),
            Result("memcheck", UNAVAILABLE, True, ""),
        ]
    )
    assert capsys.readouterr().out.splitlines() == [
        "",
        "step       status       seconds",
        "build      passed          31.4",
        "gpu tests  failed           2.0  1 failed in 2 s",
        "memcheck   unavailable      0.0",
    ]


def test_what_is_planned_fits_and_is_what_is_there(tmp_path: Path) -> None:
    steps = check.plan(tmp_path, tmp_path)
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    # The GPU's steps in full, when what precedes them takes half of what it may.
    last = names.index("gpu bench")
    before = sum(step.seconds for step in steps[: names.index("gpu tests")])
    assert before / 2 + sum(step.seconds for step in steps[last - 3 : last + 1]) < check.SECONDS
    for step in steps:
        for word in step.command:
            if word.startswith("tests/"):
                file, _, test = word.partition("::")
                assert (check.ROOT / file).exists()
                if test:
                    assert f"def {test}(" in (check.ROOT / file).read_text()


def test_build_requirements_are_the_projects() -> None:
    project = tomllib.loads((check.ROOT / "pyproject.toml").read_text())
    assert set(project["build-system"]["requires"]) <= set(check.BUILD)


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, check.__file__, "--dry-run", "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": str(tmp_path), "CUDA_HOME": str(tmp_path)},
    )
    assert "memcheck (at most 45 s): unavailable" in done.stdout
    assert "ncu (at most 45 s): unavailable" in done.stdout
    assert "pytest -q -m gpu tests/gpu" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("found", [None, object()])
@pytest.mark.parametrize("given", [False, True])
def test_cupy_is_there_or_a_wheel_or_missed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: object,
    given: bool,
) -> None:
    wheel = tmp_path / "cupy_cuda13x-14.0-cp311-cp311-manylinux2014_x86_64.whl"
    if given:
        wheel.touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    assert check.main(["--dry-run", "--wheels", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert ("has no CuPy, and there is no wheel of it in" in said) == (not found and not given)
    steps = [step for step in check.plan(tmp_path, tmp_path) if step.name == "wheel of CuPy"]
    assert [step.command[-1] for step in steps] == ([str(wheel)] if given and not found else [])


def test_a_virtual_environment_sees_what_this_python_sees(tmp_path: Path) -> None:
    check.make_venv(tmp_path / "venv")
    script = "import sys, numpy, pytest, pip; print(sys.prefix, numpy.__file__)"
    done = subprocess.run(
        [tmp_path / "venv" / "bin" / "python", "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    prefix, where = done.stdout.split()
    assert Path(prefix) == tmp_path / "venv"
    import numpy

    assert where == numpy.__file__


def test_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    (work / "cuda").mkdir(parents=True)
    (work / "cuda" / "bench.json").write_text("of an earlier run")
    monkeypatch.setattr(check, "WORK", work)
    monkeypatch.setattr(check, "make_venv", lambda folder: folder.mkdir(parents=True))
    write = f"mkdir {work}/cpu; echo '{{}}' > {work}/cpu/bench.json"
    for last, status in (("exit 0", 0), ("exit 1", 1)):
        steps = [sh("bench", write), sh("last", last)]
        monkeypatch.setattr(check, "plan", lambda *_, steps=steps: steps)
        assert check.main(["--out", str(out)]) == status
        assert {path.name for path in out.iterdir()} == {
            "bench-cpu.json",
            "log.txt",
            "summary.json",
        }
        assert "Wrote bench-cpu.json, log.txt, summary.json" in capsys.readouterr().out

"""All that needs a GPU, in one command and in eight minutes: `make gpu-check`.

For a machine that has a GPU, no network, and little time. The machine's own Python is used with
what it has (CuPy above all); what it lacks is installed from a folder of wheels into a virtual
environment. Steps run one after the other, each with a time limit; one that fails, hangs or lacks
its tool does not stop the others. The folder OUT gets `summary.json`, the output of all steps in
`log.txt`, and the results of the benchmarks.

It lies beside the tests that it runs, and needs nothing but the standard library to start.
docs/gpu.md says how to use it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import signal
import site
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "gpu-check"
SECONDS = 480.0
_TO_END = 40.0
"""What the benchmark may take after it has begun the last thing that it begins."""
_RESERVE = 5.0
"""Kept for ending the last step, and for writing."""
_LEAST = 10.0
"""A step that may take longer is not begun with less."""
_GRACE = 2.0
"""Between asking a step's processes to end and killing them."""
_TAIL = 4000

PASSED, FAILED, TIMED_OUT = "passed", "failed", "timed out"
UNAVAILABLE, NO_TIME = "unavailable", "no time left"

# What pip does not install for a build without isolation: [build-system] of pyproject.toml, and
# the programs that this asks for.
BUILD = (
    "scikit-build-core>=0.11,<2",
    "nanobind>=2.4,<4",
    "swig>=4.4,<5",
    "faiss-cpu>=1.14,<1.16",
    "cmake",
    "ninja",
)

# What is profiled of a scan: what of the card it uses, by which instructions, what warps wait for.
# Each takes some passes of the kernel.
PROFILED = (
    "SpeedOfLight",
    "ComputeWorkloadAnalysis",
    "MemoryWorkloadAnalysis",
    "InstructionStats",
    "SchedulerStats",
    "WarpStateStats",
    "Occupancy",
)

# Says what is missing, where something is: CuPy, a GPU, a driver that is new enough.
A_KERNEL = (
    "from faiss_dmih.gpu.kernels import CudaLauncher; "
    "CudaLauncher().kernel('random_words', 'random_words')"
)


@dataclass(frozen=True)
class Step:
    """One command. `{seconds}` in it stands for when it is to begin nothing more."""

    name: str
    command: Sequence[str]
    seconds: float
    tool: str = ""
    """A program without which the step is unavailable."""
    expect: str = ""
    """A pattern that its output must have: pytest succeeds where everything is skipped."""
    refusal: str = ""
    """A pattern of what the tool says where it cannot work; the step is unavailable then, too."""
    report: str = ""
    """The name of a file in OUT that gets its output, unless it is unavailable."""
    env: dict[str, str] = field(default_factory=dict)
    judged: bool = True
    """Whether its failure is the check's; the others are for information."""


@dataclass(frozen=True)
class Result:
    """What became of a step."""

    name: str
    status: str
    judged: bool
    command: str
    seconds: float = 0.0
    limit: float = 0.0
    returncode: int | None = None
    tail: str = ""
    """The end of its output."""

    @property
    def bad(self) -> bool:
        return self.judged and self.status in (FAILED, TIMED_OUT)


def plan(wheels: Path, work: Path) -> list[Step]:
    """The steps, in the order of their weight."""
    programs = work / "venv" / "bin"
    python = str(programs / "python")
    pip = (python, "-m", "pip", "install", "--no-index", "--find-links", str(wheels))
    pytest = (python, "-m", "pytest", "-q")
    on_gpu = (*pytest, "-m", "gpu")
    # Every kernel of the engine, and few searches: a sanitizer takes tens of times as long.
    tensor = "tests/gpu/test_tensor.py"
    corners = (
        *(*on_gpu, "tests/gpu/test_gpu_corners.py", "tests/gpu/test_offsets.py"),
        *(f"{tensor}::test_distances_from_0_to_d", f"{tensor}::test_many_shares_of_work"),
    )
    bench = (str(programs / "faiss-dmih"), "bench")
    ncu = ["ncu", "--profile-from-start", "off", "--kernel-name", r"regex:^scan_(\w*mma_)?knn$"]
    for section in PROFILED:
        ncu += ["--section", section]
    some = r"\b[1-9]\d* passed"

    def sanitized(tool: str, options: Sequence[str] = (), tests: Sequence[str] = ()) -> Step:
        sanitizer = ("compute-sanitizer", "--tool", tool, "--error-exitcode", "1", *options)
        return Step(
            tool,
            (*sanitizer, *corners, *tests, "--hypothesis-profile", "few"),
            45,
            tool=sanitizer[0],
            expect=some,
            refusal="Device not supported",
            env={"DMIH_NO_POOL": "1"},
        )

    return [
        Step("nvidia-smi", ("nvidia-smi",), 5, tool="nvidia-smi", judged=False),
        Step("nvcc", ("nvcc", "--version"), 5, tool="nvcc", judged=False),
        Step("wheels to build", (*pip, *BUILD), 30),
        Step(
            "build",
            (
                *(*pip, "--no-deps", "--no-build-isolation"),
                *("--config-settings", f"build-dir={work / 'native'}", "-e", "."),
            ),
            90,
        ),
        Step("wheels to test", (*pip, "faiss-dmih[cpu,bench,test]"), 30),
        *(Step("wheel of CuPy", (*pip, str(wheel)), 40) for wheel in cupy_wheels(wheels)),
        Step("a kernel", (python, "-c", A_KERNEL), 30),
        # Half of this may go into compiling: ours by NVRTC, and CuPy's own at their first use.
        Step("gpu tests", (*on_gpu, "tests/gpu"), 130, expect=some),
        sanitized("memcheck", ["--report-api-errors", "no"]),  # CuPy looks at the API's errors
        # It does not say that it knows what wgmma reads, and what orders that.
        sanitized("racecheck", tests=["-k", "not wgmma"]),
        Step(
            "gpu bench",
            (*bench, "--device", "cuda", "--seconds", "{seconds}", "--out", str(work / "cuda")),
            160,
        ),
        Step(
            "ncu",
            (*ncu, python, "tests/gpu/scans_to_profile.py"),
            45,
            tool=ncu[0],
            expect=r"scan_\w+ \(.*Context",
            refusal=r"ERR_NVGPUCTRPERM|not supported on",
            report="ncu.txt",
            judged=False,
        ),
        Step(
            "cpu tests",
            (*pytest, "tests/test_simd.py", "tests/test_exactness.py"),
            180,
            expect=some,
        ),
        Step(
            "cpu bench",
            (
                *(*bench, "--dataset", "synthetic", "--k", "1,10", "--cell-seconds", "1"),
                *("--out", str(work / "cpu")),
            ),
            90,
        ),
    ]


def lacks_cupy() -> bool:
    return importlib.util.find_spec("cupy") is None


def cupy_wheels(wheels: Path) -> list[Path]:
    """The one to install, if one is needed and there is one."""
    return sorted(wheels.glob("cupy*.whl"))[:1] if lacks_cupy() else []


def results_of_benchmarks(work: Path) -> dict[Path, str]:
    """Files that are copied to OUT, under which names."""
    names = {work / "cuda" / f"bench.{suffix}": suffix for suffix in ("json", "md", "png")}
    return {path: f"bench-cuda.{suffix}" for path, suffix in names.items()} | {
        work / "cpu" / "bench.json": "bench-cpu.json"
    }


def make_venv(folder: Path) -> None:
    """An environment that sees what this Python sees.

    With --system-site-packages alone, one made by the Python of another environment sees what is
    below that one, not in it.
    """
    has_pip = importlib.util.find_spec("pip") is not None
    venv.create(folder, system_site_packages=True, clear=True, symlinks=True, with_pip=not has_pip)
    (packages,) = folder.glob("lib/python*/site-packages")
    lines = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]
    (packages / "machine.pth").write_text("\n".join(lines) + "\n")


def environment(work: Path) -> dict[str, str]:
    """Programs of the virtual environment, of this Python, of CUDA, and the machine's."""
    cuda = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    first = (str(work / "venv" / "bin"), str(Path(sys.executable).parent))
    path = os.pathsep.join([*first, os.environ.get("PATH", ""), f"{cuda}/bin"])
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PATH": path,
        "PYTHONUNBUFFERED": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def run_all(steps: Sequence[Step], out: Path, end: float, env: dict[str, str]) -> list[Result]:
    """All steps, until `end` of the monotonic clock at the latest.

    The summary is written after each: whatever cuts the run off, what was done is known.
    """
    results = list[Result]()
    (out / "log.txt").write_bytes(b"")
    for step in steps:
        print(f"{step.name} ...", end=" ", flush=True)
        left = end - time.monotonic() - _RESERVE
        results.append(run_step(step, left, out / "log.txt", {**env, **step.env}))
        print(f"{results[-1].status}, {results[-1].seconds:.1f} s", flush=True)
        write_summary(results, out)
    return results


def run_step(step: Step, left: float, log: Path, env: dict[str, str]) -> Result:
    """Run one, in `left` seconds or fewer; its output is appended to `log`."""
    limit = min(step.seconds, left)
    begin_nothing_after = max(1.0, limit - _TO_END)
    command = [word.replace("{seconds}", f"{begin_nothing_after:.0f}") for word in step.command]

    def result(status: str, **known: object) -> Result:
        return Result(step.name, status, step.judged, shlex.join(command), **known)  # type: ignore[arg-type]

    if step.tool and shutil.which(step.tool, path=env["PATH"]) is None:
        return result(UNAVAILABLE)
    if limit < min(step.seconds, _LEAST):
        return result(NO_TIME)
    with log.open("ab") as file:
        file.write(f"\n===== {step.name}: {shlex.join(command)}\n".encode())
        file.flush()
        begin = file.tell()
        started = time.monotonic()
        returncode = _returncode(command, limit, file.fileno(), env)
    output = log.read_bytes()[begin:].decode(errors="replace")
    status = PASSED if returncode == 0 and re.search(step.expect, output) else FAILED
    if status == FAILED and step.refusal and re.search(step.refusal, output):
        status = UNAVAILABLE
    if returncode is None:
        status = TIMED_OUT if limit == step.seconds else NO_TIME
    if step.report and status != UNAVAILABLE:
        (log.parent / step.report).write_text(output)
    return result(
        status,
        seconds=round(time.monotonic() - started, 2),
        limit=round(limit, 2),
        returncode=returncode,
        tail=output[-_TAIL:],
    )


def _returncode(command: list[str], limit: float, output: int, env: dict[str, str]) -> int | None:
    """None if it took longer than `limit`. None of its processes outlives it."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=env,
            start_new_session=True,
        )
    except OSError as error:
        os.write(output, f"{error}\n".encode())
        return 127
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        _signal(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
        return None
    finally:
        _signal(process.pid, signal.SIGKILL)
        process.wait()


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def write_summary(results: Sequence[Result], out: Path) -> None:
    summary = {
        "format": "gpu-check 1",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "passed": not any(result.bad for result in results),
        "seconds": round(sum(result.seconds for result in results), 1),
        "steps": [asdict(result) for result in results],
    }
    new = out / "summary.json.part"
    new.write_text(json.dumps(summary, indent=1) + "\n")
    new.replace(out / "summary.json")


def show(results: Sequence[Result]) -> None:
    """A table; of what did not pass also the last line of output."""
    rows = [("step", "status", "seconds", "")]
    for result in results:
        lines = result.tail.split("\n") if result.status != PASSED else []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        rows.append((result.name, result.status, f"{result.seconds:.1f}", last[:100]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for name, status, seconds, last in rows:
        columns = (name.ljust(widths[0]), status.ljust(widths[1]), seconds.rjust(widths[2]), last)
        print("  ".join(columns).rstrip())


def show_plan(steps: Sequence[Step], env: dict[str, str]) -> None:
    for step in steps:
        there = not step.tool or shutil.which(step.tool, path=env["PATH"]) is not None
        print(f"{step.name} (at most {step.seconds:g} s){'' if there else ': ' + UNAVAILABLE}")
        print(f"    {shlex.join(step.command)}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--wheels", type=Path, default=ROOT / "wheels", help="what is installed")
    parser.add_argument("--out", type=Path, default=ROOT / "gpu-check-out", help="for the results")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all steps together")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    options = parser.parse_args(arguments)
    end = time.monotonic() + options.seconds
    steps, env = plan(options.wheels.resolve(), WORK), environment(WORK)
    if lacks_cupy() and not cupy_wheels(options.wheels):
        print(
            f"{sys.executable} has no CuPy, and there is no wheel of it in {options.wheels}: what "
            "needs the GPU will fail. Put cupy-cuda13x there (pip download), or name a Python "
            "that has CuPy (make gpu-check PYTHON=...)"
        )
    if options.dry_run:
        show_plan(steps, env)
        return 0
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(WORK, ignore_errors=True)  # a benchmark's result must be this run's
    make_venv(WORK / "venv")
    results = run_all(steps, out, end, env)
    for path, name in results_of_benchmarks(WORK).items():
        if path.is_file():
            shutil.copyfile(path, out / name)
    show(results)
    print(f"\nWrote {', '.join(sorted(path.name for path in out.iterdir()))} to {out}")
    return int(any(result.bad for result in results))


if __name__ == "__main__":
    sys.exit(main())

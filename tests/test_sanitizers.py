"""The engine under ThreadSanitizer and under ASan and UBSan: tests/engine_check.cpp.

`make tsan` and `make asan` run this file alone, for as long as SECONDS says.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from test_simd import ARM, X86, options_in_cmake

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "faiss_dmih" / "engine"
# What knows of Python or FAISS.
FACES = {"bindings", "python_index", "training", "index_dmih", "selection"}
SECONDS = os.environ.get("DMIH_SANITIZED_SECONDS", "1")
SANITIZERS = {
    "thread": {"TSAN_OPTIONS": "halt_on_error=1"},
    "address,undefined": {"UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"},
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("sanitizer", SANITIZERS, ids=["tsan", "asan"])
def test_engine(sanitizer: str, tmp_path: Path) -> None:
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if not compiler:
        pytest.skip("no C++ compiler")
    sources = [path for path in sorted(ENGINE.glob("*.cpp")) if path.stem not in FACES]
    names = [*(X86 if os.uname().machine == "x86_64" else ARM), "dispatch"]
    sources += [ENGINE / "simd" / f"{name}.cpp" for name in names]
    sources.append(ROOT / "tests" / "engine_check.cpp")
    flags = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-g", "-O1", "-std=c++17"]
    if os.uname().machine == "x86_64":
        flags.append("-march=x86-64-v2")
    own, running, objects = options_in_cmake(), [], []
    for number, source in enumerate(sources):
        objects.append(str(tmp_path / f"{number}.o"))
        # The kernels touch nothing but their arguments (tests/simd_check.cpp), and take long.
        watched = flags if source.parent.name != "simd" else flags[2:]
        command = [compiler, *watched, *own.get(source.stem, []), f"-I{ENGINE}"]
        command += ["-c", str(source), "-o", objects[-1]]
        running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        if len(running) >= 2 * (os.cpu_count() or 1):
            finish(running.pop(0))
    for process in running:
        finish(process)
    program = tmp_path / "engine_check"
    linked = subprocess.run(
        [compiler, *flags, *objects, "-lpthread", "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "cannot find" in linked.stderr:
        pytest.skip(f"the compiler has no runtime for -fsanitize={sanitizer}")
    assert linked.returncode == 0, linked.stderr
    done = subprocess.run(
        [str(program), SECONDS],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **SANITIZERS[sanitizer]},
    )
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    assert "all right" in done.stdout
    print(done.stdout)


def finish(process: subprocess.Popen[str]) -> None:
    errors = process.communicate()[1]
    assert process.returncode == 0, errors

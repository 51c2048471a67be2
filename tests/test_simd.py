"""The scan kernels by themselves, compared with plain loops: tests/simd_check.cpp, compiled here.

Where a cross compiler and an emulator are installed (Debian: g++-aarch64-linux-gnu, qemu-user), the
kernels of ARM are run on any machine.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import faiss_dmih

ROOT = Path(__file__).parents[1]
SIMD = ROOT / "faiss_dmih" / "engine" / "simd"
X86 = ["portable", "avx2", "avx512", "avx512_vpopcntdq"]  # each level's file
ARM = ["portable", "neon"]


def options_in_cmake() -> dict[str, list[str]]:
    """What CMakeLists.txt compiles each kernel file with."""
    found = re.findall(
        r"simd/(\w+)\.cpp PROPERTIES COMPILE_OPTIONS\s+\"([^\"]+)\"",
        (ROOT / "CMakeLists.txt").read_text(),
    )
    assert {name for name, _ in found} == set(X86) - {"portable"}
    return {name: options.split(";") for name, options in found}


def build(compiler: str, levels: list[str], into: Path, *flags: str) -> Path:
    options = options_in_cmake()
    sources = [(SIMD / f"{name}.cpp", options.get(name, [])) for name in (*levels, "dispatch")]
    sources.append((ROOT / "tests" / "simd_check.cpp", []))
    if "avx512" in levels:
        sources.append((ROOT / "tests" / "simd_emulated.cpp", options["avx512"]))
    common = ["-std=c++17", "-Wall", "-Wextra", "-Wshadow", *flags, f"-I{SIMD.parent}"]
    running, objects = [], []
    for source, own in sources:
        objects.append(str(into / f"{source.stem}.o"))
        command = [compiler, *common, *own, "-c", str(source), "-o", objects[-1]]
        running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    for process in running:
        errors = process.communicate()[1]
        assert process.returncode == 0, errors
    program = into / "simd_check"
    subprocess.run([compiler, *flags, *objects, "-o", str(program)], check=True)
    return program


def check(level: str, *program: str | Path) -> None:
    command = [str(part) for part in (*program, "check", level)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "all right" in done.stdout


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if not compiler:
        pytest.skip("no C++ compiler")
    into = tmp_path_factory.mktemp("simd")
    if platform.machine() == "x86_64":
        return build(compiler, X86, into, "-O1", "-march=x86-64-v2")  # -O1: half the time
    if platform.machine() == "aarch64":
        return build(compiler, ARM, into, "-O1")
    pytest.skip(f"simd_check.cpp knows x86_64 and aarch64, not {platform.machine()}")


@pytest.mark.parametrize("level", faiss_dmih.available_simd_levels())
def test_levels_of_this_processor(level: str, native: Path) -> None:
    check(level, native)


@pytest.mark.skipif(
    "avx512" not in faiss_dmih.available_simd_levels(), reason="needs the rest of AVX-512"
)
def test_vpopcntdq_with_its_instruction_emulated(native: Path) -> None:
    check("emulated_vpopcntdq", native)


@pytest.fixture(scope="module")
def emulated_arm(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    compiler = shutil.which("aarch64-linux-gnu-g++")
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if not compiler or not emulator:
        pytest.skip("needs aarch64-linux-gnu-g++ and qemu-aarch64")
    into = tmp_path_factory.mktemp("arm")
    return emulator, build(compiler, ARM, into, "-O3", "-Werror", "-static")


@pytest.mark.parametrize("level", ARM)
def test_levels_of_arm(level: str, emulated_arm: tuple[str, Path]) -> None:
    check(level, *emulated_arm)


def test_the_default_is_the_fastest_level() -> None:
    levels = faiss_dmih.available_simd_levels()
    code = "import faiss_dmih; print(faiss_dmih.simd_level())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == levels[-1]

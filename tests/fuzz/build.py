"""Compiles the fuzzer: `python tests/fuzz/build.py FOLDER` makes FOLDER/fuzz."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "faiss_dmih" / "engine"
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# What is not the engine: FAISS's and Python's faces of it.
FACES = ("bindings.cpp", "python_index.cpp", "training.cpp", "index_dmih.cpp", "python.cpp")
# Where a file's bytes are used: the coverage of these guides the fuzzer.
GUIDES = (
    "read.cpp",
    "assemble.cpp",
    "partition.cpp",
    "clusters.cpp",
    "probe.cpp",
    "search.cpp",
    "index.cpp",
)


def sources() -> dict[Path, list[str]]:
    """The engine's files, and what each is compiled with beyond what all are."""
    cmake = (ROOT / "CMakeLists.txt").read_text()
    own = re.findall(r"simd/(\w+)\.cpp PROPERTIES COMPILE_OPTIONS\s+\"([^\"]+)\"", cmake)
    levels = {name: options.split(";") for name, options in own}
    flags: dict[Path, list[str]] = {}
    for path in sorted(ENGINE.rglob("*.cpp")):
        if path.name in FACES or path.name == "neon.cpp":
            continue
        extra = levels.get(path.stem, []) if path.parent.name == "simd" else []
        if path.parent.name != "simd":
            extra = [*extra, *SANITIZERS]
        if path.name in GUIDES:
            extra = [*extra, "-fsanitize-coverage=trace-pc"]
        flags[path] = extra
    return flags


def build(folder: Path) -> Path:
    """The program. Raises CalledProcessError where it does not compile."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or "c++"
    common = ["-std=c++17", "-O1", "-g1", "-march=x86-64-v2", "-fno-omit-frame-pointer"]
    common += ["-Wall", "-Wextra", "-Wshadow", f"-I{ENGINE}"]
    folder.mkdir(parents=True, exist_ok=True)
    jobs = {**sources(), Path(__file__).with_name("fuzz.cpp"): [*SANITIZERS]}
    objects = [folder / f"{path.parent.name}-{path.stem}.o" for path in jobs]

    def compile_one(job: tuple[Path, list[str]], out: Path) -> None:
        path, flags = job
        subprocess.run([compiler, *common, *flags, "-c", str(path), "-o", str(out)], check=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, jobs.items(), objects))
    program = folder / "fuzz"
    command = [compiler, *SANITIZERS, *map(str, objects), "-o", str(program), "-pthread"]
    subprocess.run(command, check=True)
    return program


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))

"""The planner in made worlds: tests/planner_check.cpp."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "faiss_dmih" / "engine"


def test_the_planner_finds_the_better_engine(tmp_path: Path) -> None:
    """Whatever was thought of the costs before, and whatever they become, calls take at most 1.15
    times as long as with the better engine alone."""
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if not compiler:
        pytest.skip("no C++ compiler")
    program = tmp_path / "planner_check"
    sources = [ROOT / "tests" / "planner_check.cpp", ENGINE / "planner.cpp"]
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{ENGINE}"]
    subprocess.run([*command, *map(str, sources), "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "probing is far cheaper" in done.stdout

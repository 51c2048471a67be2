"""The fuzzer of `make fuzz`, compiled and run for some seconds."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "fuzz"


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ with its sanitizers")
@pytest.mark.timeout(600)
def test_some_mutated_files(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, FUZZ / "build.py", tmp_path], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    done = subprocess.run(
        [tmp_path / "fuzz", FUZZ / "seeds", "runs", "5000"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("5000 executions")

"""The example that trains and searches runs as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_and_search.py"


def test_train_and_search() -> None:
    command = [sys.executable, str(EXAMPLE), "--epochs", "1", "--views", "3000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("DeepHash", "DMIH"):
        report = done.stdout.split(f"{name}: trained")[1]
        for what in ("mAP 0.", "distinct codes", "bucket entropy", "3000 views, 1-NN, auto"):
            assert what in report, what

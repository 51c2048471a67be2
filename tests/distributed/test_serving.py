"""The example that serves runs as it stands: two processes, on the loopback interface."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve.py"


def test_serve() -> None:
    pytest.importorskip("ray.serve")
    command = [sys.executable, str(EXAMPLE), "--n", "3000", "--seconds", "2", "--clients", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "at http://127.0.0.1:" in done.stdout
    (measured,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert json.loads(measured)["requests/s"] > 1

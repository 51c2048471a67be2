"""A node is killed: its shards go to other ones, and the queries complete."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def test_a_node_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    script = Path(__file__).with_name("node_killed.py")
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith('{"on it"')]
    said = json.loads(line)
    assert said["on it"] > said["still on it"] == 0
    assert not said["wrong"]
    assert said["searched"] > 1
    print(line)

"""What a result says of the machine it was measured on."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from faiss_dmih.bench import machine
from faiss_dmih.bench.machine import Bystanders


def test_own_processes_are_no_bystanders(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that has been waited for is the measurement's own."""
    worked = iter([100.0, 100.0])
    monkeypatch.setattr(machine, "_busy_seconds", lambda: next(worked))
    alone = Bystanders()
    assert alone.cores() == 0.0

    def all_cores() -> Any:
        times = machine.os.times()
        return times.user + times.system + times.children_user + times.children_system

    monkeypatch.setattr(machine, "_busy_seconds", all_cores)  # nobody else works
    watched = Bystanders()
    work = "s = 0\nfor i in range(5_000_000): s += i"
    subprocess.run([sys.executable, "-c", work], check=True)
    assert watched.cores() == pytest.approx(0.0, abs=0.2)


def test_others_are_bystanders(monkeypatch: pytest.MonkeyPatch) -> None:
    worked = iter([100.0, 103.0])
    monkeypatch.setattr(machine, "_busy_seconds", lambda: next(worked))
    clock = iter([50.0, 52.0])
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(machine, "_own_seconds", lambda: 0.0)
    assert Bystanders().cores() == 1.5

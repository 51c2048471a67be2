"""What a number means depends on where it was measured: the machine, the system, the versions."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import faiss
import numpy as np

import faiss_dmih

_FLAGS = ("popcnt", "avx2", "avx512bw", "avx512vl", "avx512_vpopcntdq", "asimd", "sve")


@dataclass(frozen=True)
class Machine:
    """Everything recorded about the place and the time of a run."""

    cpu: str
    flags: list[str]
    """Instruction sets that matter to Hamming kernels."""
    cores: int
    """Cores this process may use."""
    cores_in_machine: int
    ram_gib: float
    load_before: float
    """One-minute load average when the run began: near 0 on a quiet machine."""
    os: str
    python: str
    numpy: str
    faiss: str
    faiss_options: str
    faiss_dmih: str
    simd: str
    """Instruction set that IndexDMIH chose."""
    date: str
    """UTC, ISO 8601."""


def describe() -> Machine:
    """The machine at hand, now."""
    cpu, flags = _cpu()
    return Machine(
        cpu=cpu,
        flags=flags,
        cores=len(os.sched_getaffinity(0)),
        cores_in_machine=os.cpu_count() or 1,
        ram_gib=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        load_before=round(os.getloadavg()[0], 2),
        os=platform.platform(),
        python=platform.python_version(),
        numpy=np.__version__,
        faiss=faiss.__version__,
        faiss_options=faiss.get_compile_options().strip(),
        faiss_dmih=faiss_dmih.__version__,
        simd=faiss_dmih.simd_level(),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _cpu() -> tuple[str, list[str]]:
    """Model name and flags of the first processor in /proc/cpuinfo."""
    fields: dict[str, str] = {}
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else ():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    present = (fields.get("flags") or fields.get("Features") or "").split()
    model = fields.get("model name") or platform.processor() or platform.machine()
    return model, [flag for flag in _FLAGS if flag in present]


class Bystanders:
    """How many cores other processes (and other guests of the host) keep busy.

    Whoever shares the cores slows threaded competitors more than single-threaded ones, so this
    belongs to every result.
    """

    def __init__(self) -> None:
        self._wall, self._own = time.perf_counter(), _own_seconds()
        self._all = _busy_seconds()

    def cores(self) -> float | None:
        """Mean since the object was made; None where the system does not say."""
        busy = _busy_seconds()
        if busy is None or self._all is None:
            return None
        own = _own_seconds() - self._own
        wall = time.perf_counter() - self._wall
        return round(max(0.0, busy - self._all - own) / max(wall, 1e-9), 2)


def _own_seconds() -> float:
    """Seconds that this process and those it has waited for have worked."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _busy_seconds() -> float | None:
    """Seconds all cores together have worked since the machine started, from /proc/stat."""
    path = Path("/proc/stat")
    if not path.exists():
        return None
    # user nice system idle iowait irq softirq steal, in clock ticks
    ticks = [int(field) for field in path.read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")

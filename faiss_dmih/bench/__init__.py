"""Measure exact and approximate binary indexes side by side, and check what they answer."""

from __future__ import annotations

from faiss_dmih.bench import rivals  # noqa: F401 (registers them)
from faiss_dmih.bench.cells import Cell
from faiss_dmih.bench.competitors import FAMILIES, Competitor
from faiss_dmih.bench.protocol import Protocol
from faiss_dmih.bench.results import Build, CellResult, Measurement, Run
from faiss_dmih.bench.runner import Group, Suite, run
from faiss_dmih.bench.suite import read_suite, suites

__all__ = [
    "FAMILIES",
    "Build",
    "Cell",
    "CellResult",
    "Competitor",
    "Group",
    "Measurement",
    "Protocol",
    "Run",
    "Suite",
    "read_suite",
    "run",
    "suites",
]

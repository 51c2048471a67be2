"""What an index takes in memory, and what less of it costs in speed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

import faiss

from faiss_dmih import IndexDMIH
from faiss_dmih.bench import check
from faiss_dmih.bench.archive import Key
from faiss_dmih.bench.cells import threads_text
from faiss_dmih.bench.results import Chart, Curve, Spread
from faiss_dmih.bench.sources import Source
from faiss_dmih.bench.trials import Findings, Trial, WrongAnswer, seconds_per_query
from faiss_dmih.data import CodeSet
from faiss_dmih.data.files import Progress

PER_TABLE, PER_CODE = 8, 10
"""Bytes a code may take: for each hash table, and besides."""


@dataclass(frozen=True)
class MemoryTrial(Trial):
    """Bytes by part, the peaks of a process that builds and searches, speed against budgets.

    Goal: `bytes`, at most: what is held beyond the codes, over 8 bytes a code and table and 10 a
    code. `budgets` are bytes a code for the hash tables; without one it is the default.
    """

    source: Source
    threads: int
    rounds: int
    k: int
    budgets: tuple[int, ...]

    GOALS = ("bytes",)

    @property
    def name(self) -> str:
        return f"memory_{self.source.dataset}_d{self.source.bits}_n{self.source.n}"

    @property
    def title(self) -> str:
        return f"Memory: {self.source.title}"

    def key(self) -> Key:
        return {**asdict(self), "source": self.source.key()}

    def find(self, findings: Findings, progress: Progress) -> None:
        self._peaks(findings, progress)
        codes = self.source.load(progress)
        faiss.omp_set_num_threads(self.threads)
        indexes: dict[str, Any] = {}
        for budget in (*self.budgets, None):
            label = "default" if budget is None else f"{budget} B"
            progress(f"building with tables of {label}", len(indexes), len(self.budgets) + 1)
            total = None if budget is None else budget * codes.n
            indexes[label] = IndexDMIH(codes.d, memory_budget=total)
            indexes[label].add(codes.xb)
            for xq in codes.queries.values():
                indexes[label].search(xq, self.k)  # what is put off until then is in the sizes
        self._parts(findings, indexes["default"], codes)
        self._speeds(findings, indexes, codes, progress)

    def _parts(self, findings: Findings, index: IndexDMIH, codes: CodeSet) -> None:
        usage = index.memory_usage()
        for part, size in usage.items():
            findings.add(f"{part}, bytes per code", [size / codes.n], "B")
        # As they come: what padding adds to them does not count as codes.
        distinct = min(usage["codes"], codes.xb.nbytes)
        beyond = usage["total"] - distinct
        tables = len(index.cuts or ())
        limit = (PER_TABLE * tables + PER_CODE) * codes.n
        findings.add("beyond the codes, bytes per code", [beyond / codes.n], "B")
        what = f"beyond the codes, of {PER_TABLE} B a code and table ({tables}) + {PER_CODE} B"
        findings.add(what, [beyond / limit], "%", "bytes")

    def _peaks(self, findings: Findings, progress: Progress) -> None:
        """Of another process, which has nothing else in its memory."""
        progress(f"building {self.source.dataset} in a process of its own", 0, 0)
        asked = {"source": asdict(self.source), "threads": self.threads, "k": self.k}
        ran = subprocess.run(
            [sys.executable, "-m", "faiss_dmih.bench.resident"],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            why = ran.stderr.strip().splitlines()[-1:] or [f"exit status {ran.returncode}"]
            findings.notes.append(f"Peaks are not known: {why[0]}")
            return
        n, sizes = self.source.n, json.loads(ran.stdout)
        for what, key in (
            ("resident after building", "held"),
            ("peak of building", "build"),
            ("peak of searching", "search"),
        ):
            findings.add(f"{what}, beyond the given codes, per code", [sizes[key] / n], "B")
        findings.add("peak of the whole process", [sizes["process"]], "B")

    def _speeds(
        self, findings: Findings, indexes: dict[str, Any], codes: CodeSet, progress: Progress
    ) -> None:
        speeds: dict[tuple[str, str], list[float]] = {}
        for kind, xq in codes.queries.items():
            truth = indexes["default"].search(xq, self.k)
            for label, index in indexes.items():
                if wrong := check.difference(*index.search(xq, self.k), *truth):
                    raise WrongAnswer(f"{label}, {kind}: {wrong}")
        for step in range(self.rounds):
            progress("searching by budgets", step, self.rounds)
            for label, index in indexes.items():
                for kind, xq in codes.queries.items():
                    seconds = seconds_per_query(index.search, [xq], self.k)
                    speeds.setdefault((label, kind), []).append(1 / seconds)
        totals = [index.memory_usage()["total"] / codes.n for index in indexes.values()]
        curves = [
            Curve(
                f"{kind} queries",
                totals,
                [Spread.of(speeds[label, kind]) for label in indexes],
                list(indexes),
            )
            for kind in codes.queries
        ]
        asked = f"k = {self.k}, batches of {self.source.nq:,}, {threads_text(self.threads)}"
        title = f"{self.source.title}: speed by bytes a code for tables; {asked}"
        axes = "bytes per code in all, codes included", "queries/s"
        findings.charts.append(Chart(title, *axes, curves, unit="/s"))

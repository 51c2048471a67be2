"""What it is worth to learn which bits go into which table."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import faiss

from faiss_dmih import IndexDMIH, reset_stats, stats
from faiss_dmih.bench import check
from faiss_dmih.bench.archive import Key
from faiss_dmih.bench.cells import threads_text
from faiss_dmih.bench.sources import Source
from faiss_dmih.bench.trials import Findings, Trial, WrongAnswer, seconds_per_query
from faiss_dmih.data import CodeSet
from faiss_dmih.data.files import Progress

UNLEARNED = "contiguous"
ENGINES = {"probe": "tables alone", "auto": "planner"}
"""What is forced, and what figures call it."""


@dataclass(frozen=True)
class PartitionTrial(Trial):
    """Candidates and time of a query, trained by each strategy, over those of contiguous bits.

    Every index is asked by its tables alone and as the planner has it, all queries of a kind in one
    call, every answer being IndexBinaryFlat's. Which neighbours are near others is a matter of the
    codes that are drawn to learn from, so that some per cent are luck. Goal: `candidates`, at most
    that much of what contiguous bits meet, for each strategy and kind of queries.
    """

    source: Source
    k: int
    strategies: tuple[str, ...]
    threads: int
    rounds: int

    GOALS = ("candidates",)

    @property
    def name(self) -> str:
        source = self.source
        return f"partition_{source.dataset}-{source.method}_d{source.bits}_n{source.n}"

    @property
    def title(self) -> str:
        made = f" by {self.source.method.upper()}" if self.source.is_real else ""
        on = threads_text(self.threads)
        return f"Which bits go where: {self.source.title}{made}, k = {self.k}, {on}"

    def key(self) -> Key:
        return {**asdict(self), "source": self.source.key()}

    def find(self, findings: Findings, progress: Progress) -> None:
        codes = self.source.load(progress)
        faiss.omp_set_num_threads(self.threads)
        indexes = {name: self._trained(name, codes, findings, progress) for name in self._all}
        flat = faiss.IndexBinaryFlat(codes.d)
        flat.add(codes.xb)
        for kind, xq in codes.queries.items():
            progress(f"asking flat about {kind} queries", 0, 0)
            truth = flat.search(xq, self.k)
            met: dict[str, float] = {}
            for name, index in indexes.items():
                index.force_engine("probe")
                reset_stats()
                answer = index.search(xq, self.k)
                met[name] = stats()["candidates"] / len(xq)
                if wrong := check.difference(*answer, *truth):
                    raise WrongAnswer(f"{name}, {kind}: {wrong}")
            findings.add(f"candidates a query, {kind}: {UNLEARNED}", [met[UNLEARNED]], "")
            for name in self.strategies:
                share = [met[name] / met[UNLEARNED]]
                what = f"candidates over {UNLEARNED}, {kind}: {name}"
                findings.add(what, share, "x", "candidates")
            self._time(findings, indexes, kind, codes, progress)

    @property
    def _all(self) -> tuple[str, ...]:
        return (UNLEARNED, *self.strategies)

    def _trained(
        self, strategy: str, codes: CodeSet, findings: Findings, progress: Progress
    ) -> IndexDMIH:
        progress(f"learning by {strategy}", self._all.index(strategy), len(self._all))
        index = IndexDMIH(codes.d)
        start = time.perf_counter()
        index.train(codes.xb, strategy=strategy)
        if strategy != UNLEARNED:
            findings.add(f"learning by {strategy}", [time.perf_counter() - start], "s")
        index.add(codes.xb)
        return index

    def _time(
        self,
        findings: Findings,
        indexes: dict[str, IndexDMIH],
        kind: str,
        codes: CodeSet,
        progress: Progress,
    ) -> None:
        xq = codes.queries[kind]
        for engine, called in ENGINES.items():
            seconds: dict[str, list[float]] = {name: [] for name in indexes}
            for step in range(self.rounds):
                progress(f"{kind} queries by {called}", step, self.rounds)
                for name, index in indexes.items():
                    index.force_engine(engine)
                    seconds[name].append(seconds_per_query(index.search, [xq], self.k))
            base = seconds[UNLEARNED]
            findings.add(f"time of a query, {kind}, {called}: {UNLEARNED}", base, "s")
            for name in self.strategies:
                ratios = [s / b for s, b in zip(seconds[name], base, strict=True)]
                findings.add(f"time over {UNLEARNED}, {kind}, {called}: {name}", ratios, "x")

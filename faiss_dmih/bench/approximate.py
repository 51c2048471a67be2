"""Approximate search: recall against queries per second, beside graphs and inverted files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import faiss

from faiss_dmih import IndexDMIH, SearchParametersDMIH
from faiss_dmih.bench import check
from faiss_dmih.bench.archive import Key
from faiss_dmih.bench.cells import threads_text
from faiss_dmih.bench.competitors import FAMILIES, apply
from faiss_dmih.bench.questions import Answer, Codes, Nearest
from faiss_dmih.bench.results import Chart, Curve, Spread
from faiss_dmih.bench.sources import Source
from faiss_dmih.bench.trials import SETTLE_SECONDS, Findings, Trial
from faiss_dmih.data import CodeSet
from faiss_dmih.data.files import Progress

OURS, EXACT = "IndexDMIH", "IndexDMIH, exact"
MAX_CODES = (30, 100, 300, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000)
SWEEPS: dict[str, tuple[str, tuple[int, ...]]] = {
    "hnsw": ("hnsw.efSearch", (10, 16, 32, 64, 128, 256, 512)),
    "ivf": ("nprobe", (1, 2, 4, 8, 16, 32, 64, 128)),
    "usearch-hnsw": ("index.expansion_search", (10, 16, 32, 64, 128, 256, 512)),
}
"""Whom `max_codes` can be compared with, and what is varied."""
LONE = 128
"""Queries that are asked one at a time."""


@dataclass(eq=False)
class _Point:
    """An index, searched with one value of an option."""

    subject: str
    option: str
    """What is varied; empty for the exact search."""
    value: str
    search: Callable[[Codes, int], Answer]
    seconds: list[float] = field(default_factory=list)
    recall: float = 0.0


@dataclass(frozen=True)
class ApproximateTrial(Trial):
    """Distance recall@k against queries per second: `max_codes`, and what others have of the kind.

    Goal: `ahead`, for each competitor and size of calls: queries per second of the index over the
    competitor's, the index being searched with the fastest option that has no less recall; the
    least of that over all options with which the competitor has a recall of `recall` or more.
    """

    source: Source
    queries: str
    k: int
    batch: tuple[int, ...]
    recall: float
    competitors: tuple[str, ...]
    threads: int
    rounds: int

    GOALS = ("ahead",)

    @property
    def name(self) -> str:
        return f"approximate_{self.source.dataset}_d{self.source.bits}_n{self.source.n}"

    @property
    def title(self) -> str:
        return f"Approximate: {self.source.title}, {self.queries}, k = {self.k}"

    def key(self) -> Key:
        versions = [FAMILIES[name].version() for name in self._present()]
        return {**asdict(self), "source": self.source.key(), "present": self._present() + versions}

    def _present(self) -> list[str]:
        return [name for name in self.competitors if not FAMILIES[name].missing()]

    def find(self, findings: Findings, progress: Progress) -> None:
        codes = self.source.load(progress)
        faiss.omp_set_num_threads(self.threads)
        for name in self.competitors:
            if why := FAMILIES[name].missing():
                findings.notes.append(f"{name} took no part: {why}")
        built = self._built(findings, codes, progress)
        for batch in self.batch:
            xq = codes.queries[self.queries]
            xq = xq[:LONE] if batch == 1 else xq
            points = list(_points(built))
            self._measure(points, xq, batch, progress)
            calls = "one query at a time" if batch == 1 else f"batches of {batch:,}"
            on = threads_text(self.threads)
            self._compare(findings, points, calls)
            title = f"{self.source.title}: {calls}, {on}"
            axes = f"distance recall@{self.k}", "queries/s"
            curves = _curves(points)
            findings.charts.append(Chart(title, *axes, curves, scale="recall", unit="/s"))

    def _built(self, findings: Findings, codes: CodeSet, progress: Progress) -> dict[str, Any]:
        built: dict[str, Any] = {OURS: IndexDMIH(codes.d)}
        for name in self._present():
            (competitor,) = FAMILIES[name].configurations(codes.d, codes.n)
            built[name] = competitor.make(codes.d)
        for step, name in enumerate(built):
            progress(f"building {name} over {codes.name}", step, len(built))
            start = time.perf_counter()
            built[name].add(codes.xb)
            built[name].search(codes.queries[self.queries][:1], self.k)  # what is put off
            findings.add(f"building {name}", [time.perf_counter() - start], "s")
        return built

    def _measure(self, points: Sequence[_Point], xq: Codes, batch: int, progress: Progress) -> None:
        exact = next(p for p in points if p.subject == EXACT)
        question = Nearest(self.k)
        calls = [xq[i : i + batch] for i in range(0, len(xq), batch)]
        truth = question.join([exact.search(x, self.k) for x in calls])
        for step in range(self.rounds + 1):
            for point in points:
                # Others answer a query by one thread; waking more only slows them down.
                single = batch == 1 and point.subject not in (OURS, EXACT)
                faiss.omp_set_num_threads(1 if single else self.threads)
                progress(f"{point.subject} {point.option} {point.value}", step, self.rounds + 1)
                time.sleep(SETTLE_SECONDS)
                start = time.perf_counter()
                answers = [point.search(x, self.k) for x in calls]
                seconds = time.perf_counter() - start
                if step == 0:  # the caches are warm now
                    D, I = question.join(answers)
                    point.recall = check.distance_recall(D, I, *truth)
                else:
                    point.seconds.append(seconds / len(xq))

    def _compare(self, findings: Findings, points: Sequence[_Point], calls: str) -> None:
        ours = [p for p in points if p.subject in (OURS, EXACT)]
        for name in dict.fromkeys(p.subject for p in points if p not in ours):
            theirs = [p for p in points if p.subject == name and p.recall >= self.recall]
            if not theirs:
                findings.notes.append(f"{name}, {calls}: no recall of {self.recall:g} reached")
                continue
            ratios = []
            for r in range(self.rounds):
                ratios.append(
                    min(
                        p.seconds[r] / min(o.seconds[r] for o in ours if o.recall >= p.recall)
                        for p in theirs
                    )
                )
            what = f"queries/s over {name}'s at recall >= {self.recall:g}, at the least, {calls}"
            findings.add(what, ratios, "x", "ahead")


def _points(built: dict[str, Any]) -> Iterator[_Point]:
    index = built[OURS]
    for max_codes in MAX_CODES:
        params = SearchParametersDMIH(max_codes=max_codes)

        def search(xq: Codes, k: int, params: Any = params) -> Answer:
            D, I = index.search(xq, k, params=params)
            return D, I

        yield _Point(OURS, "max_codes", str(max_codes), search)
    yield _Point(EXACT, "", "exact", index.search)
    for name in built:
        if name in SWEEPS:
            option, values = SWEEPS[name]
            for value in values:
                apart = _with(built[name], option, value)
                yield _Point(name, option.split(".")[-1], str(value), apart)


def _with(index: Any, option: str, value: int) -> Callable[[Codes, int], Answer]:
    def search(xq: Codes, k: int) -> Answer:
        apply(index, {option: value})
        D, I = index.search(xq, k)
        return D, I

    return search


def _curves(points: Sequence[_Point]) -> list[Curve]:
    curves: dict[str, Curve] = {}
    for point in sorted(points, key=lambda p: p.recall):
        name = f"{point.subject} ({point.option})" if point.option else point.subject
        curve = curves.setdefault(name, Curve(name, [], []))
        curve.x.append(point.recall)
        curve.y.append(Spread.of([1 / s for s in point.seconds]))
        curve.points.append(point.value)
    return [curves[name] for name in sorted(curves)]

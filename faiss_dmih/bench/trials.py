"""What is measured otherwise than by searches in rounds: building, growing, the kernels alone.

`memory`, `scaling` and `approximate` have the trials that draw charts.

A trial gives figures, each with its median and range over `rounds`. As everywhere, those who are
compared take turns, and ratios are taken within a round.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import faiss
import numpy as np

from faiss_dmih import IndexDMIH, _engine
from faiss_dmih.bench import check
from faiss_dmih.bench.archive import Key
from faiss_dmih.bench.cells import threads_text
from faiss_dmih.bench.competitors import DmihAuto, DmihMih, MultiHash
from faiss_dmih.bench.machine import Bystanders
from faiss_dmih.bench.questions import Answer, Codes
from faiss_dmih.bench.results import Chart, Figure, Spread, TrialResult
from faiss_dmih.bench.sources import Source
from faiss_dmih.data import PLANTED
from faiss_dmih.data.files import Progress
from faiss_dmih.data.synthetic import uniform

SETTLE_SECONDS = 0.02


class WrongAnswer(RuntimeError):
    """An index was wrong; the message says where."""


class Stopwatch:
    """Times what happens within `with watch(name):`, again and again."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)

    def figure(self, what: str, name: str, divisor: int = 1) -> Figure:
        """The times called `name`, over `divisor`."""
        return Figure(what, Spread.of([s / divisor for s in self.seconds[name]]), "s")

    def ratio(self, what: str, name: str, other: str, goal: str = "") -> Figure:
        """The times called `name` over those called `other`, each of the same round."""
        pairs = zip(self.seconds[name], self.seconds[other], strict=True)
        return Figure(what, Spread.of([s / t for s, t in pairs]), "x", goal)


def seconds_per_query(
    search: Callable[[Codes, int], Any], calls: Sequence[Codes], k: int, least: float = 0.05
) -> float:
    """Time of passes over `calls`, for `least` seconds or one pass, after one that is not timed.

    There is a pause before: threads of whoever was asked last may still be spinning.
    """
    time.sleep(SETTLE_SECONDS)
    for xq in calls:
        search(xq, k)
    passes, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < least or not passes:
        for xq in calls:
            search(xq, k)
        passes += 1
    return elapsed / (passes * sum(map(len, calls)))


@dataclass
class Findings:
    """What a trial adds to, as it goes."""

    figures: list[Figure] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, values: Sequence[float], unit: str, goal: str = "") -> None:
        """A figure."""
        self.figures.append(Figure(what, Spread.of(values), unit, goal))


class Trial(ABC):
    """Has a `name` for files and a `title` for people."""

    GOALS: ClassVar[tuple[str, ...]]
    """What bounds can be set for: figures carry one of these names."""

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    @abstractmethod
    def title(self) -> str: ...

    @abstractmethod
    def key(self) -> Key:
        """What the figures depend on, but for the machine and the build."""

    @abstractmethod
    def find(self, findings: Findings, progress: Progress) -> None:
        """Measure. Raises `WrongAnswer`, or `DataUnavailable`."""

    def run(self, progress: Progress) -> TrialResult:
        """What was found, or what was wrong with the answers. Raises `DataUnavailable`."""
        started, bystanders = time.perf_counter(), Bystanders()
        threads = faiss.omp_get_max_threads()
        found, error = Findings(), ""
        try:
            self.find(found, progress)
        except WrongAnswer as wrong:
            found, error = Findings(), str(wrong)
        finally:
            faiss.omp_set_num_threads(threads)
        return TrialResult(
            self.name,
            self.title,
            found.figures,
            time.perf_counter() - started,
            bystanders.cores(),
            error,
            found.charts,
            found.notes,
        )


@dataclass(frozen=True)
class BuildTrial(Trial):
    """Time of one add of all codes: the index, its tables alone, and IndexBinaryMultiHash.

    Goals: `auto` and `tables`, times faster than the fastest MultiHash index (which adds with one
    thread, whatever their number); `threads`, times faster with all threads than with one.
    """

    source: Source
    threads: tuple[int, ...]
    rounds: int

    GOALS = ("auto", "tables", "threads")

    @property
    def name(self) -> str:
        return f"build_{self.source.dataset}_d{self.source.bits}_n{self.source.n}"

    @property
    def title(self) -> str:
        return f"Building: one add of {self.source.title}"

    def key(self) -> Key:
        return {**asdict(self), "source": self.source.key()}

    def find(self, findings: Findings, progress: Progress) -> None:
        codes = self.source.load(progress)
        auto, tables = DmihAuto(), DmihMih()
        others = MultiHash.configurations(codes.d, codes.n)
        steps = [
            (competitor, threads)
            for _ in range(self.rounds)
            for threads in self.threads
            for competitor in (auto, tables, *others)
        ]
        watch = Stopwatch()
        for step, (competitor, threads) in enumerate(steps):
            progress(f"adding to {competitor.label}", step, len(steps))
            faiss.omp_set_num_threads(threads)
            index = competitor.make(codes.d)
            with watch(f"{competitor.label}, {threads_text(threads)}"):
                index.add(codes.xb)
        figures = findings.figures
        figures += [watch.figure(name, name) for name in watch.seconds]
        for threads in self.threads:
            on = threads_text(threads)
            rivals = [watch.seconds[f"{other.label}, {on}"] for other in others]
            watch.seconds[on] = [min(times) for times in zip(*rivals, strict=True)]
            for mine, goal in ((auto, "auto"), (tables, "tables")):
                what = f"{mine.label} over multihash, {on}"
                figures.append(watch.ratio(what, on, f"{mine.label}, {on}", goal))
        few, many = threads_text(min(self.threads)), threads_text(max(self.threads))
        if few != many:
            for mine in (auto, tables):
                what = f"{mine.label}, {many} over {few}"
                names = f"{mine.label}, {few}", f"{mine.label}, {many}"
                figures.append(watch.ratio(what, *names, "threads"))


@dataclass(frozen=True)
class GrowthTrial(Trial):
    """Speed of planted searches (k = 1) when codes have come in otherwise than all at once.

    The speed after an add is that of the `calls` calls that come next, the first one included; each
    asks all queries, and every answer is checked. Goal: `speed`, what is left of the speed after
    one bulk add when the same codes came in `adds` adds, one by one, or when `further` ones came
    after it. One by one they come from a loop in C++, whose time is the engine's alone.
    """

    source: Source
    threads: int
    rounds: int
    adds: int
    further: tuple[int, ...]
    calls: int

    GOALS = ("speed",)

    @property
    def name(self) -> str:
        return f"growth_{self.source.dataset}_d{self.source.bits}_n{self.source.n}"

    @property
    def title(self) -> str:
        asked = f"planted queries, k = 1, batches of {self.source.nq:,}"
        return f"Growth: {self.source.title}; {asked}, {threads_text(self.threads)}"

    def key(self) -> Key:
        return {**asdict(self), "source": self.source.key()}

    def find(self, findings: Findings, progress: Progress) -> None:
        codes = self.source.load(progress)
        faiss.omp_set_num_threads(self.threads)
        xq = codes.queries[PLANTED]
        rng = np.random.default_rng([self.source.seed, 1])
        parts = [uniform(size, codes.d, rng) for size in self.further]
        progress("asking flat about growing codes", 0, 0)
        truths = _growing_truths(codes.xb, parts, xq)
        watch = Stopwatch()

        def ask(what: str, index: Any, truth: Answer) -> None:
            with watch(what):
                answers = [index.search(xq, 1) for _ in range(self.calls)]
            for D, I in answers:
                if wrong := check.difference(D, I, *truth):
                    raise WrongAnswer(f"{what}: {wrong}")

        many, singly = f"{self.adds} adds", "one by one"
        further = [f"after {size:,} more" for size in self.further]
        for step in range(self.rounds):
            progress("growing", step, self.rounds)
            bulk, grown = IndexDMIH(codes.d), IndexDMIH(codes.d)
            with watch("one add"):
                bulk.add(codes.xb)
            ask("after one add", bulk, truths[0])
            with watch(many):
                for part in np.array_split(codes.xb, self.adds):
                    grown.add(part)
            ask(f"after {many}", grown, truths[0])
            grown = IndexDMIH(codes.d)
            seconds = _engine.add_singly(grown, codes.xb)
            watch.seconds.setdefault(singly, []).append(seconds)
            ask(f"after {singly}", grown, truths[0])
            for part, what, truth in zip(parts, further, truths[1:], strict=True):
                bulk.add(part)
                ask(what, bulk, truth)

        later = [f"after {many}", f"after {singly}", *further]
        findings.figures += [
            watch.figure("one add", "one add"),
            watch.figure(many, many),
            watch.ratio(f"{many}, time over that of one add", many, "one add"),
            watch.figure(singly, singly),
            watch.ratio(f"{singly}, time over that of one add", singly, "one add"),
            *(
                watch.figure(f"a query {what}", what, self.calls * len(xq))
                for what in ("after one add", *later)
            ),
            *(
                watch.ratio(f"speed {what}, of that after one add", "after one add", what, "speed")
                for what in later
            ),
        ]


def _growing_truths(xb: Codes, parts: Sequence[Codes], xq: Codes) -> list[Answer]:
    """IndexBinaryFlat's answers (k = 1) over `xb`, then after adding each part."""
    flat = faiss.IndexBinaryFlat(8 * xb.shape[1])
    truths = []
    for part in (xb, *parts):
        flat.add(part)
        truths.append(flat.search(xq, 1))
    return truths


@dataclass(frozen=True)
class KernelTrial(Trial):
    """The scan kernels alone, against what the processor could do at best.

    Figures come from `faiss_dmih._engine.kernel_speeds`. Goals: `fold`, the batches' kernel, of the
    peak rate of the vector units that it uses; `row`, the lone queries' kernel, of the rate at
    which codes can be read from memory.
    """

    bits: tuple[int, ...]
    rounds: int

    GOALS = ("fold", "row")

    @property
    def name(self) -> str:
        return "kernels"

    @property
    def title(self) -> str:
        return "Scan kernels, one thread"

    def key(self) -> Key:
        return asdict(self)

    def find(self, findings: Findings, progress: Progress) -> None:
        for step, d in enumerate(self.bits):
            progress(f"kernels, {d} bits", step, len(self.bits))
            speeds = [_engine.kernel_speeds(d) for _ in range(self.rounds)]
            fold, row = f"batches, {d} bits", f"lone queries, {d} bits"
            findings.figures += [
                _figure(f"{fold}: distances", speeds, lambda s: 1e9 * s["block"] / s["fold"], "/s"),
                _figure(
                    f"{fold}: part of the vector units' peak",
                    speeds,
                    lambda s: s["fold_limit"] / s["fold"],
                    "%",
                    "fold",
                ),
                _figure(
                    f"{fold}: making a block's planes", speeds, lambda s: s["planes"] / 1e9, "s"
                ),
                _figure(f"{row}: distances", speeds, lambda s: 1e9 / s["row"], "/s"),
                _figure(
                    f"{row}: part of the memory's peak",
                    speeds,
                    lambda s: s["row_limit"] / s["row"],
                    "%",
                    "row",
                ),
            ]


def _figure(
    what: str,
    speeds: Sequence[dict[str, float]],
    value: Callable[[dict[str, float]], float],
    unit: str,
    goal: str = "",
) -> Figure:
    return Figure(what, Spread.of([value(s) for s in speeds]), unit, goal)

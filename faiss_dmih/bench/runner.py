"""Runs cells: loads each database once, builds each index once, races them cell by cell."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import faiss

from faiss_dmih.bench.archive import Archive, Key
from faiss_dmih.bench.cells import Cell
from faiss_dmih.bench.competitors import (
    ENGINES,
    FAMILIES,
    Competitor,
    DmihAuto,
    DmihEngines,
    Settings,
)
from faiss_dmih.bench.goals import Goal, judge
from faiss_dmih.bench.machine import Bystanders, describe
from faiss_dmih.bench.protocol import Entrant, Protocol, Timing, race
from faiss_dmih.bench.questions import Answer, Codes, Nearest, Question
from faiss_dmih.bench.results import (
    BASELINE,
    Build,
    CellResult,
    Measurement,
    Run,
    Spread,
    TrialResult,
)
from faiss_dmih.bench.trials import Trial
from faiss_dmih.data import CodeSet, DataUnavailable
from faiss_dmih.data.files import Progress, no_progress


@dataclass(frozen=True)
class Group:
    """Cells over one database, which is loaded when its turn comes and let go afterwards."""

    load: Callable[[Progress], CodeSet]
    cells: dict[Cell, Sequence[str]]
    """Each with its competitors, names in `FAMILIES`; the baseline takes part in any case."""
    protocol: Protocol = field(default_factory=Protocol)
    key: Key = field(default_factory=dict)
    """What the database depends on."""

    def key_of(self, cell: Cell) -> Key:
        """What the result of `cell` depends on, but for the machine and the build."""
        return {
            "cell": asdict(cell),
            "data": self.key,
            "competitors": [
                " ".join(filter(None, (name, FAMILIES[name].version())))
                for name in _present(self.cells[cell])
            ],
            "protocol": asdict(self.protocol),
        }


@dataclass(frozen=True)
class Suite:
    """All that one run measures, and what is expected of it."""

    groups: list[Group]
    trials: list[Trial] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    name: str = ""
    protocol: Protocol = field(default_factory=Protocol)
    """For the record: groups have their own."""
    threads: int = 1
    """What indexes are built with; cells have their own."""
    seed: int = 0
    """For the record."""


def run(suite: Suite, *, archive: Archive | None = None, progress: Progress = no_progress) -> Run:
    """Measure all cells of all groups, and all trials; what the archive has is taken from there.

    Whatever is finished is saved there. What cannot be measured here is left out, and the result
    says so.
    """
    started = time.perf_counter()
    result = Run(describe(), suite.protocol, suite.threads, suite.seed, suite=suite.name)
    for family in {
        name for group in suite.groups for names in group.cells.values() for name in names
    }:
        if why := FAMILIES[family].missing():
            result.absent[family] = why
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(suite.threads)
    total = sum(len(group.cells) for group in suite.groups) + len(suite.trials)

    def advance(what: str) -> None:
        progress(what, len(result.cells) + len(result.trials) + len(result.skipped), total)

    try:
        known = [_run_group(group, result, archive, advance, progress) for group in suite.groups]
        known += [_run_trial(trial, result, archive, advance, progress) for trial in suite.trials]
    finally:
        faiss.omp_set_num_threads(before)
    progress("measured", total, total)
    return replace(
        result,
        outcomes=judge(suite.goals, result),
        reused=sum(known),
        seconds=time.perf_counter() - started,
    )


def _present(families: Sequence[str]) -> list[str]:
    """Those who can take part here."""
    return [name for name in families if not FAMILIES[name].missing()]


def _run_group(
    group: Group,
    result: Run,
    archive: Archive | None,
    advance: Callable[[str], None],
    progress: Progress,
) -> int:
    """Add the cells of the group to `result`; how many of them the archive had."""
    known = _known(group, archive)
    contest: _Contest | None = None
    missing = [cell for cell in group.cells if cell not in known]
    if missing:
        try:
            contest = _Contest(group, missing, progress)
        except DataUnavailable as error:
            result.skipped.update({cell.id: str(error) for cell in missing})
    for cell in group.cells:
        advance(cell.title)
        if cell in known:
            result.cells.append(known[cell])
        elif contest is not None:
            result.cells.append(contest.hold(cell))
            if archive is not None:
                archive.save(cell.id, group.key_of(cell), result.cells[-1])
    return len(known)


def _known(group: Group, archive: Archive | None) -> dict[Cell, CellResult]:
    """The cells of the group that the archive has; failures are given another chance."""
    if archive is None:
        return {}
    found = {cell: archive.find(cell.id, group.key_of(cell)) for cell in group.cells}
    results = {cell: CellResult.read(raw) for cell, raw in found.items() if raw is not None}
    return {cell: result for cell, result in results.items() if result.success}


def _run_trial(
    trial: Trial,
    result: Run,
    archive: Archive | None,
    advance: Callable[[str], None],
    progress: Progress,
) -> int:
    """Add the trial to `result`; 1 if the archive had it."""
    advance(trial.title)
    raw = archive and archive.find(trial.name, trial.key())
    if raw and not raw["error"]:
        result.trials.append(TrialResult.read(raw))
        return 1
    try:
        result.trials.append(trial.run(progress))
    except DataUnavailable as error:
        result.skipped[trial.name] = str(error)
        return 0
    if archive is not None:
        archive.save(trial.name, trial.key(), result.trials[-1])
    return 0


@dataclass(frozen=True)
class _Contender:
    """A competitor and its index, if it could be built; one index for all with its label."""

    competitor: Competitor
    index: Any
    build: Build

    @property
    def variants(self) -> list[tuple[_Contender, Settings]]:
        return [(self, settings) for settings in self.competitor.settings()]

    def blank(self, settings: Settings, cell: Cell, error: str) -> Measurement:
        """What is known before anything is timed."""
        return Measurement(
            competitor=self.competitor.variant(settings),
            family=self.competitor.family,
            label=self.competitor.label,
            exact=self.competitor.certain(settings, cell.question),
            own_order=self.competitor.own_order,
            settings=settings,
            threads=self.competitor.threads(cell.batch, cell.threads),
            success=False,
            error=error,
        )


class _Contest:
    """One database, the indexes over it, and what IndexBinaryFlat answers."""

    def __init__(self, group: Group, cells: Sequence[Cell], progress: Progress) -> None:
        self._group = group
        self._codes = group.load(progress)
        self._contenders = _build_all(
            self._codes,
            _present(list(dict.fromkeys(name for cell in cells for name in group.cells[cell]))),
            progress,
        )
        progress(f"asking {BASELINE} about {self._codes.name}", 0, 0)
        self._truths = _truths(self._codes, cells, self._contenders[0].index)

    def hold(self, cell: Cell) -> CellResult:
        """Race the competitors of `cell` and check what they answer."""
        started, bystanders = time.perf_counter(), Bystanders()
        families = [BASELINE, *self._group.cells[cell]]
        contenders = [c for c in self._contenders if c.competitor.family in families]
        variants = [variant for contender in contenders for variant in contender.variants]
        entrants = [
            Entrant(
                contender.competitor.variant(settings),
                cell.question.put_to(contender.index),
                partial(_prepare, contender, settings, cell),
            )
            for contender, settings in variants
            if contender.build.success
        ]
        xq = self._codes.queries[cell.queries][: cell.nq]
        before = faiss.omp_get_max_threads()
        raced = iter(race(entrants, xq, cell.batch, self._group.protocol, cell.question.join))
        faiss.omp_set_num_threads(before)
        cores = bystanders.cores()
        timings = [
            next(raced) if contender.build.success else Timing(error=contender.build.error)
            for contender, _ in variants
        ]
        truth = self._truths[cell]
        names = [contender.competitor.family for contender, _ in variants]
        planner = timings[names.index(DmihAuto.family)] if DmihAuto.family in names else None
        measurements = [
            _judge(
                contender.blank(settings, cell, timing.error),
                timing,
                timings[0],
                planner,
                truth,
                cell.question,
            )
            for (contender, settings), timing in zip(variants, timings, strict=True)
        ]
        return CellResult(
            cell,
            self._codes.info,
            list({c.build.label: c.build for c in contenders}.values()),
            measurements,
            time.perf_counter() - started,
            cores,
            _regret(names, timings),
        )


def _build_all(codes: CodeSet, families: Sequence[str], progress: Progress) -> list[_Contender]:
    """Competitors with their indexes over `codes.xb`, the baseline first."""
    names = dict.fromkeys([BASELINE, *families])
    competitors = [c for name in names for c in FAMILIES[name].configurations(codes.d, codes.n)]
    probe = next(iter(codes.queries.values()))[:1]
    built: dict[str, tuple[Any, Build]] = {}
    for i, competitor in enumerate(competitors):
        if competitor.label not in built:
            progress(f"building {competitor.label} over {codes.name}", i, len(competitors))
            built[competitor.label] = _build(competitor, codes, probe)
    return [_Contender(competitor, *built[competitor.label]) for competitor in competitors]


def _build(competitor: Competitor, codes: CodeSet, probe: Codes) -> tuple[Any, Build]:
    label = competitor.label
    try:
        # A small index first: starting threads and loading code pages is no cost of this one.
        small = competitor.make(codes.d)
        small.add(codes.xb[:1000])
        small.search(probe, 1)
        index = competitor.make(codes.d)
        start = time.perf_counter()
        index.add(codes.xb)
        added = time.perf_counter()
        index.search(probe, 1)
        searched = time.perf_counter()
        size, how = competitor.memory(index)
    except Exception as error:  # a competitor's failure is a result, whatever its type
        return None, Build(label, success=False, error=f"{type(error).__name__}: {error}")
    build = Build(
        label,
        success=True,
        add_seconds=added - start,
        first_search_seconds=searched - added,
        bytes=size,
        bytes_per_code=size / codes.n,
        bytes_from=how,
    )
    return index, build


def _truths(codes: CodeSet, cells: Sequence[Cell], flat: Any) -> dict[Cell, Answer]:
    """What IndexBinaryFlat answers to the question of each cell, or to a wider one.

    Neighbours are asked for once for each kind of queries, at the largest k: the first k columns
    are the answer for any smaller k, as Flat orders by (distance, id). Flat's own timed answers are
    held against this one too.
    """
    largest: dict[str, int] = {}
    for cell in cells:
        largest[cell.queries] = max(cell.k, largest.get(cell.queries, 0))
    known: dict[tuple[str, Question], Answer] = {}
    truths = {}
    for cell in cells:
        asked = Nearest(largest[cell.queries]) if cell.radius is None else cell.question
        if (cell.queries, asked) not in known:
            known[cell.queries, asked] = asked.put_to(flat)(codes.queries[cell.queries])
        truths[cell] = known[cell.queries, asked]
    return truths


def _prepare(contender: _Contender, settings: Settings, cell: Cell) -> None:
    faiss.omp_set_num_threads(contender.competitor.threads(cell.batch, cell.threads))
    contender.competitor.prepare(contender.index, settings)


def _judge(
    blank: Measurement,
    timing: Timing,
    baseline: Timing,
    planner: Timing | None,
    truth: Answer,
    question: Question,
) -> Measurement:
    """`blank` with what the timing says, and failed where an exact competitor was wrong."""
    if timing.error or not timing.seconds:
        return blank
    true = question.first(truth, timing.nq)
    try:
        recall, distance_recall = question.recalls(timing.answers[-1], true)
    except ValueError as error:
        return replace(blank, error=str(error))
    wrong = ""
    if blank.exact:
        compare = question.equivalent if blank.own_order else question.difference
        wrong = next(filter(None, (compare(answer, true) for answer in timing.answers)), "")
    return replace(
        blank,
        success=not wrong,
        error=wrong,
        nq=timing.nq,
        rounds=len(timing.seconds),
        loops=timing.loops,
        seconds_per_query=Spread.of(timing.seconds),
        speedup=_ratios(baseline, timing),
        behind=None if planner is None else _ratios(timing, planner),
        recall=recall,
        distance_recall=distance_recall,
    )


def _ratios(one: Timing, other: Timing) -> Spread | None:
    """The times of one over those of the other, each of the same round."""
    pairs = list(zip(one.seconds, other.seconds, strict=False))
    return Spread.of([a / b for a, b in pairs]) if pairs else None


def _regret(families: Sequence[str], timings: Sequence[Timing]) -> Spread | None:
    """Time of the planner over that of the best of `ENGINES`, round by round.

    None where the planner's own engines do not take part.
    """
    if DmihAuto.family not in families or DmihEngines.family not in families:
        return None
    planner = timings[families.index(DmihAuto.family)]
    engines = [
        timing.seconds
        for family, timing in zip(families, timings, strict=True)
        if family in ENGINES
    ]
    ratios = [
        own / min(seconds[r] for seconds in engines if r < len(seconds))
        for r, own in enumerate(planner.seconds)
        if any(r < len(seconds) for seconds in engines)
    ]
    return Spread.of(ratios) if ratios else None

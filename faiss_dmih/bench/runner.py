"""Runs cells: loads each database once, builds each index once, races them cell by cell."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from faiss_dmih.bench import check
from faiss_dmih.bench.cells import Cell
from faiss_dmih.bench.competitors import FAMILIES, Competitor, apply, variant_name
from faiss_dmih.bench.machine import Bystanders, describe
from faiss_dmih.bench.protocol import Answer, Entrant, Protocol, Timing, race
from faiss_dmih.bench.results import BASELINE, Build, CellResult, Measurement, Run, Spread
from faiss_dmih.data import CodeSet
from faiss_dmih.data.files import Progress, no_progress


@dataclass(frozen=True)
class Group:
    """Cells over one database, which is loaded when its turn comes and let go afterwards."""

    load: Callable[[], CodeSet]
    cells: list[Cell]


@dataclass(frozen=True)
class _Built:
    competitor: Competitor
    index: Any
    build: Build


def run(
    groups: Sequence[Group],
    families: Sequence[str],
    *,
    protocol: Protocol,
    threads: int,
    seed: int,
    cell_folder: Path | None = None,
    progress: Progress = no_progress,
) -> Run:
    """Measure all cells of all groups. Each finished cell is written to `cell_folder`, if given.

    `families` are names in `FAMILIES`; the baseline takes part whether named or not.
    """
    started = time.perf_counter()
    result = Run(describe(), protocol, threads, seed)
    total = sum(len(group.cells) for group in groups)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        for group in groups:
            codes = group.load()
            built = _build_all(codes, families, progress)
            truths = _truths(codes, group.cells, built[0].index)
            for cell in group.cells:
                progress(
                    f"{cell.workload}, k {cell.k}, batch {cell.batch}", len(result.cells), total
                )
                done = _run_cell(cell, codes, built, truths[cell.queries], protocol)
                result.cells.append(done)
                if cell_folder is not None:
                    done.save(cell_folder)
    finally:
        faiss.omp_set_num_threads(before)
    progress("measured", total, total)
    return replace(result, seconds=time.perf_counter() - started)


def _build_all(codes: CodeSet, families: Sequence[str], progress: Progress) -> list[_Built]:
    """Indexes over `codes.xb`, the baseline first."""
    names = dict.fromkeys([BASELINE, *families])
    competitors = [c for name in names for c in FAMILIES[name].configurations(codes.d, codes.n)]
    probe = next(iter(codes.queries.values()))[:1]
    built = []
    for i, competitor in enumerate(competitors):
        progress(f"building {competitor.label} over {codes.name}", i, len(competitors))
        built.append(_build(competitor, codes, probe))
    return built


def _build(competitor: Competitor, codes: CodeSet, probe: npt.NDArray[np.uint8]) -> _Built:
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
        failed = Build(label, success=False, error=f"{type(error).__name__}: {error}")
        return _Built(competitor, None, failed)
    build = Build(
        label,
        success=True,
        add_seconds=added - start,
        first_search_seconds=searched - added,
        bytes=size,
        bytes_per_code=size / codes.n,
        bytes_from=how,
    )
    return _Built(competitor, index, build)


def _truths(codes: CodeSet, cells: Sequence[Cell], flat: Any) -> dict[str, Answer]:
    """For each kind of queries IndexBinaryFlat's answer at the largest k.

    Its first k columns are the answer for any smaller k: Flat orders by (distance, id). Flat's own
    timed answers are held against this one too.
    """
    largest: dict[str, int] = {}
    for cell in cells:
        largest[cell.queries] = max(cell.k, largest.get(cell.queries, 0))
    return {kind: flat.search(codes.queries[kind], k) for kind, k in largest.items()}


def _run_cell(
    cell: Cell, codes: CodeSet, built: Sequence[_Built], truth: Answer, protocol: Protocol
) -> CellResult:
    started, bystanders = time.perf_counter(), Bystanders()
    variants = [(b, s) for b in built for s in b.competitor.settings()]
    running = [(b, s) for b, s in variants if b.build.success]
    entrants = [
        Entrant(
            variant_name(b.build.label, settings),
            b.index.search,
            partial(_prepare, b, settings, cell),
        )
        for b, settings in running
    ]
    xq = codes.queries[cell.queries][: cell.nq]
    timings = iter(race(entrants, xq, cell.k, cell.batch, protocol))
    faiss.omp_set_num_threads(cell.threads)
    cores = bystanders.cores()
    measurements: list[Measurement] = []
    baseline: Timing | None = None
    for b, settings in variants:
        timing = next(timings) if b.build.success else Timing(error=b.build.error)
        baseline = baseline or timing
        blank = Measurement(
            competitor=variant_name(b.build.label, settings),
            family=b.competitor.family,
            label=b.build.label,
            exact=b.competitor.exact,
            settings=settings,
            threads=b.competitor.threads(cell.batch, cell.threads),
            success=False,
            error=timing.error,
        )
        measurements.append(_judge(blank, timing, baseline, truth, cell.k))
    return CellResult(
        cell,
        codes.info,
        [b.build for b in built],
        measurements,
        time.perf_counter() - started,
        cores,
    )


def _prepare(built: _Built, settings: dict[str, int], cell: Cell) -> None:
    faiss.omp_set_num_threads(built.competitor.threads(cell.batch, cell.threads))
    apply(built.index, settings)


def _judge(
    blank: Measurement, timing: Timing, baseline: Timing, truth: Answer, k: int
) -> Measurement:
    """`blank` with what the timing says, and failed where an exact competitor was wrong."""
    if timing.error or not timing.seconds:
        return blank
    D_true, I_true = (array[: timing.nq, :k] for array in truth)
    D, I = timing.answers[-1]
    if D.shape != D_true.shape or I.shape != I_true.shape:
        return replace(blank, error=f"got D{D.shape}, I{I.shape}, expected {D_true.shape} each")
    error = ""
    if blank.exact:
        wrong = (check.difference(*answer, D_true, I_true) for answer in timing.answers)
        error = next(filter(None, wrong), "")
    ratios = [b / own for b, own in zip(baseline.seconds, timing.seconds, strict=False)]
    return replace(
        blank,
        success=not error,
        error=error,
        nq=timing.nq,
        rounds=len(timing.seconds),
        loops=timing.loops,
        seconds_per_query=Spread.of(timing.seconds),
        speedup=Spread.of(ratios) if ratios else None,
        recall=check.recall(I, I_true),
        distance_recall=check.distance_recall(D, I, D_true, I_true),
    )

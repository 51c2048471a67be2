"""Runs the plan: limits first, then database after database, as far as the time goes.

In a cell competitors take turns, round after round, as on the CPU. Before each turn of the device
the scratch memory is read: caches are cold, and the device is busy while the host queues the
search, so that its own clock tells the search's time alone. Every answer is compared with
IndexBinaryFlat's for the first queries, and for the others with that of whoever was right there.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import faiss
import numpy as np

from faiss_dmih.bench.cells import Cell
from faiss_dmih.bench.cuda import competitors
from faiss_dmih.bench.cuda.competitors import SCAN, SCANS, TENSOR, Contestant
from faiss_dmih.bench.cuda.device import Array, Device
from faiss_dmih.bench.cuda.limits import Limits, Scratch, random_codes
from faiss_dmih.bench.cuda.plan import Database, goals, judge
from faiss_dmih.bench.cuda.results import (
    OF_FLOOR,
    OF_POPC,
    OF_TENSOR,
    PAIRS,
    QUERIES,
    CudaBuild,
    CudaCell,
    CudaRun,
    Timed,
)
from faiss_dmih.bench.machine import describe
from faiss_dmih.bench.questions import Answer, Codes
from faiss_dmih.bench.results import Figure, Spread
from faiss_dmih.data import HELD_OUT, PLANTED
from faiss_dmih.data.files import Progress
from faiss_dmih.data.synthetic import planted, uniform

_FEW = 8
"""Queries for a first look at how long they take."""
_CHECKED = 16
"""Queries that IndexBinaryFlat is asked, too."""
_TURN_SECONDS, _HOST_TURN_SECONDS = 1.0, 0.1
"""A competitor is given fewer queries where all of them would take longer."""
_CELL_SECONDS = 1.5
_MIN_ROUNDS, _MAX_ROUNDS = 3, 15
_ALONE_SECONDS = 0.01
"""The host's part is nothing beside calls that take longer."""
_BUILDS = 3


def run(
    device: Device,
    make: Callable[[int], Any],
    databases: Sequence[Database],
    *,
    threads: int,
    seed: int,
    seconds: float,
    progress: Progress,
    save: Callable[[CudaRun], None],
) -> CudaRun:
    """Measure. `make(d)` gives an empty GpuIndexDMIH; nothing is begun after `seconds`.

    `save` is given what there is after each database: a run that is killed has not been for
    nothing.
    """
    before = faiss.omp_get_max_threads()
    try:
        runner = _Runner(device, make, databases, threads, seed, seconds, progress)
        for database in databases:
            runner.measure(database)
            save(runner.result())
        return runner.result()
    finally:
        faiss.omp_set_num_threads(before)


@dataclass
class _Turns:
    """What one competitor did in a cell so far."""

    entrant: Contestant
    xq: Array
    nq: int
    seconds: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    error: str = ""


class _Runner:
    def __init__(
        self,
        device: Device,
        make: Callable[[int], Any],
        databases: Sequence[Database],
        threads: int,
        seed: int,
        seconds: float,
        progress: Progress,
    ) -> None:
        self._started = time.perf_counter()
        self._device, self._make, self._databases = device, make, databases
        self._threads, self._seed, self._seconds = threads, seed, seconds
        self._progress = progress
        self._machine, self._gpu = describe(), device.describe()
        self._builds, self._cells = list[CudaBuild](), list[CudaCell]()
        self._skipped = dict[str, str]()
        self._show("limits of the device")
        self._scratch = Scratch(device, self._gpu)
        self._limits = self._scratch.limits()

    def result(self) -> CudaRun:
        return CudaRun(
            machine=self._machine,
            gpu=self._gpu,
            seed=self._seed,
            threads=self._threads,
            limits=self._limits,
            builds=list(self._builds),
            cells=list(self._cells),
            outcomes=judge(goals(self._databases), self._cells, self._skipped),
            skipped=dict(self._skipped),
            absent=competitors.absent() | self._without_tensor_cores(),
            seconds=self._elapsed(),
        )

    def _without_tensor_cores(self) -> dict[str, str]:
        return {TENSOR: self._limits.tensor_by} if self._limits.tensor is None else {}

    def measure(self, database: Database) -> None:
        """All of its cells, or as many as there is time and memory for."""
        if self._elapsed() > self._seconds:
            self._skip(database.cells, self._no_time())
            return
        try:
            self._show(f"making {database.title}")
            index, xb = self._filled(database)
        except MemoryError as error:
            self._skip(database.cells, f"not enough memory: {error}")
        except Exception as error:  # its failure is a result, whatever its type
            text = f"{type(error).__name__}: {error}"
            self._builds.append(CudaBuild(database.d, database.n, _OURS, error=text))
            self._skip(database.cells, text)
        else:
            self._ask(database, index, xb)
            del index
        gc.collect()  # what is free is seen as free by the next index
        self._device.trim()

    def _ask(self, database: Database, index: Any, xb: Codes) -> None:
        flat = faiss.IndexBinaryFlat(database.d)
        flat.add(xb)
        others = self._others(database, xb)
        most = max(cell.nq for cell in database.cells)
        rng = np.random.default_rng([self._seed, database.d, database.n])
        queries = {HELD_OUT: uniform(most, database.d, rng), PLANTED: planted(xb, most, rng)}
        for cell in database.cells:
            if self._elapsed() > self._seconds:
                self._skip([cell], self._no_time())
                continue
            self._show(f"{database.title}: {cell.task}")
            contestants = [
                *competitors.on_device(index, cell, tensor_cores=self._limits.tensor is not None),
                *competitors.on_host(others, cell),
            ]
            self._cells.append(self._cell(cell, contestants, flat, queries[cell.queries]))

    def _elapsed(self) -> float:
        return time.perf_counter() - self._started

    def _no_time(self) -> str:
        return f"no time left: {self._seconds:g} s were over"

    def _skip(self, cells: Sequence[Cell], why: str) -> None:
        self._skipped |= {cell.id: why for cell in cells}

    def _show(self, what: str) -> None:
        total = sum(len(database.cells) for database in self._databases)
        self._progress(what, len(self._cells) + len(self._skipped), total)

    def _filled(self, database: Database) -> tuple[Any, Codes]:
        """The index over the database, its codes on the host, and how long adding took."""
        codes = random_codes(self._device, database.n, database.d, self._seed)
        index = self._make(database.d)
        index.add(codes[:1000])  # kernels are compiled
        times = []
        for _ in range(_BUILDS):
            index.reset()
            times.append(self._alone(lambda: index.add(codes)))
        size = int(index.memory_usage()["total"])
        self._builds.append(CudaBuild(database.d, database.n, _OURS, Spread.of(times), size))
        return index, self._device.download(codes)

    def _others(self, database: Database, xb: Codes) -> dict[str, Any]:
        """The indexes that take arrays of the host."""
        if not database.on_host:
            return {}
        faiss.omp_set_num_threads(self._threads)
        indexes = {}
        for name, make in competitors.host_makers(database.d).items():
            self._show(f"{name}: adding {database.title}")
            try:
                indexes[name] = make()
                start = time.perf_counter()
                indexes[name].add(xb)
                spread = Spread.of([time.perf_counter() - start])
                self._builds.append(CudaBuild(database.d, database.n, name, spread))
            except Exception as error:  # as above
                text = f"{type(error).__name__}: {error}"
                self._builds.append(CudaBuild(database.d, database.n, name, error=text))
                indexes.pop(name, None)
        return indexes

    def _cell(
        self, cell: Cell, contestants: Sequence[Contestant], flat: Any, xq: Codes
    ) -> CudaCell:
        faiss.omp_set_num_threads(self._threads)
        checker = _Checker(cell, flat, xq)
        there = self._device.upload(xq[: cell.nq])
        all_turns = []
        for entrant in contestants:
            turns = _Turns(entrant, xq[: cell.nq] if entrant.host_clock else there, cell.nq)
            self._guarded(turns, partial(self._start, turns, checker))
            all_turns.append(turns)
        started = time.perf_counter()
        for round_number in range(_MAX_ROUNDS):
            over = time.perf_counter() - started > _CELL_SECONDS
            if over and round_number >= _MIN_ROUNDS:
                break
            for turns in all_turns:
                if not turns.error:
                    self._guarded(turns, partial(self._turn, turns, checker))
        return CudaCell(cell, checker.checked, [_timed(cell, t, self._limits) for t in all_turns])

    @staticmethod
    def _guarded(turns: _Turns, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # as above
            turns.error = f"{type(error).__name__}: {error}"

    def _start(self, turns: _Turns, checker: _Checker) -> None:
        """Warm up, and find out how many queries fit into a turn."""
        few = min(_FEW, turns.nq)
        for _ in range(2):
            seconds, _ = self._search(turns, few)
        share = _HOST_TURN_SECONDS if turns.entrant.host_clock else _TURN_SECONDS
        turns.nq = min(turns.nq, max(few, int(share * few / max(seconds, 1e-9))))
        self._check(turns, checker, self._search(turns, turns.nq)[1])

    def _turn(self, turns: _Turns, checker: _Checker) -> None:
        seconds, answer = self._search(turns, turns.nq)
        turns.seconds.append(seconds)
        self._check(turns, checker, answer)
        if seconds < _ALONE_SECONDS and not turns.entrant.host_clock:
            self._scratch.read()
            turns.alone.append(self._alone(lambda: turns.entrant.search(turns.xq[: turns.nq])))

    def _search(self, turns: _Turns, nq: int) -> tuple[float, Answer]:
        xq = turns.xq[:nq]
        turns.entrant.prepare()
        if turns.entrant.host_clock:
            start = time.perf_counter()
            answer = turns.entrant.search(xq)
            return time.perf_counter() - start, answer
        self._scratch.read()
        return self._device.timed(lambda: turns.entrant.search(xq))

    def _alone(self, action: Callable[[], object]) -> float:
        """By the host's clock, from an idle device to an idle device."""
        self._device.wait()
        start = time.perf_counter()
        action()
        self._device.wait()
        return time.perf_counter() - start

    def _check(self, turns: _Turns, checker: _Checker, answer: Answer) -> None:
        if not turns.entrant.host_clock:
            answer = tuple(self._device.download(array) for array in answer)
        turns.error = checker.wrong(turns.entrant.name, turns.nq, answer)


_OURS = "dmih"


class _Checker:
    """Compares the answers in a cell."""

    def __init__(self, cell: Cell, flat: Any, xq: Codes) -> None:
        self._question = cell.question
        self.checked = min(_CHECKED, cell.nq)
        self._truth = self._question.put_to(flat)(xq[: self.checked])
        self._agreed: tuple[str, int, Answer] | None = None

    def wrong(self, name: str, nq: int, answer: Answer) -> str:
        """Empty if the answer to the first `nq` queries is right, as far as is known."""
        # The arrays' types are the tests' concern, and an index may have others than FAISS's.
        pairs = zip(answer, self._truth, strict=True)
        answer = tuple(got.astype(true.dtype, copy=False) for got, true in pairs)
        common = min(nq, self.checked)
        if wrong := self._difference(answer, self._truth, common):
            return wrong
        if self._agreed is None:
            self._agreed = name, nq, answer
            return ""
        other, its_nq, its = self._agreed
        wrong = self._difference(answer, its, min(nq, its_nq))
        return wrong and f"{wrong}; beyond {self.checked} queries {other}'s is taken for it"

    def _difference(self, answer: Answer, truth: Answer, nq: int) -> str:
        first = self._question.first
        return self._question.difference(first(answer, nq), first(truth, nq))


def _timed(cell: Cell, turns: _Turns, limits: Limits) -> Timed:
    entrant, seconds = turns.entrant, turns.seconds
    if turns.error or not seconds:
        return Timed(entrant.name, entrant.host_clock, turns.nq, error=turns.error)
    figures = [Figure(QUERIES, Spread.of([turns.nq / s for s in seconds]), "/s")]
    if entrant.name in SCANS:
        pairs = [cell.n * turns.nq / s for s in seconds]
        figures.append(Figure(PAIRS, Spread.of(pairs), "/s"))
        if entrant.name == TENSOR and limits.tensor is not None:
            most = limits.tensor_pairs(cell.d)
            figures.append(Figure(OF_TENSOR, Spread.of([p / most for p in pairs]), "%"))
        if entrant.name == SCAN and cell.batch == 1:
            floor = cell.n * cell.d / 8 / limits.memory.median
            figures.append(Figure(OF_FLOOR, Spread.of([s / floor for s in seconds]), "x"))
        elif entrant.name == SCAN:
            most = limits.popc.median / (cell.d / 32)
            figures.append(Figure(OF_POPC, Spread.of([p / most for p in pairs]), "%"))
    return Timed(
        competitor=entrant.name,
        host_clock=entrant.host_clock,
        nq=turns.nq,
        rounds=len(seconds),
        seconds=Spread.of(seconds),
        alone=Spread.of(turns.alone) if turns.alone else None,
        figures=figures,
    )

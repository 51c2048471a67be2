"""Suites: TOML files that say what is measured together, and which goals are set for it.

The packaged ones lie in `suites/`, and `suites/core.toml` is the example to read. A file has

- `seed`, `threads` (default: all cores), `competitors`, and `max_regret`, the goal for the planner
  in every cell where dmih-auto and dmih-engines take part;
- `[protocol]`: any field of `protocol.Protocol`;
- `[[group]]`: a data set with its parameters, and `cells`, each a table: `k` or `radius`, `batch`,
  `queries` (their kind), each one or several, every combination of which is a cell; `goal` and
  `stretch`, the least speed-ups over flat that are asked of competitors; `ahead`, the least that
  dmih-auto is to be faster than a competitor that finds everything. `threads`, `competitors`
  and `max_regret` may be given anew for a group or a cell, `seed` and `cell_seconds` for a group.
  Cells are measured and shown by kind, batch and k, however they are listed;
- `[[build]]`, `[[growth]]`, `[[kernel]]`, `[[memory]]`, `[[scaling]]`, `[[approximate]]`,
  `[[partition]]`: what trials measure, with a `goal` table.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from faiss_dmih.bench.approximate import SWEEPS, ApproximateTrial
from faiss_dmih.bench.cells import Cell
from faiss_dmih.bench.competitors import FAMILIES, DmihAuto, DmihEngines, DmihMih, DmihScan
from faiss_dmih.bench.goals import REGRET, Goal, over
from faiss_dmih.bench.memory import MemoryTrial
from faiss_dmih.bench.partitions import UNLEARNED, PartitionTrial
from faiss_dmih.bench.protocol import Protocol
from faiss_dmih.bench.runner import Group, Suite
from faiss_dmih.bench.scaling import ScalingTrial
from faiss_dmih.bench.sources import Source
from faiss_dmih.bench.trials import BuildTrial, GrowthTrial, KernelTrial, Trial
from faiss_dmih.data import (
    DATASETS,
    GENERATORS,
    HELD_OUT,
    METHODS,
    PLANTED,
    InputError,
    check_bits,
)
from faiss_dmih.partition import STRATEGIES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent / "suites"

Table = dict[str, Any]
Check = Callable[[Any], Any]
"""Gives the value as it is to be used, or raises `ValueError` saying what is expected."""


def suites() -> list[str]:
    """Names of the packaged suites."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_suite(name_or_path: str) -> Suite:
    """The packaged suite of that name, or the one in that file. Raises `InputError`."""
    path = Path(name_or_path)
    if name_or_path in suites():
        path = FOLDER / f"{name_or_path}.toml"
    elif path.suffix != ".toml":
        known = ", ".join(suites())
        raise InputError(
            f"unknown suite {name_or_path!r}; known are {known}, or give the path of a .toml file"
        )
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path.name}: not TOML: {error}") from error
    return _suite(path.stem, raw, path.name)


# What values may be


def _at_least(least: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or value < least:
            raise ValueError(f"expected a whole number of at least {least}")
        return value

    return check


_positive = _at_least(1)


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not value >= 0:
        raise ValueError("expected a number of at least 0")
    return float(value)


def _bits(value: Any) -> int:
    check_bits(_positive(value))
    return int(value)


def _one_of(known: Sequence[str]) -> Check:
    def check(value: Any) -> str:
        if value not in known:
            raise ValueError(f"expected one of {', '.join(known)}")
        return str(value)

    return check


def _some(check: Check) -> Check:
    """One value or a list of different ones."""

    def check_all(value: Any) -> list[Any]:
        values = [check(v) for v in (value if isinstance(value, list) else [value])]
        if not values or len(set(values)) < len(values):
            raise ValueError("expected a value, or a list of different ones")
        return values

    return check_all


def _name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9.+-]+", value):
        raise ValueError("expected a word of letters, digits, '.', '+' and '-'")
    return value


def _bounds(known: Sequence[str]) -> Check:
    """A table of numbers with some of the `known` keys."""

    def check(value: Any) -> dict[str, float]:
        if not isinstance(value, dict) or not set(value) <= set(known):
            raise ValueError(f"expected a table with some of the keys {', '.join(known)}")
        return {key: _number(bound) for key, bound in value.items()}

    return check


def _options(value: Any) -> Table:
    if not isinstance(value, dict) or any(type(v) not in (int, float) for v in value.values()):
        raise ValueError("expected a table of numbers")
    return value


def _anything(value: Any) -> Any:
    return value


def _tables(value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError("expected a list of tables")
    return value


_FAMILIES = _some(_one_of([*FAMILIES]))
_SUBJECTS = (DmihAuto.family, DmihScan.family, DmihMih.family)
"""Whose speed-ups goals can be set for."""
_CELL: dict[str, Check] = {
    "queries": _some(_name),
    "k": _some(_positive),
    "radius": _some(_positive),
    "batch": _some(_positive),
    "goal": _bounds(_SUBJECTS),
    "stretch": _bounds(_SUBJECTS),
    "ahead": _bounds([*FAMILIES]),
    "threads": _positive,
    "competitors": _FAMILIES,
    "max_regret": _number,
}
_INHERITED = ("threads", "competitors", "max_regret")
_SOURCE: dict[str, Check] = {
    "dataset": _one_of([*DATASETS, *GENERATORS]),
    "bits": _bits,
    "n": _positive,
    "nq": _positive,
    "seed": _at_least(0),
    "binarize": _one_of([*METHODS]),
    "options": _options,
}
_GROUP: dict[str, Check] = {
    **_SOURCE,
    "name": _name,
    "cells": _tables,
    "cell_seconds": _number,
    **{key: _CELL[key] for key in _INHERITED},
}
_BUILD: dict[str, Check] = {
    **_SOURCE,
    "threads": _some(_positive),
    "rounds": _positive,
    "goal": _bounds(BuildTrial.GOALS),
}
_GROWTH: dict[str, Check] = {
    **_SOURCE,
    "threads": _positive,
    "rounds": _positive,
    "adds": _positive,
    "further": _some(_positive),
    "calls": _positive,
    "goal": _bounds(GrowthTrial.GOALS),
}
_KERNEL: dict[str, Check] = {
    "bits": _some(_bits),
    "rounds": _positive,
    "goal": _bounds(KernelTrial.GOALS),
}
_MEMORY: dict[str, Check] = {
    **_SOURCE,
    "threads": _positive,
    "rounds": _positive,
    "k": _positive,
    "budgets": _some(_at_least(0)),
    "goal": _bounds(MemoryTrial.GOALS),
}
_SCALING: dict[str, Check] = {
    "bits": _bits,
    "n": _some(_positive),
    "batch": _some(_positive),
    "threads": _positive,
    "rounds": _positive,
    "seed": _at_least(0),
}
_APPROXIMATE: dict[str, Check] = {
    **_SOURCE,
    "queries": _name,
    "k": _positive,
    "batch": _some(_positive),
    "recall": _number,
    "competitors": _some(_one_of([*SWEEPS])),
    "threads": _positive,
    "rounds": _positive,
    "goal": _bounds(ApproximateTrial.GOALS),
}
_PARTITION: dict[str, Check] = {
    **_SOURCE,
    "k": _positive,
    "strategies": _some(_one_of([name for name in STRATEGIES if name != UNLEARNED])),
    "threads": _positive,
    "rounds": _positive,
    "goal": _bounds(PartitionTrial.GOALS),
}
_PROTOCOL: dict[str, Check] = {
    field.name: _positive if field.type == "int" else _number for field in fields(Protocol)
}
_SUITE: dict[str, Check] = {
    "seed": _at_least(0),
    **{key: _CELL[key] for key in _INHERITED},
    "protocol": _anything,
    "group": _tables,
    "build": _tables,
    "growth": _tables,
    "kernel": _tables,
    "memory": _tables,
    "scaling": _tables,
    "approximate": _tables,
    "partition": _tables,
}


def _checked(raw: Any, checks: dict[str, Check], place: str, *required: str) -> Table:
    """`raw` with its values checked. Errors name the place, the key, and what is expected."""
    if not isinstance(raw, dict):
        raise InputError(f"{place}: expected a table, got {raw!r}")
    for key in raw:
        if key not in checks:
            raise InputError(f"{place}: unknown key {key!r}; expected some of {', '.join(checks)}")
    for key in required:
        if key not in raw:
            raise InputError(f"{place}: the key {key!r} is missing; {', '.join(required)} must be")
    table = {}
    for key, value in raw.items():
        try:
            table[key] = checks[key](value)
        except ValueError as error:
            raise InputError(f"{place}, {key}: {error}; got {value!r}") from error
    return table


# From tables to work


def _suite(name: str, raw: Table, file: str) -> Suite:
    table = _checked(raw, _SUITE, file)
    table.setdefault("seed", 0)
    table.setdefault("threads", len(os.sched_getaffinity(0)))
    table.setdefault("competitors", [DmihAuto.family])
    protocol = Protocol(**_checked(table.get("protocol", {}), _PROTOCOL, f"{file}, [protocol]"))
    groups, trials, goals = list[Group](), list[Trial](), list[Goal]()
    for place, raw_group in _places(table, "group", file):
        group, its_goals = _group(raw_group, table, protocol, place)
        groups.append(group)
        goals += its_goals
    for kind, make in _TRIALS.items():
        for place, raw_trial in _places(table, kind, file):
            trial, bounds = make(raw_trial, table, place)
            trials.append(trial)
            goals += [Goal(trial.name, trial.title, "", *bound) for bound in bounds.items()]
    names = [cell.id for group in groups for cell in group.cells] + [t.name for t in trials]
    if not names:
        raise InputError(f"{file}: measures nothing; add [[group]], as suites/core.toml has")
    for twice in (name for name, count in Counter(names).items() if count > 1):
        raise InputError(f"{file}: {twice} is there twice; leave one out or give its group a name")
    return Suite(groups, trials, goals, name, protocol, table["threads"], table["seed"])


def _places(table: Table, kind: str, file: str) -> Iterator[tuple[str, Any]]:
    for number, raw in enumerate(table.get(kind, []), 1):
        yield f"{file}, [[{kind}]] {number}", raw


def _source(table: Table, suite: Table, place: str) -> Source:
    dataset = table["dataset"]
    generator = GENERATORS.get(dataset)
    known = () if generator is None else generator.options
    for option in table.get("options", {}):
        if option not in known:
            expected = f"some of {', '.join(known)}" if known else "none"
            raise InputError(f"{place}, options: {dataset} has no {option!r}; expected {expected}")
    if generator is not None and "binarize" in table:
        raise InputError(f"{place}, binarize: {dataset} is made of codes; leave it out")
    return Source(
        dataset,
        bits=table["bits"],
        n=table["n"],
        nq=table.get("nq", Source.nq),
        seed=(suite | table)["seed"],
        method=table.get("binarize", Source.method),
        options=table.get("options", {}),
    )


def _group(raw: Any, suite: Table, protocol: Protocol, place: str) -> tuple[Group, list[Goal]]:
    table = _checked(raw, _GROUP, place, "dataset", "bits", "n", "cells")
    place = f"{place} ({table['dataset']})"
    inherited = {key: t[key] for t in (suite, table) for key in _INHERITED if key in t}
    source = _source(table, suite, place)
    if "cell_seconds" in table:
        protocol = replace(protocol, cell_seconds=table["cell_seconds"])
    cells, goals = dict[Cell, Sequence[str]](), list[Goal]()
    for number, raw_cell in enumerate(table["cells"], 1):
        at = f"{place}, cell {number}"
        asked = inherited | _checked(raw_cell, _CELL, at, "batch")
        for cell in _cells(asked, source, table.get("name", source.dataset), at):
            if cell in cells:
                raise InputError(f"{at}: {cell.task} is asked for twice; leave one out")
            cells[cell] = asked["competitors"]
            goals += _cell_goals(cell, asked, at)

    def place_in_group(cell: Cell) -> tuple[int, ...]:
        return source.kinds.index(cell.queries), cell.batch, cell.radius or 0, cell.k

    cells = {cell: cells[cell] for cell in sorted(cells, key=place_in_group)}
    order = {cell.id: place for place, cell in enumerate(cells)}
    goals.sort(key=lambda goal: order[goal.where])
    return Group(source.load, cells, protocol, source.key()), goals


def _cells(table: Table, source: Source, name: str, place: str) -> Iterator[Cell]:
    if ("k" in table) == ("radius" in table):
        raise InputError(f"{place}: expected either k or radius")
    if "radius" in table:
        for family in table["competitors"]:
            if not FAMILIES[family].ranges:
                raise InputError(f"{place}: {family} has no range search; leave it out")
    kinds, batches = table.get("queries", [HELD_OUT]), table["batch"]
    for kind in kinds:
        if kind not in source.kinds:
            known = ", ".join(source.kinds)
            raise InputError(f"{place}, queries: expected some of {known}; got {kind!r}")
    if max(batches) > source.nq:
        raise InputError(f"{place}, batch: expected at most nq = {source.nq}; got {max(batches)}")
    asked = [(k, None) for k in table.get("k", [])] or [(0, r) for r in table["radius"]]
    for kind, (k, radius), batch in itertools.product(kinds, asked, batches):
        sizes = source.bits, source.n, source.nq
        yield Cell(name, kind, *sizes, k, batch, table["threads"], radius)


def _cell_goals(cell: Cell, table: Table, place: str) -> Iterator[Goal]:
    where = cell.id, cell.codes, cell.task
    for key in ("goal", "stretch"):
        for family, bound in table.get(key, {}).items():
            if family not in table["competitors"]:
                raise InputError(f"{place}, {key}: {family} is not among the competitors")
            yield Goal(*where, family, bound, stretch=key == "stretch")
    for family, bound in table.get("ahead", {}).items():
        if not {family, DmihAuto.family} <= {*table["competitors"]}:
            raise InputError(f"{place}, ahead: {family} or dmih-auto is not among the competitors")
        yield Goal(*where, over(family), bound)
    if "max_regret" in table and {DmihAuto.family, DmihEngines.family} <= {*table["competitors"]}:
        yield Goal(*where, REGRET, table["max_regret"])


Bounds = dict[str, float]


def _build(raw: Any, suite: Table, place: str) -> tuple[Trial, Bounds]:
    table = _checked(raw, _BUILD, place, "dataset", "bits", "n")
    threads = table.get("threads", [1, suite["threads"]])
    trial = BuildTrial(_source(table, suite, place), tuple(threads), table.get("rounds", 3))
    return trial, table.get("goal", {})


def _growth(raw: Any, suite: Table, place: str) -> tuple[Trial, Bounds]:
    table = _checked(raw, _GROWTH, place, "dataset", "bits", "n", "adds", "further", "calls")
    source = _source(table, suite, place)
    if PLANTED not in source.kinds:
        raise InputError(f"{place}, dataset: {source.dataset} has no {PLANTED} queries")
    trial = GrowthTrial(
        source,
        (suite | table)["threads"],
        table.get("rounds", 3),
        table["adds"],
        tuple(table["further"]),
        table["calls"],
    )
    return trial, table.get("goal", {})


def _kernel(raw: Any, suite: Table, place: str) -> tuple[Trial, Bounds]:
    table = _checked(raw, _KERNEL, place, "bits")
    return KernelTrial(tuple(table["bits"]), table.get("rounds", 3)), table.get("goal", {})


def _memory(raw: Any, suite: Table, place: str) -> tuple[Trial, Bounds]:
    table = _checked(raw, _MEMORY, place, "dataset", "bits", "n", "budgets")
    table.setdefault("nq", 256)
    trial = MemoryTrial(
        _source(table, suite, place),
        (suite | table)["threads"],
        table.get("rounds", 3),
        table.get("k", 10),
        tuple(table["budgets"]),
    )
    return trial, table.get("goal", {})


def _scaling(raw: Any, suite: Table, place: str) -> tuple[Trial, Bounds]:
    table = _checked(raw, _SCALING, place, "bits", "n", "batch")
    both = suite | table
    sizes = tuple(table["n"]), tuple(table["batch"])
    rounds = table.get("rounds", 3)
    return ScalingTrial(table["bits"], *sizes, both["threads"], rounds, both["seed"]), {}


def _approximate(raw: Any, suite: Table, place: str) -> tuple[Trial, Bounds]:
    table = _checked(raw, _APPROXIMATE, place, "dataset", "bits", "n", "k", "recall", "competitors")
    source = _source(table, suite, place)
    queries = table.get("queries", HELD_OUT)
    if queries not in source.kinds:
        known = ", ".join(source.kinds)
        raise InputError(f"{place}, queries: expected one of {known}; got {queries!r}")
    trial = ApproximateTrial(
        source,
        queries,
        table["k"],
        tuple(table.get("batch", [1, source.nq])),
        table["recall"],
        tuple(table["competitors"]),
        (suite | table)["threads"],
        table.get("rounds", 3),
    )
    return trial, table.get("goal", {})


def _partition(raw: Any, suite: Table, place: str) -> tuple[Trial, Bounds]:
    table = _checked(raw, _PARTITION, place, "dataset", "bits", "n", "k", "strategies")
    table.setdefault("nq", 512)
    trial = PartitionTrial(
        _source(table, suite, place),
        table["k"],
        tuple(table["strategies"]),
        table.get("threads", 1),
        table.get("rounds", 3),
    )
    return trial, table.get("goal", {})


_TRIALS: dict[str, Callable[[Any, Table, str], tuple[Trial, Bounds]]] = {
    "build": _build,
    "growth": _growth,
    "kernel": _kernel,
    "memory": _memory,
    "scaling": _scaling,
    "approximate": _approximate,
    "partition": _partition,
}

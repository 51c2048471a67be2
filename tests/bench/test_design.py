from __future__ import annotations

from itertools import combinations, product

import pytest

from faiss_dmih.bench import FAMILIES, read_suite
from faiss_dmih.bench.design import (
    BATCHES,
    DS,
    KS,
    NS,
    RIVALS,
    WORKLOADS,
    Row,
    allowed,
    covering,
    rows,
    suite,
)
from faiss_dmih.bench.goals import REGRET
from faiss_dmih.bench.suite import FOLDER


@pytest.fixture(scope="module")
def full():
    return read_suite("full")


def factors(cell):
    return {"workload": cell.dataset, "n": cell.n, "d": cell.d, "k": cell.k, "batch": cell.batch}


def cells_of(suite, *, ranges=False):
    return {
        cell: families
        for group in suite.groups
        for cell, families in group.cells.items()
        if (cell.radius is not None) == ranges
    }


def test_the_packaged_suite_is_what_the_design_says():
    assert (FOLDER / "full.toml").read_text(encoding="utf-8") == suite()


def test_every_two_choices_that_may_meet_do(full):
    met = set()
    for cell in cells_of(full):
        met |= set(combinations(factors(cell).items(), 2))
    named = {w.name: w for w in WORKLOADS}
    expected = set()
    for name, *rest in product(named, NS, DS, KS, BATCHES):
        if allowed(Row(named[name], *rest)):
            choice = zip(("workload", "n", "d", "k", "batch"), (name, *rest), strict=True)
            expected |= set(combinations(choice, 2))
    assert met == expected
    # Nothing is forbidden but large sets where there are not so many codes.
    real = {w.name for w in WORKLOADS if w.binarize}
    every = {"workload": list(named), "n": NS, "d": DS, "k": KS, "batch": BATCHES}
    for (one, its), (other, others) in combinations(every.items(), 2):
        for a, b in product(its, others):
            assert (((one, a), (other, b)) in met) == (not (a in real and b == NS[2]))


def test_hashes_are_searched_within_their_radius_at_every_size(full):
    cells = cells_of(full, ranges=True)
    asked = {(c.dataset, c.queries, c.d, c.radius, c.n, c.batch) for c in cells}
    kinds = ("held-out", "near-duplicate")
    assert asked == {
        ("perceptual", kind, 256, 31, n, b) for kind in kinds for n in NS for b in BATCHES
    }
    ahead = {goal.where for goal in full.goals if goal.figure == "over multihash"}
    assert ahead == {c.id for c in cells if c.n < NS[2]}


@pytest.mark.parametrize("rival", RIVALS)
def test_every_competitor_meets_every_choice(full, rival):
    met = {
        value
        for cell, families in cells_of(full).items()
        if rival in families
        for value in factors(cell).items()
    }
    choices = {value for cell in cells_of(full) for value in factors(cell).items()}
    too_many = {("n", n) for n in NS if n > RIVALS[rival]}
    assert met == choices - too_many
    assert rival in FAMILIES


def test_every_cell_has_its_goals(full):
    goals = {(goal.where, goal.figure): goal.bound for goal in full.goals}
    for cell, families in {**cells_of(full), **cells_of(full, ranges=True)}.items():
        assert goals[cell.id, "dmih-auto"] == (1 if cell.batch == 1 else 3)
        assert goals[cell.id, REGRET] == 1.15
        assert {"dmih-auto", "dmih-engines"} <= {*families}


def test_dear_rows_are_taken_only_where_they_are_needed():
    candidates = [row for row in rows() if row.workload is WORKLOADS[0] and row.d < 96]
    chosen = covering(candidates, lambda row: row.pairs, lambda row, _: row.d)
    assert set().union(*(r.pairs for r in chosen)) == set().union(*(r.pairs for r in candidates))
    # d = 64 beside each k, each n, each batch; the twelve pairs of k and batch are had by d = 32.
    assert sum(row.d == 64 for row in chosen) <= 5
    assert len(chosen) < len(candidates) / 3


def test_a_seed_decides():
    cost = {"cost": lambda row, _: 1.0, "pairs": lambda row: row.pairs}
    candidates = [row for row in rows() if row.n == NS[0]]
    first, again, other = (covering(candidates, **cost, seed=seed) for seed in (1, 1, 2))
    assert first == again != other

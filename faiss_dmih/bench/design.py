"""The cells of the suite `full`: a design in which every pair of choices meets.

    python -m faiss_dmih.bench.design > faiss_dmih/bench/suites/full.toml

All combinations of workload, n, d, k and batch would take days. Slowness comes from one choice or
from two together, such as a k beside a kind of codes, so it is enough that of any two factors every
two values meet in some cell, where they may: `covering` finds few and cheap cells for that,
greedily. Other competitors than the index itself take part in as many of those cells as let each of
them meet every value of every factor.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from faiss_dmih.data import HELD_OUT, NEAR_DUPLICATE, PLANTED

NS = (100_000, 1_000_000, 10_000_000)
DS = (32, 64, 96, 128, 256, 512)
KS = (1, 10, 100, 1000)
BATCHES = (1, 32, 1024)
HASH_BITS, HASH_RADIUS = 256, 31
"""Of perceptual hashes: PDQ's."""
SEED = 0

Pair = tuple[object, object]


@dataclass(frozen=True)
class Workload:
    """Codes of a kind, and queries of a kind."""

    name: str
    dataset: str
    queries: str = HELD_OUT
    binarize: str = ""
    flips: int = 0
    """Planted queries: one bit in so many is inverted."""
    largest: int = NS[-1]
    slow: bool = False
    """Whether making its codes takes a random number a bit."""


WORKLOADS = (
    Workload("uniform", "uniform"),
    Workload("planted-16th", "uniform", PLANTED, flips=16),
    Workload("planted-8th", "uniform", PLANTED, flips=8),
    Workload("learned", "learned"),
    Workload("zipf-clusters", "zipf-clusters"),
    Workload("fashion-mnist-itq", "fashion-mnist", HELD_OUT, "itq", largest=NS[1]),
    Workload("fashion-mnist-lsh", "fashion-mnist", NEAR_DUPLICATE, "lsh", largest=NS[1]),
    Workload("cifar10-features-itq", "cifar10-features", NEAR_DUPLICATE, "itq", largest=NS[1]),
    Workload("cifar10-features-lsh", "cifar10-features", HELD_OUT, "lsh", largest=NS[1]),
    Workload("equal", "equal"),
    Workload("constant-bit", "constant-bit"),
    Workload("far", "far", slow=True),
    Workload("one-bucket", "one-bucket"),
)


@dataclass(frozen=True)
class Row:
    """One cell of the design; its factors are its fields."""

    workload: Workload
    n: int
    d: int
    k: int
    batch: int

    @property
    def pairs(self) -> set[Pair]:
        factors = [(name, getattr(self, name)) for name in self.__dataclass_fields__]
        return set(combinations(factors, 2))

    @property
    def codes(self) -> tuple[Workload, int, int]:
        """Rows that agree in these share a database and its indexes."""
        return self.workload, self.n, self.d


def allowed(row: Row) -> bool:
    """Whether a row fits the data there are, and takes no minutes to be made."""
    if row.n > row.workload.largest:
        return False
    return row.n * row.d <= 1_280_000_000 or not row.workload.slow


def rows() -> list[Row]:
    """All rows that are allowed."""
    return [
        row for row in (Row(*x) for x in product(WORKLOADS, NS, DS, KS, BATCHES)) if allowed(row)
    ]


def covering(
    candidates: Sequence[Row],
    pairs: Callable[[Row], set[Pair]],
    cost: Callable[[Row, Sequence[Row]], float],
    seed: int = SEED,
) -> list[Row]:
    """Candidates that have among them all pairs that any candidate has.

    Each is the one that adds most for what it costs, given those that are chosen.
    """
    shuffled = random.Random(seed).sample(candidates, len(candidates))
    has = {row: pairs(row) for row in shuffled}
    missing = set().union(*has.values())
    chosen: list[Row] = []
    while missing:
        best = max(shuffled, key=lambda row: len(has[row] & missing) / cost(row, chosen))
        chosen.append(best)
        missing -= has[best]
        shuffled = [row for row in shuffled if has[row] & missing]
    return chosen


def seconds(row: Row, chosen: Iterable[Row]) -> float:
    """About what a row takes on two cores; its database is there if another row has it.

    100,000 codes count as a million do: they are not to be preferred.
    """
    there = any(row.codes == other.codes for other in chosen)
    making = 8 if row.workload.binarize else 2
    return 10 + (0 if there else making + 1.2e-8 * max(row.n, NS[1]) * row.d)


def cells() -> list[Row]:
    """The design."""
    return covering(rows(), lambda row: row.pairs, seconds)


RIVALS = {
    "multihash": NS[1],
    "hash": NS[1],
    "ivf": NS[1],
    "hnsw": NS[0],
    "usearch": NS[1],
    "numkong": NS[1],
    "pynear-mih": NS[1],
}
"""Other competitors, and the largest n that they are built for within seconds."""
HASH_RIVALS = ("multihash", "numkong")
"""Those that have range search."""


def rivalled(chosen: Sequence[Row]) -> dict[Row, list[str]]:
    """Which of `RIVALS` take part in which of the rows."""
    taking_part: dict[Row, list[str]] = {row: [] for row in chosen}

    def cost(row: Row, _: Sequence[Row]) -> float:
        # Indexes of 100,000 codes are built at once; one race of all says more than many of two.
        return (1 if row.n == NS[0] else 4) * (1 if taking_part[row] else 1.5)

    for rival, largest in RIVALS.items():
        possible = [row for row in chosen if row.n <= largest]
        for row in covering(possible, _values, cost):
            taking_part[row].append(rival)
    return taking_part


def _values(row: Row) -> set[Pair]:
    return {(name, getattr(row, name)) for name in row.__dataclass_fields__}


def own(n: int, d: int) -> list[str]:
    """The index, its engines, and plain multi-index hashing where its tables are not too many."""
    plain = ["dmih-mih"] if n * d <= 1_280_000_000 else []
    return ["dmih-auto", "dmih-engines", *plain]


def suite() -> str:
    """The whole suite, as the text of a TOML file."""
    chosen = cells()
    rivals = rivalled(chosen)
    databases = sorted({row.codes for row in chosen}, key=lambda c: (WORKLOADS.index(c[0]), *c[1:]))
    lines = [_HEAD]
    for codes in databases:
        its_rows = sorted((r for r in chosen if r.codes == codes), key=lambda r: (r.batch, r.k))
        lines += _group(its_rows, rivals)
    for n in NS:
        lines += _hashes(n)
    return "\n".join([*lines, _TRIALS])


def _group(its_rows: Sequence[Row], rivals: dict[Row, list[str]]) -> Iterator[str]:
    workload, n, d = its_rows[0].codes
    yield "[[group]]"
    yield f'name = "{workload.name}"'
    yield f'dataset = "{workload.dataset}"'
    if workload.binarize:
        yield f'binarize = "{workload.binarize}"'
    yield f"bits = {d}"
    yield f"n = {n:_}"
    yield f"nq = {max(128, *(row.batch for row in its_rows))}"
    if workload.flips:
        yield f"options = {{ flips = {d // workload.flips} }}"
    yield f"competitors = {_words(own(n, d))}"
    yield "cells = ["
    for row in its_rows:
        kind = "" if workload.queries == HELD_OUT else f'queries = "{workload.queries}", '
        others = f", competitors = {_words(own(n, d) + rivals[row])}" if rivals[row] else ""
        yield f"    {{ {kind}k = {row.k}, batch = {row.batch}, {_goal(row.batch)}{others} }},"
    yield "]\n"


def _hashes(n: int) -> Iterator[str]:
    """Perceptual hashes: near duplicates from none of the bits to a sixth of them away."""
    yield "[[group]]"
    yield 'dataset = "perceptual"'
    yield f"bits = {HASH_BITS}"
    yield f"n = {n:_}"
    yield "options = { flips = 40 }"
    rivals = HASH_RIVALS if n <= NS[1] else ()
    names = _words([*own(n, HASH_BITS), *rivals])
    yield f"competitors = {names}"
    ahead = ", ahead = { multihash = 10 }" if rivals else ""
    yield "cells = ["
    for batch in BATCHES:
        asked = f'queries = ["{HELD_OUT}", "{NEAR_DUPLICATE}"], radius = {HASH_RADIUS}'
        yield f"    {{ {asked}, batch = {batch}, {_goal(batch)}{ahead} }},"
    yield "]\n"


def _goal(batch: int) -> str:
    return f"goal = {{ dmih-auto = {1 if batch == 1 else 3} }}"


def _words(words: Iterable[str]) -> str:
    quoted = (f'"{word}"' for word in words)
    return f"[{', '.join(quoted)}]"


_HEAD = """\
# Every kind of codes beside every size, length, k and batch: under an hour on two cores.
# Written by `python -m faiss_dmih.bench.design`, which says how the cells are chosen; not by hand.

seed = 0
threads = 2
max_regret = 1.15

[protocol]
cell_seconds = 6
min_rounds = 3
max_rounds = 7
min_queries = 32
min_batch_queries = 32
warm_seconds = 0.05
whole_seconds = 1.5
competitor_seconds = 10
"""

_TRIALS = """\
# Not searches in rounds.

[[memory]]
dataset = "uniform"
bits = 64
n = 1_000_000
k = 1
budgets = [0, 8, 16, 24]
goal = { bytes = 1 }

[[memory]]
dataset = "learned"
bits = 64
n = 1_000_000
budgets = [0, 4, 8]
goal = { bytes = 1 }

[[memory]]
dataset = "cifar10-features"
bits = 128
n = 1_000_000
budgets = [0, 8, 16, 32]
goal = { bytes = 1 }

[[memory]]
dataset = "perceptual"
bits = 256
n = 1_000_000
options = { flips = 40 }
budgets = [0, 16, 32, 64]
goal = { bytes = 1 }

[[scaling]]
bits = 64
n = [10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000, 100_000_000]
batch = [1, 256]

[[approximate]]
dataset = "cifar10-features"
bits = 128
n = 1_000_000
k = 10
recall = 0.9
competitors = ["hnsw", "ivf"]
goal = { ahead = 1 }

[[approximate]]
dataset = "cifar10-features"
bits = 64
n = 200_000
k = 10
recall = 0.9
competitors = ["hnsw", "ivf", "usearch-hnsw"]
goal = { ahead = 1 }

[[partition]]
dataset = "cifar10-features"
bits = 64
n = 1_000_000
k = 10
strategies = ["data-driven", "entropy", "cost"]
goal = { candidates = 1 }

[[partition]]
dataset = "cifar10-features"
binarize = "lsh"
bits = 64
n = 1_000_000
k = 10
strategies = ["data-driven", "entropy", "cost"]
goal = { candidates = 1 }
"""

if __name__ == "__main__":
    print(suite(), end="")

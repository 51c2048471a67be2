"""In which order rings are probed, and what that is expected to cost.

As `faiss_dmih/engine/front.hpp`, by a GPU's costs: an item is a bucket or an entry, one random
sector of memory each. After s steps every code at a distance < s has been seen (`cuda/probe.cuh`).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from faiss_dmih.options import even_cuts, paper_cuts

# Rings are lists of the bits they flip. Longer lists are further than probing ever pays.
_MAX_FLIPS = 1 << 15


@cache
def rings(bits: int) -> tuple[NDArray[np.uint32], ...]:
    """Of a substring of so many bits, by radius: what its keys differ by, ascending.

    As many rings as fit the limit; with all of them, bits + 1.

    >>> [ring.tolist() for ring in rings(2)]
    [[0], [1, 2], [3]]
    """
    found, flips = list[NDArray[np.uint32]](), 0
    for radius in range(bits + 1):
        flips += math.comb(bits, radius)
        if flips > _MAX_FLIPS:
            break
        chosen = itertools.combinations(range(bits), radius)
        found.append(np.sort(np.array([sum(1 << bit for bit in c) for c in chosen], np.uint32)))
    return tuple(found)


@dataclass(frozen=True)
class Front:
    """Steps, each a table and a radius, until `complete` (all has been seen) or no further ring is
    kept. `items[s]`: expected before step s, one more than there are steps."""

    steps: list[tuple[int, int]]
    items: NDArray[np.float64]
    complete: bool


def make_front(cuts: tuple[int, ...], skew: list[float], slots: int, *, greedy: bool) -> Front:
    """The cheapest ring next, or, as in the papers, table after table and radius after radius.

    `skew[j]`: how a table's buckets around stored codes compare with the mean bucket, at least 1.
    """

    def cost(table: int, radius: int) -> float:
        buckets = math.comb(cuts[table], radius)
        entries = buckets * slots / 2.0 ** cuts[table] * skew[table]
        return buckets + min(entries, float(slots))

    steps, items = list[tuple[int, int]](), [0.0]
    radius = [0] * len(cuts)
    while True:
        if greedy:
            table = min(range(len(cuts)), key=lambda j: (cost(j, radius[j]), j))
        else:
            table = min(range(len(cuts)), key=lambda j: (radius[j], j))
        if radius[table] >= len(rings(cuts[table])):
            return Front(steps, np.array(items), complete=False)
        steps.append((table, radius[table]))
        items.append(items[-1] + cost(*steps[-1]))
        if radius[table] == cuts[table]:
            return Front(steps, np.array(items), complete=True)
        radius[table] += 1


def cheapest_cuts(d: int, n: int) -> tuple[int, ...]:
    """The papers' number of tables, or one more: whichever finds neighbours of uniform codes at a
    sixteenth of the bits at less cost."""
    paper = paper_cuts(d, n)
    if len(paper) == d:
        return paper
    more = even_cuts(d, len(paper) + 1)

    def items(cuts: tuple[int, ...]) -> float:
        front = make_front(cuts, [1.0] * len(cuts), n, greedy=True)
        return float(front.items[min(d // 16 + 1, len(front.steps))])

    return more if items(more) < items(paper) else paper

"""How much faster indexes are than linear scans, as `faiss-dmih bench` measures it.

On one thread, all queries in one call, indexes in turn, ratios within a round. Every answer is
compared with IndexBinaryFlat's. A speed-up names its denominator: `over_flat` is comparable with
what is published, `over_scan` has our own scan in it, which is faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from faiss_dmih import IndexDMIH
from faiss_dmih.bench.machine import Bystanders
from faiss_dmih.bench.protocol import Entrant, Protocol, race
from faiss_dmih.bench.questions import Nearest

Codes = npt.NDArray[np.uint8]
KEPT = 1_000
"""Queries that are asked, at most."""


def protocol(nq: int) -> Protocol:
    """Of a race with so many queries."""
    return Protocol(cell_seconds=2.0, min_batch_queries=nq, min_rounds=5, warm_seconds=0.02)


def views(codes: Codes, n: int, rng: np.random.Generator) -> Codes:
    """n codes, each one of these with 1 in 32 bits flipped, as those of views of an image would be.

    >>> views(np.zeros((1, 8), np.uint8), 3, np.random.default_rng(0)).shape
    (3, 8)
    """
    noise = rng.random((n, 8 * codes.shape[1]), dtype=np.float32) < 1 / 32
    return codes[rng.integers(0, len(codes), n)] ^ np.packbits(noise, axis=1, bitorder="little")


def searches(xb: Codes, xq: Codes, cuts: Sequence[int] | None, ks: Sequence[int]) -> dict[str, Any]:
    """For each k, in a dictionary by its name: microseconds per query of four indexes, and how many
    times as fast as the scans they are: [median, least, greatest] over the rounds.

    Raises:
        RuntimeError: an index failed, or gave a wrong answer.
    """
    d = 8 * xb.shape[1]
    indexes = {
        "flat": faiss.IndexBinaryFlat(d),
        "scan": IndexDMIH(d, mode="scan"),
        "mih": IndexDMIH(d, mode="mih", cuts=cuts),
        "auto": IndexDMIH(d, cuts=cuts),
    }
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    bystanders = Bystanders()
    try:
        for index in indexes.values():
            index.add(xb)
        found = {str(k): _race(indexes, xq, k) for k in ks if k <= len(xb)}
    finally:
        faiss.omp_set_num_threads(threads)
    return {"n": len(xb), "nq": len(xq), "bystanders": bystanders.cores(), "ks": found}


def _race(indexes: dict[str, Any], xq: Codes, k: int) -> dict[str, Any]:
    question = Nearest(k)
    entrants = [
        Entrant(name, question.put_to(index), lambda: None) for name, index in indexes.items()
    ]
    timings = race(entrants, xq, len(xq), protocol(len(xq)), question.join)
    seconds = {}
    for entrant, timing in zip(entrants, timings, strict=True):
        if timing.error or timing.nq != len(xq):
            raise RuntimeError(f"{entrant.name}: {timing.error or f'{timing.nq} queries only'}")
        for answer in timing.answers:
            if wrong := question.difference(answer, timings[0].answers[0]):
                raise RuntimeError(f"{entrant.name}: {wrong}")
        seconds[entrant.name] = np.array(timing.seconds)
    return {
        "us_per_query": {name: round(1e6 * float(np.median(s)), 3) for name, s in seconds.items()},
        "over_flat": {n: _ratio(seconds["flat"], s) for n, s in seconds.items() if n != "flat"},
        "over_scan": {n: _ratio(seconds["scan"], seconds[n]) for n in ("mih", "auto")},
    }


def _ratio(slow: npt.NDArray[np.float64], fast: npt.NDArray[np.float64]) -> list[float]:
    """Median, least and greatest over the rounds that both took part in."""
    rounds = min(len(slow), len(fast))
    by_round = slow[:rounds] / fast[:rounds]
    return [round(float(f(by_round)), 3) for f in (np.median, np.min, np.max)]

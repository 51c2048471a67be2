"""What shards cost and bring, on one machine: the measurements behind docs/scale.md.

    python benchmarks/scale.py --out scale.json [--n 2000000] [--seconds 2]
    python benchmarks/scale.py --simulate       # queues of shards and replicas; no Ray, no codes

For 1, 2, 4 and 8 actors, each on one thread: the time of a lone query and of a batch, all shards
at once and in two rounds, for neighbours that were planted and for none; the same over a handful
of codes, which is what Ray, Python and merging take. Answers are compared with those of one shard.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray

from faiss_dmih.distributed import ShardedIndexDMIH

BATCH = 1024


def quantiles(call: Callable[[int], Any], seconds: float) -> dict[str, float]:
    """Milliseconds of calls, one after another."""
    for number in range(8):  # the planner learns
        call(number)
    times = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < 12:
        start = time.perf_counter()
        call(len(times))
        times.append(1e3 * (time.perf_counter() - start))
    p50, p90, p99 = np.quantile(times, [0.5, 0.9, 0.99])
    return {"p50": p50, "p90": p90, "p99": p99, "calls": len(times)}


def planted(xb: Any, nq: int, flips: int, rng: np.random.Generator) -> Any:
    xq = np.unpackbits(xb[rng.integers(0, len(xb), nq)], axis=1)
    for row in xq:
        row[rng.choice(xq.shape[1], flips, replace=False)] ^= 1
    return np.packbits(xq, axis=1)


def measure(d: int, n: int, seconds: float, counts: list[int]) -> list[dict[str, Any]]:
    rng = np.random.default_rng(d)
    xb = rng.integers(0, 256, (n, d // 8), dtype=np.uint8)
    queries = [
        ("planted", 1, planted(xb, 4 * BATCH, d // 16, rng)),
        ("uniform", 10, rng.integers(0, 256, (4 * BATCH, d // 8), dtype=np.uint8)),
    ]
    rows, expected = [], dict[str, Any]()
    for shards in counts:
        with tempfile.TemporaryDirectory() as folder:
            ShardedIndexDMIH.build(xb, shards, folder)
            with ShardedIndexDMIH.open(folder, num_cpus=1) as index:
                for kind, k, xq in queries:
                    got = [array.tolist() for array in index.search(xq[:200], k)]
                    assert got == expected.setdefault(kind, got)
                    for rounds in (1, 2) if shards > 1 else (1,):
                        lone, batch = (calls(index, xq, size, k, rounds) for size in (1, BATCH))
                        row = {"d": d, "n": n, "shards": shards, "queries": kind, "k": k}
                        row |= {"rounds": rounds, "lone": quantiles(lone, seconds)}
                        row |= {"batch": quantiles(batch, seconds)}
                        rows.append(row)
                        print(json.dumps(row), flush=True)
    return rows


def calls(index: Any, xq: Any, size: int, k: int, rounds: int) -> Callable[[int], Any]:
    return lambda i: index.search(xq[i * size % len(xq) :][:size], k, rounds=rounds)


def simulate(
    shards: int, replicas: int, load: float, spread: float, nq: int = 20_000
) -> tuple[float, float]:
    """p50 and p99 of the time of lone queries that all shards must answer, in units of the median
    time that one takes over one.

    Queries come at random times, so many that a replica is busy for `load` of the time; each
    shard's goes to the replica that is free first. Times of service are lognormal, and p99 of them
    is `spread` times their median.
    """
    rng = np.random.default_rng([shards, replicas])
    sigma = np.log(spread) / 2.3263
    mean = np.exp(sigma**2 / 2)
    arrivals = np.cumsum(rng.exponential(mean / (load * replicas), nq))
    free = np.zeros((shards, replicas))
    every, times = np.arange(shards), np.empty(nq)
    for number, now in enumerate(arrivals):
        first = free.argmin(axis=1)
        service = rng.lognormal(0, sigma, shards)
        done = np.maximum(free[every, first], now) + service
        free[every, first] = done
        times[number] = done.max() - now
    p50, p99 = np.quantile(times[nq // 10 :], [0.5, 0.99])
    return float(p50), float(p99)


def show_simulated() -> None:
    for spread in (1.5, 3):
        print(f"p99 of one shard {spread} times its median")
        for load in (0.3, 0.7):
            for replicas in (1, 2, 4):
                answers = [simulate(s, replicas, load, spread) for s in (1, 4, 16, 64)]
                row = "  ".join(f"{p50:5.1f} {p99:5.1f}" for p50, p99 in answers)
                print(f"load {load}, {replicas} replicas; 1, 4, 16, 64 shards: {row}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("scale.json"))
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--n", type=int, default=2_000_000)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4, 8])
    given = parser.parse_args()
    if given.simulate:
        show_simulated()
        return
    ray.init(num_cpus=max(given.shards) + 1, include_dashboard=False, log_to_driver=False)
    rows = measure(64, 100, given.seconds, given.shards)
    for d in (64, 256):
        rows += measure(d, given.n if d == 64 else given.n // 4, given.seconds, given.shards)
    said = {"cpus": os.cpu_count(), "batch": BATCH, "rows": rows}
    given.out.write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()

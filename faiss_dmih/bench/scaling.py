"""How the time of a query grows with the number of codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import faiss
import numpy as np

from faiss_dmih import IndexDMIH
from faiss_dmih.bench import check
from faiss_dmih.bench.archive import Key
from faiss_dmih.bench.cells import short, threads_text
from faiss_dmih.bench.results import Chart, Curve, Spread
from faiss_dmih.bench.trials import Findings, Trial, WrongAnswer, seconds_per_query
from faiss_dmih.data.files import Progress
from faiss_dmih.data.synthetic import planted, uniform

ByN = dict[int, list[float]]
"""Seconds of each round, for each n."""
BASELINE = "IndexBinaryFlat"
CHECKED = 32
"""Queries whose answers are compared with IndexBinaryFlat's, which is timed on them."""
INDEX_BYTES = 120
"""What building takes for a code at most, the index included: with room to spare."""


@dataclass(frozen=True)
class ScalingTrial(Trial):
    """Time per query (k = 1) against n, among uniform codes, by how near the nearest one is.

    Near-duplicate queries are bits / 32 bits from a stored code, new ones bits / 8, uniform ones
    anywhere. The exponent is that of the power of n that fits the times of a round best, by least
    squares of logarithms; its range is that of the rounds.
    """

    bits: int
    n: tuple[int, ...]
    batch: tuple[int, ...]
    threads: int
    rounds: int
    seed: int

    GOALS = ()

    @property
    def name(self) -> str:
        return f"scaling_d{self.bits}_n{max(self.n)}"

    @property
    def title(self) -> str:
        ends = f"{short(min(self.n))} to {short(max(self.n))}"
        return f"Time against n: {ends} uniform codes of {self.bits} bits, k = 1"

    def key(self) -> Key:
        return asdict(self)

    def find(self, findings: Findings, progress: Progress) -> None:
        faiss.omp_set_num_threads(self.threads)
        times: dict[int, dict[str, ByN]] = {batch: {} for batch in self.batch}
        for step, n in enumerate(sorted(self.n)):
            progress(f"{short(n)} codes", step, len(self.n))
            if lacking := _lacking(n, self.bits):
                findings.notes.append(f"{n:,} codes were left out: {lacking}")
                continue
            self._measure(n, times)
        for batch, by_kind in times.items():
            calls = "one query at a time" if batch == 1 else f"batches of {batch:,}"
            curves = []
            for kind, by_n in by_kind.items():
                curves.append(Curve(kind, [*by_n], [Spread.of(s) for s in by_n.values()]))
                if len(by_n) > 1:
                    slopes = [_slope([*by_n], s) for s in zip(*by_n.values(), strict=True)]
                    findings.add(f"exponent of n, {calls}: {kind}", slopes, "")
                largest = max(by_n)
                what = f"time per query at {short(largest)}, {calls}: {kind}"
                findings.add(what, by_n[largest], "s")
            title = f"{self.title}; {calls}, {threads_text(self.threads)}"
            findings.charts.append(Chart(title, "codes", "time per query", curves, "log", "s"))

    def _measure(self, n: int, times: dict[int, dict[str, ByN]]) -> None:
        """Add what queries take among `n` codes to `times`."""
        rng = np.random.default_rng([self.seed, n])
        xb = uniform(n, self.bits, rng)
        nq = max(CHECKED, *self.batch)
        queries = {
            "near-duplicate": planted(xb, nq, rng, max(1, self.bits // 32)),
            "new": planted(xb, nq, rng, self.bits // 8),
            "uniform": uniform(nq, self.bits, rng),
        }
        flat, index = faiss.IndexBinaryFlat(self.bits), IndexDMIH(self.bits)
        flat.add(xb)
        index.add(xb)
        for kind, xq in queries.items():
            answer, truth = (i.search(xq[:CHECKED], 1) for i in (index, flat))
            if wrong := check.difference(*answer, *truth):
                raise WrongAnswer(f"{n:,} codes, {kind}: {wrong}")
        for _ in range(self.rounds):
            for batch, by_kind in times.items():
                for kind, xq in queries.items():
                    calls = [xq[:batch]] if batch > 1 else [x[None] for x in xq[:CHECKED]]
                    seconds = seconds_per_query(index.search, calls, 1)
                    by_kind.setdefault(kind, {}).setdefault(n, []).append(seconds)
                few = queries["uniform"][:CHECKED]
                calls = [few] if batch > 1 else [x[None] for x in few[:4]]
                faiss.omp_set_num_threads(self.threads if batch > 1 else 1)
                seconds = seconds_per_query(flat.search, calls, 1)
                faiss.omp_set_num_threads(self.threads)
                by_kind.setdefault(BASELINE, {}).setdefault(n, []).append(seconds)


def _slope(n: Sequence[float], seconds: Sequence[float]) -> float:
    """The exponent."""
    return float(np.polyfit(np.log(n), np.log(seconds), 1)[0])


def _lacking(n: int, bits: int) -> str:
    """Which memory is missing for `n` codes, or nothing."""
    needed = n * (3 * bits // 8 + INDEX_BYTES)
    available = _available()
    if available is None or needed <= available:
        return ""
    return f"they may take {needed / 2**30:.1f} GiB, {available / 2**30:.1f} are available"


def _available() -> int | None:
    """Bytes of memory that are to be had; None where the system does not say."""
    path = Path("/proc/meminfo")
    if not path.exists():
        return None
    fields = dict(line.split(":") for line in path.read_text().splitlines())
    return 1024 * int(fields["MemAvailable"].split()[0])

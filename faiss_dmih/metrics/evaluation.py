"""All figures of a set of codes in one record, to be kept as JSON.

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> labels = rng.integers(0, 2, 200)
>>> codes = np.where(labels[:, None], 0, 255) ^ (1 << rng.integers(0, 8, (200, 2)))
>>> codes = codes.astype(np.uint8)
>>> found = evaluate(codes[20:], codes[:20], labels[20:], labels[:20], [8, 8], name="toy")
>>> found.bits, found.distinct, found.mean_average_precision.value
(16, 100, 1.0)
>>> Evaluation.from_json(found.to_json()) == found
True
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from faiss_dmih.codes import check_codes
from faiss_dmih.metrics import bits as bits_
from faiss_dmih.metrics.ranking import AveragePrecision, Curve, Floats, Ranking
from faiss_dmih.metrics.tables import Probing, bucket_histogram, bucket_sizes, entropy
from faiss_dmih.options import check_cuts

FORMAT = 1
NS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
KS = (1, 10, 100)
RADIUS = 2


@dataclass(frozen=True)
class MeanAP:
    """Mean average precision: expected, with the worst and with the best order among ties."""

    value: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class PrecisionRecall:
    """A curve; `at` are ranks or radii."""

    at: tuple[int, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]


@dataclass(frozen=True)
class WithinRadius:
    """`metrics.WithinRadius` at Hamming radius `radius`, distances up to it included."""

    radius: int
    precision: float
    recall: float
    items: float
    empty: int


@dataclass(frozen=True)
class Table:
    """One hash table: bits of its substring, entropy (natural logarithm), its largest bucket, and
    `metrics.BucketHistogram`.
    """

    bits: int
    entropy: float
    largest: int
    buckets: tuple[int, ...]
    items: tuple[int, ...]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` finds. NaN, null in JSON, where there is nothing to take a figure of."""

    name: str
    bits: int
    n: int
    """Codes in the database."""
    nq: int
    """Queries, those included that are left out for want of relevant items:"""
    without_relevant: int
    distinct: int
    """Different codes in the database."""
    mean_average_precision: MeanAP
    cutoffs: tuple[int, ...]
    mean_average_precision_at: tuple[MeanAP, ...]
    """mAP@N for each N of `cutoffs`."""
    ns: tuple[int, ...]
    precision_at: tuple[float, ...]
    """Expected precision of the first N for each N of `ns`."""
    by_rank: PrecisionRecall
    by_radius: PrecisionRecall
    within: WithinRadius
    tables: tuple[Table, ...]
    ks: tuple[int, ...]
    candidates: tuple[float, ...]
    """For each k of `ks` the entries that plain multi-index hashing meets, mean over queries."""
    buckets: tuple[float, ...]
    """For each k of `ks` the buckets that it looks up, mean over queries."""
    mean_absolute_correlation: float
    constant_bits: int
    correlation: tuple[tuple[float, ...], ...]
    """|C_ij| for j < i, to two decimals: row i has i entries."""

    @property
    def cuts(self) -> tuple[int, ...]:
        """Substring lengths in bits."""
        return tuple(table.bits for table in self.tables)

    @property
    def entropy(self) -> float:
        """Mean over tables, natural logarithm."""
        return float(np.mean([table.entropy for table in self.tables]))

    @property
    def entropy_bits(self) -> float:
        """Mean over tables, logarithm to base 2."""
        return self.entropy / math.log(2)

    def to_json(self) -> str:
        """One line for each field."""
        fields = {"format": FORMAT, **asdict(self)}
        lines = (f" {json.dumps(key)}: {_dumps(value)}" for key, value in fields.items())
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """What `to_json` made. Raises ValueError for anything else."""
        raw = _loads(text)
        if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
            raise ValueError(f"not an evaluation of format {FORMAT}: evaluate the codes again")
        try:
            raw["mean_average_precision"] = MeanAP(**raw["mean_average_precision"])
            raw["mean_average_precision_at"] = tuple(
                MeanAP(**at) for at in raw["mean_average_precision_at"]
            )
            raw["by_rank"] = PrecisionRecall(**raw["by_rank"])
            raw["by_radius"] = PrecisionRecall(**raw["by_radius"])
            raw["within"] = WithinRadius(**raw["within"])
            raw["tables"] = tuple(Table(**table) for table in raw["tables"])
            return cls(**raw)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"not a whole evaluation ({error}): evaluate the codes again"
            ) from error

    def save(self, path: Path) -> None:
        """Write the JSON."""
        path.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read what `save` wrote. Raises ValueError, naming the file, for anything else."""
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def evaluate(
    xb: ArrayLike,
    xq: ArrayLike,
    yb: ArrayLike,
    yq: ArrayLike,
    cuts: Sequence[int],
    *,
    name: str = "codes",
    cutoffs: Sequence[int] = (),
    ns: Sequence[int] = NS,
    ks: Sequence[int] = KS,
) -> Evaluation:
    """Every figure of the two papers but times, for codes and labels as `Ranking.of` takes them.

    Args:
        xb: codes of the database, uint8 (n, bits / 8), n >= 1.
        xq: codes of the queries, uint8 (nq, bits / 8), nq >= 1. None of them should be in the
            database: this cannot be told from codes and is not checked.
        yb: labels of the database: integers (n,), or bool (n, classes) for several each.
        yq: labels of the queries, of the same kind.
        cuts: substring lengths in bits, which sum to `bits`, each in [1, 26].
        name: of the method; plots draw evaluations of one name as a series.
        cutoffs: the N of mAP@N.
        ns: the N of precision@N; those beyond the database are left out.
        ks: how many neighbours to count candidates for; those beyond the database are left out.

    Raises:
        TypeError, ValueError: arrays, labels or cuts do not fit, or there is nothing to evaluate.
    """
    b = check_codes(xb, None, "xb")
    q = check_codes(xq, b.shape[1], "xq")
    if not len(b) or not len(q):
        raise ValueError(f"got {len(b)} codes and {len(q)} queries, expected at least one of each")
    # Complaints about these come before the long part.
    lengths = check_cuts(cuts, 8 * b.shape[1])
    if lengths is None:
        raise TypeError("got cuts = None, expected a list of substring lengths in bits")
    ranking = Ranking.of(b, q, yb, yq)
    ns = [at for at in ns if at <= len(b)]
    ks = [k for k in ks if k <= len(b)]
    probing = Probing.of(b, q, lengths, distances=ranking.items)
    searches = [probing.knn(k) for k in ks]
    correlation = bits_.correlation_matrix(b)
    mac = bits_.of_matrix(correlation)
    return Evaluation(
        name=name,
        bits=8 * b.shape[1],
        n=len(b),
        nq=len(q),
        without_relevant=ranking.without_relevant,
        distinct=bits_.distinct_codes(b),
        mean_average_precision=_mean_ap(ranking.average_precision()),
        cutoffs=tuple(cutoffs),
        mean_average_precision_at=tuple(_mean_ap(ranking.average_precision(at)) for at in cutoffs),
        ns=tuple(ns),
        precision_at=tuple(ranking.precision_at(ns).tolist()),
        by_rank=_curve(ranking.precision_recall()),
        by_radius=_curve(ranking.precision_recall_by_radius()),
        within=WithinRadius(RADIUS, **ranking.within(RADIUS)._asdict()),
        tables=_tables(b, lengths),
        ks=tuple(ks),
        candidates=tuple(float(search.entries.mean()) for search in searches),
        buckets=tuple(float(search.buckets.mean()) for search in searches),
        mean_absolute_correlation=mac.value,
        constant_bits=mac.constant_bits,
        correlation=_lower_triangle(np.abs(correlation).round(2)),
    )


def _tables(codes: ArrayLike, cuts: Sequence[int]) -> tuple[Table, ...]:
    sizes = bucket_sizes(codes, cuts)
    out = []
    for length, of_table, nats in zip(cuts, sizes, entropy(sizes).per_table, strict=True):
        buckets, items = (tuple(counts.tolist()) for counts in bucket_histogram(of_table))
        out.append(Table(length, nats, int(of_table[0]), buckets, items))
    return tuple(out)


def _mean_ap(found: AveragePrecision) -> MeanAP:
    return MeanAP(found.value, found.lowest, found.highest)


def _curve(curve: Curve) -> PrecisionRecall:
    return PrecisionRecall(*(tuple(values.tolist()) for values in curve))


def _lower_triangle(matrix: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row[:i]) for i, row in enumerate(matrix.tolist()))


def _dumps(value: Any) -> str:
    """JSON, which has no NaN: null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, tuple):
            return [plain(inner) for inner in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return json.dumps(plain(value), allow_nan=False)


def _loads(text: str) -> Any:
    """The inverse of `_dumps`; raises ValueError for what is no JSON."""

    def rich(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rich(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return tuple(rich(inner) for inner in value)
        return math.nan if value is None else value

    return rich(json.loads(text))

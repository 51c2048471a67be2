"""Rankings with ties against their definition: every order within the distances, one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import Case, cases

from faiss_dmih import metrics
from faiss_dmih.metrics import Ranking
from faiss_dmih.reference import hamming

Labels = NDArray[Any]


def one_label(rng: np.random.Generator, n: int, nq: int) -> tuple[Labels, Labels]:
    """Of three classes; a fourth, which no item has, for some queries."""
    return rng.integers(0, 3, n), rng.integers(0, 4, nq)


def several_labels(rng: np.random.Generator, n: int, nq: int) -> tuple[Labels, Labels]:
    """More classes than a word has bits, and items and queries without any."""
    yb, yq = rng.random((n, 70)) < 0.03, rng.random((nq, 70)) < 0.3
    yb[: n // 3, 69] = True
    return yb, yq


def all_relevant(rng: np.random.Generator, n: int, nq: int) -> tuple[Labels, Labels]:
    return np.full(n, 5), np.full(nq, 5)


def none_relevant(rng: np.random.Generator, n: int, nq: int) -> tuple[Labels, Labels]:
    return np.full(n, 5), np.full(nq, 6)


LABELS: dict[str, Callable[[np.random.Generator, int, int], tuple[Labels, Labels]]] = {
    "one label": one_label,
    "several labels": several_labels,
    "all relevant": all_relevant,
    "none relevant": none_relevant,
}


@dataclass(frozen=True)
class Labelled:
    """Codes and queries with labels."""

    codes: Case
    labels: str

    @cached_property
    def xq(self) -> NDArray[np.uint8]:
        return self.codes.xq[:4]

    @cached_property
    def _labels(self) -> tuple[Labels, Labels]:
        rng = np.random.default_rng([self.codes.seed, 2])
        return LABELS[self.labels](rng, self.codes.n, len(self.xq))

    @property
    def arrays(self) -> tuple[Any, Any, Labels, Labels]:
        return self.codes.xb, self.xq, *self._labels

    @cached_property
    def queries(self) -> list[tuple[list[int], list[bool]]]:
        """For each query the distances of all items, and whether they are relevant."""
        yb, yq = self._labels
        out = []
        for x, y in zip(self.xq, yq, strict=True):
            distances = hamming(x[None], self.codes.xb)[0].tolist()
            if self.labels == "several labels":
                relevant = [any(a and b for a, b in zip(y, z, strict=True)) for z in yb]
            else:
                relevant = [bool(y == z) for z in yb]
            out.append((distances, relevant))
        return out

    @property
    def judged(self) -> list[tuple[list[int], list[bool]]]:
        return [query for query in self.queries if any(query[1])]


def labelled(sizes: tuple[int, ...]) -> st.SearchStrategy[Labelled]:
    codes = cases(biggest_d=96, sizes=sizes)
    return st.builds(Labelled, codes, st.sampled_from(sorted(LABELS)))


tiny = labelled((0, 1, 2, 3, 5, 6))
small = labelled((1, 2, 7, 60, 200))
TIED = Labelled(Case(d=8, n=6, nq=3, kind="all equal", seed=0), "one label")


def orders(distances: list[int], relevant: list[bool]) -> Iterator[list[bool]]:
    """The relevance at each place, for every order of the items that keeps distances ascending."""
    levels = [
        [r for d, r in zip(distances, relevant, strict=True) if d == level]
        for level in sorted(set(distances))
    ]
    for parts in product(*map(permutations, levels)):
        yield [r for part in parts for r in part]


def average_precision(order: list[bool], at: int) -> float:
    precisions = [sum(order[: i + 1]) / (i + 1) for i in range(min(at, len(order))) if order[i]]
    return sum(precisions) / min(sum(order), at)


@given(tiny, st.sampled_from([None, 1, 2, 3, 4, 6, 7, 100]))
@example(TIED, None)
@example(TIED, 2)
def test_average_precision_is_the_mean_over_all_orders(case: Labelled, at: int | None) -> None:
    found = metrics.mean_average_precision(*case.arrays, at=at)
    expected = []
    for distances, relevant in case.judged:
        every = [average_precision(o, at or 100) for o in orders(distances, relevant)]
        expected.append((math.fsum(every) / len(every), min(every), max(every)))
    judged = [any(relevant) for _, relevant in case.queries]
    assert found.without_relevant == judged.count(False)
    assert np.isnan(found.per_query).tolist() == [not j for j in judged]
    assert found.per_query[judged] == pytest.approx([e[0] for e in expected], abs=1e-12)
    if expected:
        bounds = (found.value, found.lowest, found.highest)
        assert bounds == pytest.approx(np.mean(expected, axis=0), abs=1e-12)
        assert found.lowest <= found.value <= found.highest
    else:
        assert np.isnan([found.value, found.lowest, found.highest]).all()


@given(tiny)
@example(TIED)
def test_precision_and_recall_by_rank_are_the_means_over_all_orders(case: Labelled) -> None:
    ranks = [1, 2, 3, 5, 6, 50]
    curve = metrics.precision_recall(*case.arrays, ranks=ranks)
    assert curve.at.tolist() == ranks
    assert np.array_equal(metrics.precision_at(*case.arrays, ranks), curve.precision, True)
    for i, rank in enumerate(ranks):
        hits = []
        for distances, relevant in case.judged:
            every = [sum(order[:rank]) for order in orders(distances, relevant)]
            hits.append((np.mean(every) / rank, np.mean(every) / sum(relevant)))
        if hits:
            at_rank = (curve.precision[i], curve.recall[i])
            assert at_rank == pytest.approx(np.mean(hits, axis=0), abs=1e-12)
        else:
            assert np.isnan([curve.precision[i], curve.recall[i]]).all()


@given(small)
def test_precision_and_recall_by_radius(case: Labelled) -> None:
    curve = metrics.precision_recall_by_radius(*case.arrays)
    assert curve.at.tolist() == list(range(case.codes.d + 1))
    for radius in curve.at:
        items = hits = 0
        recalls = []
        for distances, relevant in case.judged:
            within = [r for d, r in zip(distances, relevant, strict=True) if d <= radius]
            items, hits = items + len(within), hits + sum(within)
            recalls.append(sum(within) / sum(relevant))
        precision = hits / items if items else math.nan
        recall = np.mean(recalls) if recalls else math.nan
        found = (curve.precision[radius], curve.recall[radius])
        assert found == pytest.approx((precision, recall), abs=1e-12, nan_ok=True)


@given(small, st.sampled_from([0, 1, 2, 8, 1000]))
def test_precision_within_a_radius(case: Labelled, radius: int) -> None:
    found = metrics.precision_within_radius(*case.arrays, radius)
    precisions, recalls, sizes = [], [], []
    for distances, relevant in case.judged:
        within = [r for d, r in zip(distances, relevant, strict=True) if d <= radius]
        precisions.append(sum(within) / len(within) if within else 0.0)
        recalls.append(sum(within) / sum(relevant))
        sizes.append(len(within))
    assert found.empty == sizes.count(0)
    if sizes:
        expected = [np.mean(values) for values in (precisions, recalls, sizes)]
        assert found[:3] == pytest.approx(expected, abs=1e-12)
    else:
        assert np.isnan(found[:3]).all()


@given(labelled((0, 1, 300, 2049, 6000)))
def test_counts_are_right_across_blocks(case: Labelled) -> None:
    """Blocks smaller than the sets, so that they have several in both directions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faiss_dmih.metrics.ranking.CODE_BLOCK", 257)
        patch.setattr("faiss_dmih.metrics.ranking.QUERY_BLOCK", 3)
        ranking = Ranking.of(*case.arrays)
    assert ranking.items.shape == ranking.relevant.shape == (len(case.xq), case.codes.d + 1)
    for i, (distances, relevant) in enumerate(case.queries):
        for d in range(case.codes.d + 1):
            at = [r for e, r in zip(distances, relevant, strict=True) if e == d]
            assert (ranking.items[i, d], ranking.relevant[i, d]) == (len(at), sum(at))


def test_without_ties_it_is_the_textbook_value() -> None:
    """Relevant items at the places 1, 3 and 4 of 5."""
    xb = np.array([[0], [1], [3], [7], [15]], np.uint8)
    found = metrics.mean_average_precision(xb, xb[:1], [1, 0, 1, 1, 0], [1])
    assert found.value == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert found.lowest == found.highest == found.value


def test_equal_codes_leave_it_between_wide_bounds() -> None:
    """What a search by codes that are all the same is worth is up to chance."""
    xb = np.zeros((1000, 8), np.uint8)
    found = metrics.mean_average_precision(xb, xb[:1], np.arange(1000) % 10, [0])
    assert found.lowest < 0.06 < found.value < 0.11 < found.highest == 1


def test_rounding_in_a_long_level() -> None:
    """A million items of which one is relevant, all at one distance: 1/n sum 1/i."""
    n = 1_000_000
    items, relevant = np.zeros((2, 1, 9), np.int64)
    items[0, 4], relevant[0, 4] = n, 1
    found = Ranking(items, relevant).average_precision()
    exact = math.fsum(1 / i for i in range(1, n + 1)) / n
    assert found.value == pytest.approx(exact, rel=1e-12)
    assert (found.lowest, found.highest) == pytest.approx((1 / n, 1), abs=1e-8)


def test_rounding_far_down_a_ranking() -> None:
    """Two tied items, both relevant, behind a million that are not."""
    n = 1_000_000
    items, relevant = np.zeros((2, 1, 9), np.int64)
    items[0, 1], items[0, 3], relevant[0, 3] = n, 2, 2
    found = Ranking(items, relevant).average_precision()
    assert found.value == pytest.approx((1 / (n + 1) + 2 / (n + 2)) / 2, abs=1e-8)


def test_the_curve_by_rank_ends_at_the_whole_database() -> None:
    rng = np.random.default_rng(0)
    xb, yb = rng.integers(0, 256, (500, 4), np.uint8), rng.integers(0, 5, 500)
    curve = metrics.precision_recall(xb, xb[:9], yb, yb[:9])
    assert curve.at[0] == 1
    assert curve.at[-1] == 500
    assert (np.diff(curve.at) > 0).all()
    assert (np.diff(curve.recall) > 0).all()
    assert curve.recall[-1] == pytest.approx(1)
    assert curve.precision[0] == pytest.approx(1)  # every query is in the database


CODES = np.zeros((3, 2), np.uint8)


@pytest.mark.parametrize(
    ("yb", "yq", "error", "message"),
    [
        ([0, 1], [0], ValueError, "yb: got 2 labels, expected 3: one per code"),
        ([0, 1, 2], [0, 1], ValueError, "yq: got 2 labels, expected 1"),
        ([0.0, 1.0, 2.0], [0], TypeError, "yb: got dtype float64 and shape .3,., expected integ"),
        (np.eye(3), np.eye(3)[:1], TypeError, r"zeros and ones by .astype\(bool\)"),
        ([True, False, True], [True], TypeError, "yb: got dtype bool and shape .3,."),
        (np.eye(3) > 0, [0], ValueError, "the same kind and the same number of classes"),
        (np.eye(3) > 0, np.eye(1, 4) > 0, ValueError, r"\(3, 3\) for the database and \(1, 4\)"),
    ],
)
def test_labels_that_do_not_fit(yb: Any, yq: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Ranking.of(CODES, CODES[:1], yb, yq)


def test_other_arguments_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"xq: got codes of 1 bytes, expected 2"):
        Ranking.of(CODES, CODES[:, :1], [0, 0, 0], [0, 0, 0])
    ranking = Ranking.of(CODES, CODES, [0, 0, 0], [0, 0, 0])
    with pytest.raises(ValueError, match="at: got 0, expected at least 1"):
        ranking.average_precision(0)
    with pytest.raises(ValueError, match="ranks: got -1, expected at least 1"):
        ranking.precision_at([5, -1])
    with pytest.raises(ValueError, match="got radius = -1, expected at least 0"):
        ranking.within(-1)

"""The record of all figures: what is in it, and what becomes of it in files, tables and plots."""

from __future__ import annotations

import json
import math
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from faiss_dmih import metrics
from faiss_dmih.metrics import plots, report
from faiss_dmih.metrics.evaluation import Evaluation, evaluate

CUTS = (11, 11, 10)
Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[Any], NDArray[Any]]


def make_codes(seed: int = 0, noise: float = 0.1) -> Arrays:
    """Codes of 32 bits near one of four for each class; the fifth class has no items. Bit 7 is
    the same in all.
    """
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 256, (5, 4), np.uint8)

    def codes(labels: NDArray[np.int64]) -> NDArray[np.uint8]:
        flips = np.packbits(rng.random((len(labels), 32)) < noise, axis=1)
        return (centres[labels] ^ flips) | np.uint8([128, 0, 0, 0])

    yb, yq = rng.integers(0, 4, 700), rng.integers(0, 5, 30)
    return codes(yb), codes(yq), yb, yq


def evaluated(name: str = "near codewords", **options: Any) -> Evaluation:
    return evaluate(*make_codes(**options), CUTS, name=name, cutoffs=[50])


def nothing_relevant() -> Evaluation:
    xb, xq, yb, yq = make_codes()
    return evaluate(np.repeat(xb[:1], 700, axis=0), xq, yb, yq + 10, CUTS, name="no figures")


def test_it_holds_what_the_functions_say() -> None:
    xb, xq, yb, yq = make_codes()
    found = evaluated()
    assert (found.bits, found.n, found.nq, found.cuts) == (32, 700, 30, CUTS)
    for at, held in ((None, found.mean_average_precision), (50, *found.mean_average_precision_at)):
        ap = metrics.mean_average_precision(xb, xq, yb, yq, at=at)
        assert (held.value, held.lowest, held.highest) == (ap.value, ap.lowest, ap.highest)
    assert found.without_relevant == ap.without_relevant == (yq == 4).sum() > 0
    assert found.ns == (1, 2, 5, 10, 20, 50, 100, 200, 500)  # 1000 are not there
    assert found.precision_at == tuple(metrics.precision_at(xb, xq, yb, yq, found.ns))
    by_rank = metrics.precision_recall(xb, xq, yb, yq)
    assert np.array_equal([found.by_rank.recall, found.by_rank.precision], by_rank[:0:-1])
    by_radius = metrics.precision_recall_by_radius(xb, xq, yb, yq)
    assert np.array_equal(found.by_radius.precision, by_radius.precision, equal_nan=True)
    within = metrics.precision_within_radius(xb, xq, yb, yq, found.within.radius)
    assert (found.within.precision, found.within.empty) == (within.precision, within.empty)
    entropy = metrics.bucket_entropy(xb, CUTS)
    assert (found.entropy, found.entropy_bits) == pytest.approx((entropy.nats, entropy.bits))
    sizes = metrics.bucket_sizes(xb, CUTS)
    assert [table.largest for table in found.tables] == [of_table[0] for of_table in sizes]
    assert all(sum(table.items) == 700 for table in found.tables)
    for k, entries, buckets in zip(found.ks, found.candidates, found.buckets, strict=True):
        candidates = metrics.expected_candidates(xb, xq, CUTS, k=k)
        assert (entries, buckets) == (candidates.entries.mean(), candidates.buckets.mean())
    correlation = metrics.mean_absolute_correlation(xb)
    assert (found.mean_absolute_correlation, found.constant_bits) == correlation
    assert found.constant_bits == 1
    assert found.distinct == metrics.distinct_codes(xb) < 700


def test_what_exceeds_the_database_is_left_out() -> None:
    xb, xq, yb, yq = make_codes()
    found = evaluate(xb[:10], xq, yb[:10], yq, CUTS, ks=[1, 10, 11], ns=[9, 10, 11])
    assert (found.ks, found.ns) == ((1, 10), (9, 10))
    assert len(found.candidates) == len(found.precision_at) == 2


def test_the_matrix_comes_back_from_its_triangle() -> None:
    xb = make_codes()[0]
    matrix = plots._matrix(evaluated())
    expected = np.abs(metrics.correlation_matrix(xb))
    assert matrix == pytest.approx(expected, abs=0.0051, nan_ok=True)
    assert np.isnan(matrix[7]).all()


@pytest.mark.parametrize("make", [evaluated, nothing_relevant])
def test_a_file_and_back(make: Any, tmp_path: Path) -> None:
    found: Evaluation = make()
    found.save(tmp_path / "codes.json")
    text = (tmp_path / "codes.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["n"] == 700
    again = Evaluation.load(tmp_path / "codes.json")
    assert again.to_json() == text
    if not math.isnan(found.mean_average_precision.value):
        assert again.mean_average_precision == found.mean_average_precision
    assert again.tables == found.tables
    assert again.ns == found.ns


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 0}', '{"format": 1, "name": "x"}'])
def test_files_that_hold_something_else(text: str, tmp_path: Path) -> None:
    (tmp_path / "codes.json").write_text(text)
    with pytest.raises(ValueError, match=r"codes\.json: "):
        Evaluation.load(tmp_path / "codes.json")


def test_nothing_to_evaluate() -> None:
    xb, xq, yb, yq = make_codes()
    with pytest.raises(ValueError, match="got 0 codes and 30 queries, expected at least one"):
        evaluate(xb[:0], xq, yb[:0], yq, CUTS)
    with pytest.raises(ValueError, match="got 700 codes and 0 queries"):
        evaluate(xb, xq[:0], yb, yq[:0], CUTS)
    with pytest.raises(ValueError, match="cuts must sum to d = 32 bits"):
        evaluate(xb, xq, yb, yq, [16])


def test_a_query_without_relevant_items_costs_nothing_but_itself() -> None:
    xb, xq, yb, yq = make_codes()
    judged = yq < 4
    assert evaluated().mean_average_precision == (
        evaluate(xb, xq[judged], yb, yq[judged], CUTS).mean_average_precision
    )


def test_markdown() -> None:
    text = report.markdown([evaluated(), nothing_relevant()])
    lines = text.splitlines()
    assert lines[0].startswith("| codes | bits | distinct | mAP | mAP@50 | P@100 | P(d <= 2) | ")
    assert len({line.count("|") for line in lines[:4]}) == 1
    found = evaluated().mean_average_precision
    bounds = f"{found.value:.3f} ({found.lowest:.3f} to {found.highest:.3f})"
    assert f"| near codewords | 32 | {evaluated().distinct} of 700 | {bounds} |" in lines[2]
    # No cutoff was asked for, and there is no figure to be had.
    assert lines[3].startswith("| no figures | 32 | 1 of 700 | none |  | none | none | 0.00 / 0.00")
    left_out = evaluated().without_relevant
    assert lines[5].startswith(
        f"30 queries, of them left out for want of relevant items: {left_out} to 30."
    )


def test_terminal_table() -> None:
    console = Console(width=80, file=StringIO())
    with console.capture() as printed:
        console.print(report.terminal_table([evaluated(), nothing_relevant()]))
    text = printed.get()
    assert "near codewords" in text
    assert "mAP@50" in text
    assert "none, 32 constant" in text


def colours(path: Path) -> set[int]:
    """As 0xRRGGBB."""
    pixels = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(np.int64)
    return set(np.unique(pixels @ [0x10000, 0x100, 1]).tolist())


ORANGE, BLUE, GREY = 0xD55E00, 0x0072B2, 0xBBBBBB


def test_plots(tmp_path: Path) -> None:
    """Two series, one of them with two runs and another length, and other substrings."""
    xb, xq, yb, yq = make_codes()
    twice = [np.hstack([x, x[::-1]]) for x in (xb, xq)]
    evaluations = [
        evaluated(),
        evaluated(seed=1),
        evaluate(*twice, yb, yq, [16] * 4, name="near codewords"),
        evaluated("noise", noise=0.5),
        evaluate(xb, xq, yb, yq, [16, 16], name="wider"),
        evaluate(xb, xq, yb, yq, [10, 11, 11], name="other cuts"),
    ]
    paths = plots.write_plots(evaluations, tmp_path / "plots")
    names = ["map", "precision_recall", "precision_at", "correlation"]
    names += ["buckets_32x3", "buckets_64x4", "buckets_32x2", "buckets_32x3_2"]
    assert [path.name for path in paths] == [f"{name}.png" for name in names]
    for path in paths:
        shown = colours(path)
        if path.stem == "correlation":
            assert GREY in shown
            assert len(shown) > 100
        else:
            # Where the first series and the second appear; the others have tables of their own.
            others = ("buckets_32x2", "buckets_32x3_2")
            assert (ORANGE in shown) is (path.stem not in others)
            assert (BLUE in shown) is (path.stem not in (*others, "buckets_64x4"))


def test_plots_of_what_has_no_figures(tmp_path: Path) -> None:
    paths = plots.write_plots([nothing_relevant()], tmp_path)
    assert len(paths) == 5
    assert all(path.stat().st_size > 1000 for path in paths)
    assert plots.write_plots([], tmp_path / "none") == []

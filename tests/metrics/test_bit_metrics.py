"""Correlation of bits and distinct codes, against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from strategies import Case, cases

from faiss_dmih import metrics
from faiss_dmih.codes import pack, unpack


def correlation(a: list[bool], b: list[bool]) -> float:
    """Pearson's, from its definition."""
    n = len(a)
    mean_a, mean_b = sum(a) / n, sum(b) / n
    covariance = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    variances = sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)
    return covariance / math.sqrt(variances)


@given(cases(biggest_d=24, sizes=(1, 2, 3, 50, 200)))
def test_correlation(case: Case) -> None:
    columns = unpack(case.xb).T.tolist()
    constant = [len(set(column)) == 1 for column in columns]
    matrix = metrics.correlation_matrix(case.xb)
    absolute = []
    for i in range(case.d):
        for j in range(case.d):
            if constant[i] or constant[j]:
                assert np.isnan(matrix[i, j])
                continue
            assert matrix[i, j] == pytest.approx(correlation(columns[i], columns[j]), abs=1e-9)
            absolute += [abs(matrix[i, j])] if i < j else []
    mac = metrics.mean_absolute_correlation(case.xb)
    assert mac.constant_bits == sum(constant)
    expected = np.mean(absolute) if absolute else math.nan
    assert mac.value == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_blocks_add_up() -> None:
    rng = np.random.default_rng(0)
    xb = rng.integers(0, 256, (20_000, 3), np.uint8)
    expected = np.corrcoef(unpack(xb).T)
    assert metrics.correlation_matrix(xb) == pytest.approx(expected, abs=1e-12)


def test_equal_bits_are_correlated_exactly() -> None:
    bits = np.random.default_rng(1).random((1001, 1)) < 0.3
    matrix = metrics.correlation_matrix(pack(np.hstack([bits] * 5 + [~bits] * 3)))
    assert set(np.abs(matrix).ravel()) == {1.0}
    assert metrics.mean_absolute_correlation(pack(np.hstack([bits] * 8))) == (1.0, 0)


def test_no_codes() -> None:
    none = np.empty((0, 2), np.uint8)
    mac = metrics.mean_absolute_correlation(none)
    assert np.isnan(mac.value)
    assert mac.constant_bits == 16
    assert metrics.distinct_codes(none) == 0


@given(cases(biggest_d=96, sizes=(0, 1, 2, 50, 200)))
def test_distinct_codes(case: Case) -> None:
    assert metrics.distinct_codes(case.xb) == len({code.tobytes() for code in case.xb})

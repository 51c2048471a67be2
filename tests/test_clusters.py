"""Segments large enough to be clustered: the bounded scan finds what a scan of everything finds."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest
from checks import assert_same, flat, make_index
from strategies import CODES, make_queries

import faiss_dmih

N = 30_000  # seven clusters, sixty blocks of 512
SHAPES = [
    (32, "uniform"),
    (48, "one bucket"),
    (64, "clustered"),
    (192, "few bits"),
    (96, "one bucket"),
    (128, "clustered"),
    (256, "complements"),
    (512, "constant bit"),
    (1032, "clustered"),
]


@pytest.fixture(scope="module", params=SHAPES, ids=lambda shape: f"{shape[0]}-{shape[1]}")
def answers(request: pytest.FixtureRequest) -> tuple[Any, list[Any]]:
    """Codes, and what IndexBinaryFlat answers to one query, a few and many."""
    d, kind = request.param
    rng = np.random.default_rng([d, len(kind)])
    xb = CODES[kind](rng, N, d // 8)
    yardstick = flat(xb)
    expected = list[Any]()
    for nq in (1, 3, 200):  # rows, planes for a few, planes for many
        xq = make_queries(rng, xb, nq)
        expected += [("search", xq, k, yardstick.search(xq, k)) for k in (1, 10, 500)]
        kth = yardstick.search(xq, 20)[0][:, -1]
        expected += [
            ("range_search", xq, radius, yardstick.range_search(xq, radius))
            for radius in {int(kth.min()), int(np.median(kth)) + 1}
        ]
    return xb, expected


@pytest.mark.parametrize("engine", ["auto", "auto+scan"])
@pytest.mark.usefixtures("simd_level", "threads")
def test_same_as_flat(engine: str, answers: tuple[Any, list[Any]]) -> None:
    xb, expected = answers
    index = make_index(xb.shape[1] * 8, engine)
    index.add(xb)
    assert index.memory_usage()["clusters"] > 0
    for method, xq, argument, answer in expected:
        assert_same(getattr(index, method)(xq, argument), answer)


def test_most_codes_are_not_scanned() -> None:
    """What clusters are for: near neighbours of clustered codes are found in a few of them."""
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 256, (16, 16), dtype=np.uint8)
    noise = rng.random((N, 128)) < 0.05
    xb = centres[rng.integers(0, 16, N)] ^ np.packbits(noise, axis=1)
    index = make_index(128, "auto+scan")
    index.add(xb)
    xq = xb[rng.integers(0, N, 256)]
    faiss_dmih.reset_stats()
    index.search(xq, 10)
    assert faiss_dmih.stats()["scanned"] < 0.35 * N * len(xq)


def test_selected_ids() -> None:
    rng = np.random.default_rng(1)
    xb = CODES["clustered"](rng, N, 8)
    index = make_index(64, "auto+scan")
    index.add(xb)
    chosen = np.sort(rng.choice(N, N // 50, replace=False))
    params = faiss.SearchParameters(sel=faiss.IDSelectorBatch(chosen))
    xq = make_queries(rng, xb, 200)
    within = flat(xb[chosen])
    D, labels = within.search(xq, 10)
    assert_same(index.search(xq, 10, params=params), (D, chosen[labels]))


def test_reconstruct_follows_ids() -> None:
    rng = np.random.default_rng(2)
    for kind in ("uniform", "duplicates"):
        xb = CODES[kind](rng, N, 8)
        xb[: N // 2] = rng.integers(0, 256, (N // 2, 8), dtype=np.uint8)
        index = make_index(64)
        index.add(xb)
        np.testing.assert_array_equal(index.reconstruct_n(0, N), xb)

"""Each engine, forced, gives the same bits on sets large enough to have tables and segments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import ENGINES, assert_same, flat, make_index
from strategies import CODES, make_queries

import faiss_dmih
from faiss_dmih import reference

D_AND_KIND = [
    (32, "uniform"),
    (64, "clustered"),
    (64, "duplicates"),
    (72, "one bucket"),
    (128, "few bits"),
    (256, "complements"),
    (512, "clustered"),
]
N = 13_000  # several tails long


def data(d: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([d, len(kind)])
    xb = CODES[kind](rng, N, d // 8)
    return xb, make_queries(rng, xb, 64)


@pytest.fixture(scope="module", params=D_AND_KIND, ids=lambda p: f"{p[0]}-{p[1]}")
def answers(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Codes, queries, and what the oracle and IndexBinaryFlat both say of them."""
    xb, xq = data(*request.param)
    kth = reference.knn(xb, xq, 20)[0][:, -1]
    radii = (int(kth.min()) + 1, int(np.median(kth)) + 1)
    yardstick = flat(xb)
    for k in (1, 20):
        assert_same(yardstick.search(xq, k), reference.knn(xb, xq, k))
    return {
        "xb": xb,
        "xq": xq,
        "knn": {k: reference.knn(xb, xq, k) for k in (1, 20, 300, 1000)},
        "range": {radius: reference.range_search(xb, xq, radius) for radius in radii},
    }


def assert_answers(index: Any, answers: dict[str, Any]) -> None:
    for k, expected in answers["knn"].items():
        assert_same(index.search(answers["xq"], k), expected)
    for radius, expected in answers["range"].items():
        assert_same(index.range_search(answers["xq"], radius), expected)


@pytest.mark.parametrize("batch", [1, 40, 300])
@pytest.mark.usefixtures("simd_level", "threads")
def test_a_guess_that_is_too_low(batch: int) -> None:
    """A large k is guessed for by codes spread over the index: here just those are near."""
    n, k, run = 70_000, 1000, 16
    rng = np.random.default_rng(batch)
    xq = rng.integers(0, 256, (batch, 8), dtype=np.uint8)
    xb = rng.integers(0, 256, (n, 8), dtype=np.uint8)
    runs = n * 64 // k // run + 1
    for r in range(0, runs, 6):  # fewer than k
        at = r * (n - run) // runs
        xb[at : at + run] = xq[0]
    index = faiss_dmih.IndexDMIH(64, mode="scan")
    index.add(xb)
    faiss_dmih.reset_stats()
    got = index.search(xq, k)
    scanned = faiss_dmih.stats()["scanned"]
    assert_same(got, flat(xb).search(xq, k))
    # The first of them once more, and those to which it is about as near as their k-th neighbour.
    assert n * (batch + 1) <= scanned < n * (1.1 * batch + 2)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.usefixtures("simd_level", "threads")
def test_one_segment(engine: str, answers: dict[str, Any]) -> None:
    index = make_index(answers["xb"].shape[1] * 8, engine)
    index.add(answers["xb"])
    index.compact()
    assert_answers(index, answers)


@pytest.mark.parametrize("engine", ENGINES)
def test_segments_and_a_tail(engine: str, answers: dict[str, Any]) -> None:
    index = make_index(answers["xb"].shape[1] * 8, engine)
    for batch in np.array_split(answers["xb"], 7):
        index.add(batch)
        index.search(answers["xq"][:2], 1)
    assert_answers(index, answers)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_query_at_a_time(engine: str, answers: dict[str, Any]) -> None:
    index = make_index(answers["xb"].shape[1] * 8, engine)
    index.add(answers["xb"])
    D, I = answers["knn"][20]
    for row in range(8):
        here = slice(row, row + 1)
        assert_same(index.search(answers["xq"][here], 20), (D[here], I[here]))


def test_one_index_through_all_engines(answers: dict[str, Any]) -> None:
    """An index changes engines between searches, not answers."""
    index = make_index(answers["xb"].shape[1] * 8)
    index.add(answers["xb"])
    for engine in ("probe", "auto", "scan", "probe", "auto"):
        index.force_engine(engine)
        assert_answers(index, answers)


@pytest.mark.parametrize("engine", ["auto", "auto+scan", "auto+probe"])
def test_a_small_memory_budget(engine: str, answers: dict[str, Any]) -> None:
    """A budget is about memory and time. Whatever it is, answers stay as they are."""
    code_size = answers["xb"].shape[1]
    for budget in (0, 1, N * code_size, 100 * N * code_size):
        index = make_index(code_size * 8, engine, memory_budget=budget)
        index.add(answers["xb"])
        assert_answers(index, answers)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("n", [1, 2, 100])
def test_tables_over_few_codes(engine: str, n: int) -> None:
    xb, xq = (codes[:n] for codes in data(64, "clustered"))
    index = make_index(64, engine)
    index.add(xb)
    index.compact()
    assert_same(index.search(xq, 3), reference.knn(xb, xq, 3))
    assert_same(index.range_search(xq, 30), reference.range_search(xb, xq, 30))


@pytest.mark.parametrize("engine", ["auto+probe", "mih", "auto+scan", "scan"])
def test_an_engine_is_the_one_asked_for(engine: str, answers: dict[str, Any]) -> None:
    index = make_index(answers["xb"].shape[1] * 8, engine)
    index.add(answers["xb"])
    index.compact()
    faiss_dmih.reset_stats()
    assert set(faiss_dmih.stats().values()) == {0}
    index.search(answers["xq"], 5)
    done = faiss_dmih.stats()
    assert done["queries"] == len(answers["xq"])
    assert done["fallbacks"] == 0
    probed = engine in ("auto+probe", "mih")
    assert (done["probes"] > 0) == probed
    assert (done["candidates"] > 0) == probed
    assert (done["scanned"] > 0) == (not probed)


@pytest.mark.parametrize("level", [None, "", "avx1024", 3])
def test_unknown_simd_level(level: Any) -> None:
    before = faiss_dmih.simd_level()
    with pytest.raises((ValueError, TypeError)):
        faiss_dmih.set_simd_level(level)
    assert faiss_dmih.simd_level() == before


def test_simd_levels(simd_level: str) -> None:
    assert faiss_dmih.simd_level() == simd_level
    assert "portable" in faiss_dmih.available_simd_levels()

"""Scans whose codes, or whose queries, threads share: the answers of one thread, for its effort."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest
from checks import assert_same, flat
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import CODES, make_queries

import faiss_dmih

pytestmark = pytest.mark.usefixtures("set_threads_back")

N = 40_000  # ten times what is shared out at all


@pytest.fixture(scope="module")
def set_threads_back() -> Any:
    before = faiss.omp_get_max_threads()
    yield
    faiss.omp_set_num_threads(before)


def scanning(xb: np.ndarray, clusters: bool) -> Any:
    index = faiss_dmih.IndexDMIH(xb.shape[1] * 8, mode="auto" if clusters else "scan")
    index.add(xb)
    index.compact()
    index.force_engine("scan")
    return index


@given(
    d=st.sampled_from([32, 64, 256, 512]),
    kind=st.sampled_from(sorted(CODES)),
    clusters=st.booleans(),
    nq=st.sampled_from([1, 2, 3, 7, 32, 70]),
    k=st.sampled_from([1, 10, 300, 2000]),
    threads=st.sampled_from([2, 3, 8]),
    filtered=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60)
def test_answers(
    d: int,
    kind: str,
    clusters: bool,
    nq: int,
    k: int,
    threads: int,
    filtered: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    xb = CODES[kind](rng, N, d // 8)
    xq = make_queries(rng, xb, nq)
    params = None
    if filtered:
        some = faiss.IDSelectorRange(N // 8, N)
        params = faiss.SearchParameters(sel=some)
    index = scanning(xb, clusters)
    faiss.omp_set_num_threads(threads)
    got = index.search(xq, k, params=params)
    expected = flat(xb[N // 8 :] if filtered else xb).search(xq, k)
    shift = np.where(expected[1] >= 0, N // 8, 0) if filtered else 0
    assert_same(got, (expected[0], expected[1] + shift))
    radius = int(np.median(expected[0])) + 1
    assert_same(index.range_search(xq, radius), flat(xb).range_search(xq, radius))


def test_what_one_thread_knows_of_a_bound_all_know() -> None:
    """Of queries far from everything the bound falls late, as codes are met. Threads that each had
    to learn it by themselves would compare a seventh more codes."""
    rng = np.random.default_rng(0)
    index = scanning(CODES["clustered"](rng, 300_000, 8) & np.uint8(0x0F), clusters=True)
    xq = rng.integers(0, 256, (100, 8), dtype=np.uint8) | np.uint8(0xF0)
    scanned = {}
    for threads in (1, 2):
        faiss.omp_set_num_threads(threads)
        faiss_dmih.reset_stats()
        for query in xq:
            index.search(query[None], 10)
        scanned[threads] = faiss_dmih.stats()["scanned"]
    assert scanned[2] < 1.05 * scanned[1]

from __future__ import annotations

import faiss
import numpy as np
import pytest

from faiss_dmih.bench.competitors import FAMILIES, Hnsw, MultiHash, apply, variant_name
from faiss_dmih.bench.questions import Nearest, Within


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_builds_searches_and_knows_its_memory(family):
    rng = np.random.default_rng(0)
    xb = rng.integers(0, 256, (2000, 8), dtype=np.uint8)
    if why := FAMILIES[family].missing():
        pytest.skip(why)
    for competitor in FAMILIES[family].configurations(64, len(xb)):
        index = competitor.make(64)
        index.add(xb)
        for settings in competitor.settings():
            competitor.prepare(index, settings)
            D, I = index.search(xb[:3], 1)
            assert D.ravel().tolist() == [0, 0, 0]
            assert I.ravel().tolist() == [0, 1, 2]
        size, how = competitor.memory(index)
        assert size >= xb.nbytes
        assert how


def test_families_off_by_default_are_the_slow_or_odd_ones():
    optional = {name for name, cls in FAMILIES.items() if not cls.by_default}
    others = {"usearch", "usearch-hnsw", "numkong", "pynear-mih"}
    assert optional == {"dmih-engines", "hash", "hnsw", "ivf"} | others


@pytest.mark.parametrize(
    ("d", "n", "expected"),
    [
        (64, 1_000_000, [(3, 20), (4, 16)]),
        (256, 1_000_000, [(12, 20), (16, 16)]),
        (8, 1_000_000, [(1, 8), (2, 4)]),
        (64, 1, [(12, 5), (16, 4)]),
    ],
)
def test_multihash_is_configured_for_d_and_n(d, n, expected):
    configurations = MultiHash.configurations(d, n)
    assert [(c.nhash, c.b) for c in configurations] == expected
    assert all(nhash * b <= d for nhash, b in expected)


def test_multihash_memory_counts_codes_ids_and_buckets():
    xb = np.random.default_rng(0).integers(0, 256, (1000, 32), dtype=np.uint8)
    competitor = MultiHash(16, 16)
    index = competitor.make(256)
    index.add(xb)
    size, _ = competitor.memory(index)
    ids = 8 * 16 * len(xb)
    buckets = sum(len(np.unique(xb.view("<u2")[:, i])) for i in range(16))
    assert size == xb.nbytes + ids + 64 * buckets


def test_settings_reach_members():
    index = faiss.IndexBinaryHNSW(64, 8)
    apply(index, {"hnsw.efSearch": 123})
    assert index.hnsw.efSearch == 123


def test_variant_names():
    assert variant_name("multihash-3x20", {"nflip": 2}) == "multihash-3x20-nflip2"
    efs = [variant_name("hnsw-16", settings) for settings in Hnsw().settings()]
    assert efs == ["hnsw-16-efSearch16", "hnsw-16-efSearch64", "hnsw-16-efSearch256"]
    assert variant_name("flat", {}) == "flat"


@pytest.mark.parametrize("family", [name for name, cls in FAMILIES.items() if cls.exact])
@pytest.mark.parametrize("d", [32, 96, 512])
def test_who_is_exact_says_what_flat_says(family, d):
    if why := FAMILIES[family].missing():
        pytest.skip(why)
    rng = np.random.default_rng(1)
    xb = rng.integers(0, 256, (300, d // 8), dtype=np.uint8)
    xb[200:] = xb[:100]  # ties
    (competitor,) = FAMILIES[family].configurations(d, len(xb))
    flat, index = faiss.IndexBinaryFlat(d), competitor.make(d)
    flat.add(xb)
    index.add(xb)
    for settings in competitor.settings():
        competitor.prepare(index, settings)
        for question in (Nearest(1), Nearest(50), Nearest(400), Within(d // 3)):
            if isinstance(question, Within) and not competitor.ranges:
                continue
            for nq in (1, 7):
                answer, truth = (question.put_to(i)(xb[:nq]) for i in (index, flat))
                assert question.equivalent(answer, truth) == ""
                if not competitor.own_order:
                    assert question.difference(answer, truth) == ""


def test_multihash_is_certain_where_a_substring_must_agree_enough():
    competitor = MultiHash(4, 8)
    xb = np.random.default_rng(0).integers(0, 256, (20_000, 4), dtype=np.uint8)
    flat, index = faiss.IndexBinaryFlat(32), competitor.make(32)
    flat.add(xb)
    index.add(xb)
    for radius in (4, 5, 8, 9):
        question = Within(radius)
        truth = question.put_to(flat)(xb[:200])
        for settings in competitor.settings():
            competitor.prepare(index, settings)
            right = question.equivalent(question.put_to(index)(xb[:200]), truth) == ""
            assert competitor.certain(settings, question) == right
            assert not competitor.certain(settings, Nearest(1))

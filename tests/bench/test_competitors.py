from __future__ import annotations

import faiss
import numpy as np
import pytest

from faiss_dmih.bench.competitors import FAMILIES, Hnsw, MultiHash, apply, variant_name


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_builds_searches_and_knows_its_memory(family):
    rng = np.random.default_rng(0)
    xb = rng.integers(0, 256, (2000, 8), dtype=np.uint8)
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
    assert optional == {"dmih-engines", "hash", "hnsw"}


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

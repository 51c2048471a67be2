"""FAISS's composites over IndexDMIH do what they do over IndexBinaryFlat, and own it alike."""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from checks import ENGINES, assert_same, flat, make_index
from faiss.contrib import exhaustive_search
from scripts import run
from strategies import Case

from faiss_dmih import IndexDMIH, reference

CASES = [
    Case(d=64, n=6000, nq=40, kind="clustered", seed=1),
    Case(d=64, n=300, nq=40, kind="duplicates", seed=2),
    Case(d=256, n=5000, nq=130, kind="uniform", seed=3),
    Case(d=32, n=5000, nq=3, kind="few bits", seed=4),
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case.kind}-{case.d}-{case.n}")
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def empty_flat(d: int) -> Any:
    return faiss.IndexBinaryFlat(d)


def assert_same_searches(got: Any, expected: Any, case: Case, **options: Any) -> None:
    """Both composites answer alike; `options` as for search."""
    for k in (1, 10, 301):
        assert_same(got.search(case.xq, k, **options), expected.search(case.xq, k, **options))
    for radius in (0, case.d // 8, case.d // 2):
        assert_same(
            got.range_search(case.xq, radius, **options),
            expected.range_search(case.xq, radius, **options),
        )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("composite", [faiss.IndexBinaryIDMap, faiss.IndexBinaryIDMap2])
def test_id_map(composite: Any, engine: str, case: Case) -> None:
    ids = np.random.default_rng(case.seed).permutation(10 * case.n)[: case.n] - case.n
    maps = [composite(make_index(case.d, engine)), composite(empty_flat(case.d))]
    for map_ in maps:
        map_.add_with_ids(case.xb[:1000], ids[:1000])
        map_.add_with_ids(case.xb[1000:], ids[1000:])
    ours, theirs = maps
    assert ours.ntotal == case.n
    assert_same_searches(ours, theirs, case)
    D, I = reference.knn(case.xb, case.xq, 10)
    assert_same(ours.search(case.xq, 10), (D, ids[I]))
    # The selection is of the outer ids.
    chosen = faiss.IDSelectorBatch(ids[::3])
    assert_same_searches(ours, theirs, case, params=faiss.SearchParameters(sel=chosen))


def test_id_map2_reconstructs(case: Case) -> None:
    ids = np.random.default_rng(case.seed).permutation(case.n) + 7
    map_ = faiss.IndexBinaryIDMap2(IndexDMIH(case.d))
    map_.add_with_ids(case.xb, ids)
    for position in (0, case.n // 2, case.n - 1):
        np.testing.assert_array_equal(map_.reconstruct(int(ids[position])), case.xb[position])
    with pytest.raises(RuntimeError, match="not found"):
        map_.reconstruct(6)


def shards_of(make: Callable[[int], Any], case: Case, threaded: bool, successive: bool) -> Any:
    shards = faiss.IndexBinaryShards(case.d, threaded, successive)
    for _ in range(3):
        shards.add_shard(make(case.d))
    if successive:
        shards.add(case.xb)
    else:
        shards.add_with_ids(case.xb, np.arange(case.n) * 2)
    return shards


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("threaded", [False, True])
def test_shards_with_successive_ids(threaded: bool, engine: str, case: Case) -> None:
    ours = shards_of(lambda d: make_index(d, engine), case, threaded, successive=True)
    theirs = shards_of(empty_flat, case, threaded, successive=True)
    assert ours.ntotal == case.n
    for k in (1, 10, 301):
        assert_same(ours.search(case.xq, k), theirs.search(case.xq, k))
    np.testing.assert_array_equal(
        ours.search(case.xq, 10)[0], reference.knn(case.xb, case.xq, 10)[0]
    )


@pytest.mark.parametrize("threaded", [False, True])
def test_shards_of_id_maps(threaded: bool, case: Case) -> None:
    ours, theirs = (
        shards_of(lambda d, m=make: faiss.IndexBinaryIDMap(m(d)), case, threaded, successive=False)
        for make in (IndexDMIH, empty_flat)
    )
    for k in (1, 10):
        assert_same(ours.search(case.xq, k), theirs.search(case.xq, k))


@pytest.mark.parametrize("threaded", [False, True])
def test_replicas(threaded: bool, case: Case) -> None:
    replicas = faiss.IndexBinaryReplicas(case.d, threaded)
    for _ in range(2):
        replicas.addIndex(IndexDMIH(case.d))
    replicas.add(case.xb)
    assert replicas.ntotal == case.n
    assert_same(replicas.search(case.xq, 10), reference.knn(case.xb, case.xq, 10))
    np.testing.assert_array_equal(replicas.reconstruct(case.n - 1), case.xb[-1])
    replicas.reset()
    assert replicas.ntotal == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_quantizer_of_ivf(engine: str, case: Case) -> None:
    indexes = []
    for quantizer in (make_index(case.d, engine), empty_flat(case.d)):
        ivf = faiss.IndexBinaryIVF(quantizer, case.d, 16)
        ivf.cp.seed = 5
        ivf.train(case.xb)
        ivf.add(case.xb)
        indexes.append((ivf, quantizer))
    (ours, our_quantizer), (theirs, their_quantizer) = indexes
    assert our_quantizer.ntotal == 16
    assert_same([our_quantizer.reconstruct_n()], [their_quantizer.reconstruct_n()])
    for nprobe in (1, 4, 16):
        ours.nprobe = theirs.nprobe = nprobe
        assert_same_searches(ours, theirs, case)


def test_exhaustive_search_of_contrib() -> None:
    case = CASES[2]
    index = IndexDMIH(case.d)
    index.add(case.xb)
    got, expected = (
        exhaustive_search.range_search_max_results(
            searched,
            exhaustive_search.exponential_query_iterator(case.xq, start_bs=4),
            case.d // 2,
            max_results=20 * case.nq,
        )
        for searched in (index, flat(case.xb))
    )
    assert got[0] == expected[0]
    assert len(got[2]) > 0
    assert_same(got[1:], expected[1:])


def wrap(kind: str, d: int) -> Any:
    """A composite which alone holds an IndexDMIH."""
    if kind == "shards":
        composite = faiss.IndexBinaryShards(d, True, True)
        composite.add_shard(IndexDMIH(d))
    elif kind == "replicas":
        composite = faiss.IndexBinaryReplicas(d, True)
        composite.addIndex(IndexDMIH(d))  # add_replica keeps no reference, whatever the index
    elif kind == "ivf":
        composite = faiss.IndexBinaryIVF(IndexDMIH(d), d, 4)
        composite.nprobe = 4
    else:
        composite = getattr(faiss, kind)(IndexDMIH(d))
    return composite


def fill(composite: Any, xb: np.ndarray) -> None:
    if isinstance(composite, faiss.IndexBinaryIDMap):
        composite.add_with_ids(xb, np.arange(len(xb)))
    else:
        composite.train(xb)
        composite.add(xb)


COMPOSITES = ("IndexBinaryIDMap", "IndexBinaryIDMap2", "shards", "replicas", "ivf")


@pytest.mark.parametrize("kind", COMPOSITES)
def test_a_composite_keeps_its_index_alive(kind: str) -> None:
    case = CASES[1]
    composite = wrap(kind, case.d)
    gc.collect()
    fill(composite, case.xb)
    np.testing.assert_array_equal(
        composite.search(case.xq, 5)[0], reference.knn(case.xb, case.xq, 5)[0]
    )


def test_an_index_outlives_its_composite() -> None:
    case = CASES[1]
    index = IndexDMIH(case.d)
    map_ = faiss.IndexBinaryIDMap(index)
    fill(map_, case.xb)
    del map_
    gc.collect()
    assert_same(index.search(case.xq, 5), reference.knn(case.xb, case.xq, 5))


def test_an_index_given_away_belongs_to_the_composite() -> None:
    case = CASES[1]
    index = IndexDMIH(case.d)
    map_ = faiss.IndexBinaryIDMap(index)
    map_.own_fields = True
    index.this.disown()
    del index
    gc.collect()
    fill(map_, case.xb)
    assert_same(map_.search(case.xq, 5), reference.knn(case.xb, case.xq, 5))
    del map_
    gc.collect()


def kept_by_cycles(kind: str) -> int:
    """Bytes that the process holds more after 40 indexes than after 5. Each is of 4,000 codes of
    512 bytes and holds 2 MB: one kept in five would show."""
    d = 4096
    xb = np.random.default_rng(0).integers(0, 256, (4000, d // 8), dtype=np.uint8)

    def cycle() -> None:
        index = IndexDMIH(d) if kind == "plain" else wrap(kind, d)
        if kind == "ivf":  # what holds the codes here is not ours, so fill the quantizer
            faiss.downcast_IndexBinary(index.quantizer).add(xb)
        else:
            fill(index, xb)
            index.search(xb[:3], 2)

    def memory() -> int:
        gc.collect()
        resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
        return resident_pages * resource.getpagesize()

    for _ in range(5):
        cycle()
    before = memory()
    for _ in range(40):
        cycle()
    return memory() - before


@pytest.mark.parametrize("kind", ["plain", *COMPOSITES])
def test_indexes_come_and_go_without_a_leak(kind: str) -> None:
    """In a process of its own, and with one arena: where other tests have left threads behind,
    malloc gives new threads arenas in turn, and each keeps some megabytes of what was freed."""
    script = f"""
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from test_composites import kept_by_cycles
    print(kept_by_cycles({kind!r}))
    """
    assert int(run(script, MALLOC_ARENA_MAX="1")) < 16 << 20

"""IndexDMIH.train, from Python and from FAISS: what is learned, and that no answer moves.

That an index whose bits are in any order answers alike, however it has come by its codes, files
included, is tested where these ways are: `checks.shuffle_bits`.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest
from checks import ENGINES, assert_exact, assert_same, draw_index, flat, make_index, shuffle_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts import run
from strategies import Case, cuts, ks, radii
from test_partition import copies, small_cases, weak

from faiss_dmih import IndexDMIH
from faiss_dmih.partition import DEFAULT, STRATEGIES, learn_partition


@pytest.mark.parametrize("engine", ENGINES)
@given(case=small_cases(), data=st.data())
@settings(max_examples=12)
def test_training_moves_no_answer(engine: str, case: Case, data: st.DataObject) -> None:
    """Before the codes come, after, between; by any strategy, again and again."""
    index = draw_index(case, engine, data)
    k, radius = data.draw(ks(case.n)), data.draw(radii(case.d))
    for strategy in data.draw(st.lists(st.sampled_from([None, *STRATEGIES]), max_size=3)):
        index.train(case.xb, strategy=strategy, n=data.draw(st.sampled_from([None, 0, 10**6])))
        assert_exact(index, case.xb, case.xq, k, radius)
        np.testing.assert_array_equal(index.reconstruct_n(), case.xb)
    index.add(case.xb)
    assert_exact(index, np.concatenate([case.xb] * 2), case.xq, k, radius)


@given(case=small_cases(), data=st.data())
@settings(max_examples=20)
def test_cuts_that_are_given_stay(case: Case, data: st.DataObject) -> None:
    given_cuts = data.draw(cuts(case.d))
    index = make_index(case.d, "auto+probe", cuts=given_cuts)
    index.train(case.xb, strategy=data.draw(st.sampled_from(sorted(STRATEGIES))))
    if index.partition is not None and given_cuts is not None:
        assert index.partition.cuts == given_cuts
    index.add(case.xb)
    index.compact()
    if given_cuts is not None:
        assert index.cuts == given_cuts
    assert_exact(index, case.xb, case.xq, 5, case.d // 4)


@pytest.mark.parametrize(
    ("d", "strategy"), [(8, "entropy"), (8, "cost"), (1024, "entropy"), (2048, "data-driven")]
)
def test_the_shortest_and_the_longest_codes(d: int, strategy: str) -> None:
    case = Case(d=d, n=600, nq=10, kind="clustered", seed=1)
    index = make_index(d, "auto+probe")
    index.train(case.xb[:50], strategy=strategy)
    index.add(case.xb)
    index.compact()
    assert_exact(index, case.xb, case.xq, 5, d // 8)
    assert index.partition is not None or d == 8


def test_what_training_learns_is_what_learn_partition_says() -> None:
    xb = copies(30_000)
    for strategy, mode in ((None, "auto"), (None, "mih"), ("entropy", "auto")):
        index = IndexDMIH(64, mode=mode)
        index.train(xb, strategy=strategy, n=1_000_000)
        assert index.partition == learn_partition(xb, 1_000_000, strategy or DEFAULT[mode], m=4)


def test_tables_are_of_the_learned_lengths() -> None:
    xb = weak()
    index = IndexDMIH(64)
    index.train(xb, strategy="entropy")
    index.add(xb)
    assert index.partition is not None
    assert index.cuts == index.partition.cuts
    assert len(set(index.partition.cuts)) > 1


def test_other_numbers_of_tables_than_learned_for_are_cut_evenly() -> None:
    xb = np.concatenate([weak(), ~weak()])
    index = make_index(64, "auto+probe")
    index.train(xb, strategy="entropy", n=10**9)
    index.add(xb)
    assert index.partition is not None
    assert len(index.partition.cuts) != len(index.cuts or ())
    assert_exact(index, xb, xb[:20], 5, 9)


def test_training_is_kept_and_taken_back() -> None:
    xb = copies()
    index = IndexDMIH(64)
    assert index.partition is None
    index.train(xb)
    learned = index.partition
    assert learned is not None
    assert index.is_trained
    index.add(xb)
    index.reset()
    assert index.partition == learned
    index.add(xb)
    assert_exact(index, xb, xb[:5], 5, 9)
    index.train(xb, strategy="contiguous")
    assert index.partition is None
    assert_exact(index, xb, xb[:5], 5, 9)


def test_there_is_nothing_to_learn_for_a_scan_or_from_nothing() -> None:
    scan, index = IndexDMIH(64, mode="scan"), IndexDMIH(64)
    scan.train(copies())
    index.train(copies()[:0])
    faiss.IndexBinaryIDMap(scan).train(copies())
    assert scan.partition is index.partition is None
    index.train(copies()[:1])
    index.add(copies())
    assert_exact(index, copies(), copies()[:5], 5, 9)


def test_training_refuses() -> None:
    index = IndexDMIH(64)
    shuffle_bits(index, 0)
    before = index.partition
    refused: list[tuple[Any, dict[str, Any], type[Exception], str | None]] = [
        (copies(), {"strategy": "best"}, ValueError, "unknown strategy 'best'"),
        (copies(), {"n": -1}, ValueError, "got n = -1, expected a number of codes"),
        (copies(), {"n": 2**32}, ValueError, r"at most 2\^32 - 1"),
        (copies()[:, :7], {}, AssertionError, None),
        (copies().astype(np.int8), {}, TypeError, None),
        (copies()[0], {}, ValueError, None),
    ]
    for x, options, error, match in refused:
        with pytest.raises(error, match=match):
            index.train(x, **options)
    assert index.partition == before


@pytest.mark.parametrize("mode", ["auto", "mih"])
def test_composites_train_what_they_hold(mode: str) -> None:
    """From C++, from FAISS's threads too; as from Python."""
    xb = copies(9000)
    alone = IndexDMIH(64, mode=mode)
    alone.train(xb)
    assert alone.partition is not None
    inner = [IndexDMIH(64, mode=mode) for _ in range(5)]
    id_map = faiss.IndexBinaryIDMap2(inner[0])
    shards, replicas = faiss.IndexBinaryShards(64, True), faiss.IndexBinaryReplicas(64, True)
    for index in inner[1:3]:
        shards.add_shard(index)
    for index in inner[3:]:
        replicas.addIndex(index)
    truth = flat(xb)
    for composite in (id_map, shards, replicas):
        composite.train(xb)
        if composite is id_map:
            composite.add_with_ids(xb, np.arange(len(xb)))
        else:
            composite.add(xb)
        assert_same(composite.search(xb[:50], 9), truth.search(xb[:50], 9))
    assert [index.partition for index in inner] == [alone.partition] * 5
    copy = faiss.clone_binary_index(id_map)
    assert faiss.downcast_IndexBinary(copy.index).partition == alone.partition
    assert_same(copy.search(xb[:50], 9), truth.search(xb[:50], 9))


def test_a_quantizer_may_be_trained() -> None:
    xb = copies(9000)
    answers = []
    for quantizer in (IndexDMIH(64), faiss.IndexBinaryFlat(64)):
        shuffle_bits(quantizer, 0) if isinstance(quantizer, IndexDMIH) else None
        ivf = faiss.IndexBinaryIVF(quantizer, 64, 20)
        ivf.train(xb)
        ivf.add(xb)
        ivf.nprobe = 5
        answers.append(ivf.search(xb[:50], 9))
    assert_same(*answers)


def test_what_learning_raises_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """And changes nothing; from a thread of FAISS's it is FAISS's error."""

    def refuse(task: Any) -> Any:
        raise MemoryError("not today")

    xb = copies()
    index, other = IndexDMIH(64), IndexDMIH(64)
    index.add(xb)
    shuffle_bits(index, 0)
    before = index.partition
    shards = faiss.IndexBinaryShards(64, True)
    shards.add_shard(index)
    shards.add_shard(other)
    monkeypatch.setitem(STRATEGIES, "cost", refuse)
    for train in (index.train, faiss.IndexBinaryIDMap2(IndexDMIH(64)).train):
        with pytest.raises(MemoryError, match="not today"):
            train(xb)
    with pytest.raises(RuntimeError, match="MemoryError: not today"):
        shards.train(xb)
    assert index.partition == before
    assert other.partition is None
    assert_exact(index, xb, xb[:5], 5, 9)


def test_ctrl_c_ends_learning() -> None:
    run("""
        xb = codes(20_000, 1024)
        index = faiss_dmih.IndexDMIH(1024)
        index.add(xb[:3000])
        by_id = faiss.IndexBinaryIDMap2(faiss_dmih.IndexDMIH(1024))
        for train in (index.train, by_id.train):
            assert_ctrl_c_ends(lambda: train(xb), within=1)
        assert index.partition is None
        assert_exact(index, xb[:3000], xb[:3])
    """)


def test_ctrl_c_ends_a_rearrangement() -> None:
    run("""
        xb = codes(2_000_000, 256)
        index = faiss_dmih.IndexDMIH(256)
        index.add(xb)
        order = np.random.default_rng(0).permutation(256).astype(np.int32)
        cuts = np.full(16, 16, np.int32)
        for delay in (0.02, 0.2):
            assert_ctrl_c_ends(lambda: faiss_dmih._engine.repartition(index, order, cuts), delay)
            assert index.partition is None
        assert (index.search(xb[:9], 1)[1].ravel() == np.arange(9)).all()
    """)


def test_searches_beside_training() -> None:
    """Each sees one order of bits or the other, never both."""
    run("""
        xb = codes(20_000)
        xb[:, 4:] = xb[:, :4]
        index = faiss_dmih.IndexDMIH(64)
        index.add(xb)
        expected = index.search(xb[:40], 5)
        ended = threading.Event()

        def train():
            for round in range(6):
                index.train(xb[:2000], strategy=("data-driven", "contiguous")[round % 2])
            ended.set()

        trainer = threading.Thread(target=train)
        trainer.start()
        searches = 0
        while not ended.is_set():
            for got, right in zip(index.search(xb[:40], 5), expected):
                np.testing.assert_array_equal(got, right)
            assert (index.reconstruct(7) == xb[7]).all()
            searches += 1
        trainer.join()
        assert searches > 0
    """)


def test_training_in_a_forked_child() -> None:
    run("""
        xb = codes(9000)
        xb[:, 4:] = xb[:, :4]
        index = faiss_dmih.IndexDMIH(64)
        index.add(xb)
        index.search(xb, 1)
        pid = os.fork()
        if pid == 0:
            index.train(xb, strategy="data-driven")
            assert index.partition is not None
            assert_exact(index, xb, xb[:9])
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert index.partition is None
    """)


def test_python_may_end_while_threads_learn() -> None:
    """The process ends, with its exit status, whatever daemon threads are at."""
    run("""
        xb = codes(20_000, 256)

        def train():
            while True:
                faiss.IndexBinaryIDMap2(faiss_dmih.IndexDMIH(256)).train(xb)

        for _ in range(3):
            threading.Thread(target=train, daemon=True).start()
        time.sleep(0.7)
    """)

"""An index written in Python: its errors, its lifetime, the ends of processes."""

from __future__ import annotations

import gc
import resource
import textwrap
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import scripts
from brute import Brute
from brutes import CASE, Refusal, as_faiss_sees, filled, make_shards
from checks import assert_same

from faiss_dmih import python_index, reference

# ---- errors

CALLS: dict[str, Callable[[Any], Any]] = {
    "train": lambda index: index.train(CASE.xb),
    "add": lambda index: index.add(CASE.xb),
    "search": lambda index: index.search(CASE.xq, 3),
    "range_search": lambda index: index.range_search(CASE.xq, 3),
    "reset": lambda index: index.reset(),
    "remove_ids": lambda index: index.remove_ids(np.arange(3)),
    "reconstruct": lambda index: index.reconstruct(3),
    "reconstruct_n": lambda index: index.reconstruct_n(3, 4),
}
ERRORS: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("so"),
    "MemoryError": MemoryError,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": lambda: SystemExit(3),
    "another": lambda: Refusal("ü", 1),
}


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("method", CALLS)
def test_an_error_arrives_as_it_is(method: str, kind: str) -> None:
    error = ERRORS[kind]()
    index = Brute(CASE.d)
    seen = as_faiss_sees(index)
    seen.add(CASE.xb)
    index.fail = error
    with pytest.raises(type(error)) as caught:
        CALLS[method](seen)
    assert caught.value is error
    index.fail = None
    assert seen.ntotal == CASE.n
    assert_same(seen.search(CASE.xq, 3), reference.knn(CASE.xb, CASE.xq, 3))


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("method", ["train", "add", "search", "reset"])
def test_an_error_on_a_thread_of_faiss(method: str, kind: str) -> None:
    error = ERRORS[kind]()
    index = Brute(CASE.d)
    replicas = faiss.IndexBinaryReplicas(CASE.d, True)
    replicas.addIndex(index)
    replicas.add(CASE.xb)
    index.fail = error
    text = type(error).__name__ + (f": {error}" if str(error) else "")
    with pytest.raises(RuntimeError) as caught:
        CALLS[method](replicas)
    assert str(caught.value) == text
    index.fail = None
    assert_same(replicas.search(CASE.xq, 3), reference.knn(CASE.xb, CASE.xq, 3))


def parts_of_shards(threaded: bool) -> tuple[list[Brute], Any]:
    parts = [Brute(CASE.d) for _ in range(3)]
    rest = iter(parts)
    return parts, make_shards(lambda d: next(rest), CASE.d, threaded, successive=True)


@pytest.mark.parametrize("method", ["train", "add", "search", "reset"])
@pytest.mark.parametrize("failing", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_errors_of_several_parts(failing: tuple[int, ...], method: str) -> None:
    """FAISS goes on with the other parts; the first error is the one that is raised."""
    parts, shards = parts_of_shards(threaded=False)
    if method != "add":  # shards take one add only
        shards.add(CASE.xb)
    for i in failing:
        parts[i].fail = Refusal(i)
    params = faiss.SearchParameters(sel=faiss.PyCallbackIDSelector(lambda i: i % 2 == 0))
    calls = CALLS | {"search": lambda index: index.search(CASE.xq, 3, params=params)}
    with pytest.raises(Refusal) as caught:
        calls[method](shards)
    assert caught.value is parts[failing[0]].fail
    failed, done = {"add": (0, 100), "reset": (100, 0)}.get(method, (100, 100))
    assert [part.ntotal for part in parts] == [failed if i in failing else done for i in range(3)]


@pytest.mark.parametrize("method", ["train", "add", "search", "reset"])
def test_errors_of_several_parts_on_threads_of_faiss(method: str) -> None:
    parts, shards = parts_of_shards(threaded=True)
    if method != "add":
        shards.add(CASE.xb)
    for i in (0, 2):
        parts[i].fail = Refusal(f"part {i}")
    with pytest.raises(RuntimeError, match=r"(?s)Refusal: part 0.*Refusal: part 2"):
        CALLS[method](shards)


def test_an_error_without_text() -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise ValueError

    replicas = faiss.IndexBinaryReplicas(CASE.d, True)
    index = Brute(CASE.d)
    replicas.addIndex(index)
    index.fail = Silent()
    with pytest.raises(RuntimeError, match=r"^Silent$"):
        replicas.add(CASE.xb)


class Faulty(Brute):
    """Returns `answer` from its method `method`."""

    def __init__(self, method: str, answer: Any) -> None:
        super().__init__(CASE.d)
        super().add(CASE.xb[:10])
        setattr(self, method, lambda *args, **options: answer)


def _d(*shape: int, dtype: Any = np.int32) -> np.ndarray:
    return np.zeros(shape, dtype)


def _i(*shape: int, dtype: Any = np.int64) -> np.ndarray:
    return np.zeros(shape, dtype)


def _lims(*limits: int, dtype: Any = np.uint64) -> np.ndarray:
    return np.array(limits, dtype)


FAULTS: dict[str, tuple[str, Any, str]] = {
    "no tuple": ("search", None, r"got a NoneType, expected \(D, I\)"),
    "a list": ("search", [_d(2, 3), _i(2, 3)], r"got a list, expected \(D, I\)"),
    "three arrays": ("search", (_d(2, 3),) * 3, r"got a tuple of 3, expected \(D, I\)"),
    "dtype of D": (
        "search",
        (_d(2, 3, dtype=np.int64), _i(2, 3)),
        r"D of search: got int64 \(2, 3\), expected int32 \(2, 3\)",
    ),
    "dtype of I": (
        "search",
        (_d(2, 3), _i(2, 3, dtype=np.int32)),
        r"I of search: got int32 \(2, 3\), expected int64 \(2, 3\)",
    ),
    "byte order": ("search", (_d(2, 3, dtype=">i4"), _i(2, 3)), r"got >i4 \(2, 3\), expected"),
    "shape of D": ("search", (_d(3, 2), _i(2, 3)), r"D of search: got int32 \(3, 2\)"),
    "shape of I": ("search", (_d(2, 3), _i(6)), r"I of search: got int64 \(6,\)"),
    "no array": ("search", ([[0] * 3] * 2, _i(2, 3)), "D of search: got a list"),
    "two arrays": ("range_search", (_d(0), _i(0)), r"got a tuple of 2, expected \(lims, D, I\)"),
    "dtype of lims": (
        "range_search",
        (_lims(0, 0, 0, dtype=np.int64), _d(0, dtype=np.float32), _i(0)),
        r"lims of range_search: got int64 \(3,\), expected uint64 \(3,\)",
    ),
    "too few limits": (
        "range_search",
        (_lims(0, 0), _d(0, dtype=np.float32), _i(0)),
        r"lims of range_search: got uint64 \(2,\), expected uint64 \(3,\)",
    ),
    "limits that fall": (
        "range_search",
        (_lims(0, 2, 1), _d(1, dtype=np.float32), _i(1)),
        "limits that are not ascending",
    ),
    "limits that do not start": (
        "range_search",
        (_lims(1, 1, 1), _d(1, dtype=np.float32), _i(1)),
        "not ascending from 0",
    ),
    "distances of range_search": (
        "range_search",
        (_lims(0, 1, 1), _d(1), _i(1)),
        r"D of range_search: got int32 \(1,\), expected float32 \(1,\)",
    ),
    "too few ids": (
        "range_search",
        (_lims(0, 1, 2), _d(2, dtype=np.float32), _i(1)),
        r"I of range_search: got int64 \(1,\), expected int64 \(2,\)",
    ),
    "codes": (
        "reconstruct_n",
        np.zeros((2, 7), np.uint8),
        r"reconstruct_n: got uint8 \(2, 7\), expected uint8 \(2, 8\)",
    ),
    "no number": ("remove_ids", None, "NoneType"),
    "nothing removed": ("remove_ids", 2, r"got 2, and ntotal went from 10 to 10; expected 2"),
    "another number": ("remove_ids", 3, r"got 3, and ntotal"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_index(fault: str) -> None:
    method, answer, message = FAULTS[fault]
    index = Faulty(method, answer)
    # Removing everything would end the process in FAISS's id maps, so not through one of these.
    replicas = faiss.IndexBinaryReplicas(CASE.d, False)
    replicas.addIndex(index)
    seen = replicas.at(0)
    call = {
        "search": lambda: seen.search(CASE.xq[:2], 3),
        "range_search": lambda: seen.range_search(CASE.xq[:2], 3),
        "reconstruct_n": lambda: seen.reconstruct_n(0, 2),
        "remove_ids": lambda: seen.remove_ids(np.arange(2)),
    }[method]
    with pytest.raises((TypeError, ValueError, RuntimeError), match=message) as caught:
        call()
    assert method == "remove_ids" or str(caught.value).startswith("Faulty: ")


def test_answers_of_other_strides() -> None:
    class Strided(Brute):
        def search(self, x: Any, k: int, *, mask: Any = None) -> Any:
            D, I = super().search(x, k, mask=mask)
            return np.asfortranarray(D), np.repeat(I, 2, axis=1)[:, ::2]

        def reconstruct_n(self, i0: int, ni: int) -> Any:
            return self.xb[i0 : i0 + ni][::-1][::-1]

    seen = as_faiss_sees(Strided(CASE.d))
    seen.add(CASE.xb)
    assert_same(seen.search(CASE.xq, 4), reference.knn(CASE.xb, CASE.xq, 4))
    assert_same([seen.reconstruct_n(3, 5)], [CASE.xb[3:8]])


# ---- lifetime


def composite_of(kind: str, d: int) -> Any:
    if kind == "shards":
        composite = faiss.IndexBinaryShards(d, True, True)
        composite.add_shard(Brute(d))
    elif kind == "replicas":
        composite = faiss.IndexBinaryReplicas(d, True)
        composite.addIndex(Brute(d))
    elif kind == "nested":
        inner = make_shards(Brute, d, True, successive=True)
        composite = faiss.IndexBinaryIDMap2(inner)
    else:
        composite = getattr(faiss, kind)(Brute(d))
    return composite


COMPOSITES = ("IndexBinaryIDMap", "IndexBinaryIDMap2", "shards", "replicas", "nested")


def registered() -> int:
    return len(python_index._indexes)


@pytest.mark.parametrize("kind", COMPOSITES)
def test_a_composite_keeps_its_index_for_as_long_as_it_is(kind: str) -> None:
    gc.collect()
    gc.disable()  # nothing here is a cycle
    try:
        before = registered()
        composite = composite_of(kind, CASE.d)
        if "IDMap" in kind or kind == "nested":
            composite.add_with_ids(CASE.xb, np.arange(CASE.n))
        else:
            composite.add(CASE.xb)
        found = composite.search(CASE.xq, 5)[0]
        np.testing.assert_array_equal(found, reference.knn(CASE.xb, CASE.xq, 5)[0])
        del composite
        assert registered() == before
    finally:
        gc.enable()


def test_an_index_is_freed_with_its_last_reference() -> None:
    index = filled()
    gone = weakref.ref(index)
    map_ = faiss.IndexBinaryReplicas(CASE.d)
    map_.addIndex(index)
    del map_
    assert gone() is index
    del index
    assert gone() is None


def orphan() -> Any:
    """A composite that owns the C++ object of an index whose Python object is gone."""
    index = Brute(CASE.d)
    map_ = faiss.IndexBinaryIDMap(index)
    map_.own_fields = True
    index.this.disown()
    del map_.referenced_objects
    return map_


def test_a_python_object_that_is_gone() -> None:
    map_ = orphan()
    with pytest.raises(ReferenceError, match="keep a reference to it"):
        map_.add_with_ids(CASE.xb, np.arange(CASE.n))
    with pytest.raises(ReferenceError, match="keep a reference to it"):
        map_.search(CASE.xq, 3)
    assert map_.ntotal == 0
    del map_


def test_an_index_given_away_while_its_python_object_is_kept() -> None:
    index = Brute(CASE.d)
    map_ = faiss.IndexBinaryIDMap(index)
    map_.own_fields = True
    index.this.disown()
    map_.add_with_ids(CASE.xb, np.arange(CASE.n))
    assert_same(map_.search(CASE.xq, 3), reference.knn(CASE.xb, CASE.xq, 3))
    del map_
    assert index.search(CASE.xq, 3)[0].shape == (CASE.nq, 3)


def test_the_last_reference_is_dropped_during_a_call() -> None:
    class Holder:
        index: Any

    class Fleeting(Brute):
        def search(self, x: Any, k: int, *, mask: Any = None) -> Any:
            del holder.index
            return super().search(x, k, mask=mask)

    holder = Holder()
    holder.index = Fleeting(CASE.d)
    gone = weakref.ref(holder.index)
    seen = faiss.IndexBinaryIDMap(holder.index).index
    assert (seen.search(CASE.xq, 2)[1] == -1).all()
    assert gone() is None


def memory() -> int:
    gc.collect()
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return resident_pages * resource.getpagesize()


@pytest.mark.parametrize("kind", ["plain", "orphan", *COMPOSITES[:3]])
def test_indexes_come_and_go_without_a_leak(kind: str) -> None:
    def cycle(times: int) -> None:
        for _ in range(times):
            if kind == "plain":
                Brute(CASE.d)
            elif kind == "orphan":
                orphan()
            else:
                composite_of(kind, CASE.d)

    cycle(500)
    before, objects = memory(), len(gc.get_objects())
    cycle(3000)
    assert memory() - before < 1 << 20
    assert len(gc.get_objects()) - objects < 100


def test_calls_leave_nothing_behind() -> None:
    """Arguments, answers and errors: each call has some 100 KB of one of them."""
    xb = np.random.default_rng(0).integers(0, 256, (2000, 64), dtype=np.uint8)

    class Big(Brute):
        def train(self, x: Any) -> None:
            raise ValueError("x" * 100_000)

    index = Big(512)
    seen = as_faiss_sees(index)
    params = faiss.SearchParameters(sel=faiss.IDSelectorAll())
    replicas = faiss.IndexBinaryReplicas(512, True)
    replicas.addIndex(index)

    def cycle() -> None:
        seen.add(xb)
        seen.search(xb[:4], 2000, params=params)
        seen.range_search(xb[:4], 513, params=params)
        seen.reconstruct_n(0, 2000)
        for composite in (seen, replicas):
            with pytest.raises((ValueError, RuntimeError)):
                composite.train(xb)
        seen.remove_ids(faiss.IDSelectorAll())

    for _ in range(5):
        cycle()
    before = memory()
    for _ in range(100):
        cycle()
    assert memory() - before < 4 << 20


# ---- processes

SETUP = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from brute import Brute
xb = codes(300)
"""


def run(script: str) -> list[str]:
    return scripts.run(SETUP + textwrap.dedent(script)).split()


COMPOSITE = {
    "plain": "index = Slow(64); composite = faiss.IndexBinaryIDMap(index).index",
    "map": "composite = faiss.IndexBinaryIDMap(Slow(64))",
    "shards": "composite = faiss.IndexBinaryShards(64, False, True)\n"
    "for _ in range(2): composite.add_shard(Slow(64))",
    "threaded shards": "composite = faiss.IndexBinaryShards(64, True, True)\n"
    "for _ in range(2): composite.add_shard(Slow(64))",
}
STAY = {
    "waiting": "time.sleep(0.05)",
    "running": "sum(range(1000))",
}


@pytest.mark.parametrize("stay", STAY)
@pytest.mark.parametrize("kind", COMPOSITE)
def test_exit_while_a_thread_is_inside(kind: str, stay: str) -> None:
    out = run(
        f"""
class Slow(Brute):
    def search(self, x, k, *, mask=None):
        inside.set()
        while True:
            {STAY[stay]}

inside = threading.Event()
{COMPOSITE[kind]}
threading.Thread(target=lambda: composite.search(xb, 5), daemon=True).start()
assert inside.wait(timeout=30)
time.sleep(0.1)
print("done")
"""
    )
    assert out == ["done"]


@pytest.mark.parametrize("kind", COMPOSITE)
def test_exit_while_threads_come_in(kind: str) -> None:
    """Many short calls: the end meets them anywhere."""
    out = run(
        f"""
class Slow(Brute):
    pass

{COMPOSITE[kind]}

def search():
    while True:
        composite.search(xb, 5)
        started.set()

started = threading.Event()
for _ in range(3):
    threading.Thread(target=search, daemon=True).start()
assert started.wait(timeout=30)
print("done")
"""
    )
    assert out == ["done"]


def test_exit_while_a_thread_drops_indexes() -> None:
    out = run("""
        def make():
            while True:
                map_ = faiss.IndexBinaryIDMap(Brute(64))
                started.set()

        started = threading.Event()
        for _ in range(3):
            threading.Thread(target=make, daemon=True).start()
        assert started.wait(timeout=30)
        print("done")
    """)
    assert out == ["done"]


def test_fork() -> None:
    out = run("""
        faiss.omp_set_num_threads(1)  # a child has none of the threads that FAISS's loops wait for
        index = faiss.IndexBinaryIDMap2(Brute(64))
        index.add_with_ids(xb, np.arange(300))
        assert_exact(index, xb, xb[:20])
        pid = os.fork()
        index.add_with_ids(xb, np.arange(300, 600))
        assert_exact(index, np.concatenate([xb, xb]), xb[:20])
        shards = faiss.IndexBinaryShards(64, True, True)
        for _ in range(2):
            shards.add_shard(Brute(64))
        shards.add(xb)
        assert (shards.search(xb, 1)[0] == 0).all()
        if pid == 0:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print("done")
    """)
    assert out == ["done"]


def test_ctrl_c() -> None:
    out = run("""
        class Slow(Brute):
            def search(self, x, k, *, mask=None):
                threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
                time.sleep(20)

        signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
        index = faiss.IndexBinaryIDMap(Slow(64))
        try:
            index.search(xb, 5)
        except KeyboardInterrupt:
            print("interrupted")
        index.add_with_ids(xb, np.arange(300))
        print(index.ntotal)
    """)
    assert out == ["interrupted", "300"]


def test_a_deleted_index_at_exit() -> None:
    """The interpreter takes its modules apart in any order."""
    out = run("""
        class Late:
            def __del__(self):
                try:
                    self.map.search(xb, 5)
                except BaseException as error:
                    print(type(error).__name__)

        late = Late()
        late.map = faiss.IndexBinaryIDMap(Brute(64))
        late.me = late
        sys.late = late
        print("done")
    """)
    assert out[:1] == ["done"]


def test_searches_of_python_s_threads_and_faiss_s() -> None:
    """Together, and Python's lock goes round."""
    shards = make_shards(Brute, CASE.d, True, successive=True)
    shards.add(CASE.xb)
    expected = reference.knn(CASE.xb, CASE.xq, 5)[0]
    together = threading.Barrier(4)

    def search(_: int) -> None:
        together.wait(timeout=30)
        for _ in range(20):
            np.testing.assert_array_equal(shards.search(CASE.xq, 5)[0], expected)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(search, range(4)))

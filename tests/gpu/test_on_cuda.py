"""Arrays of CuPy, torch and others on a GPU, on streams of their own."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from checks import assert_knn, assert_same
from strategies import Case

from faiss_dmih import reference
from faiss_dmih.gpu import GpuIDMap, GpuIndexDMIH, GpuShards

pytestmark = pytest.mark.gpu

CASE = Case(d=64, n=5000, nq=20, kind="clustered", seed=1)
MASK = np.arange(CASE.n) % 3 > 0
NEAREST = reference.knn(CASE.xb, CASE.xq, 7)
WITHIN = reference.range_search(CASE.xb, CASE.xq, 12)


@pytest.fixture(params=["default", "blocking", "non-blocking"])
def stream(request: pytest.FixtureRequest, cupy: Any) -> Any:
    if request.param == "default":
        return nullcontext()
    return cupy.cuda.Stream(non_blocking=request.param == "non-blocking")


def filled(codes: Any) -> GpuIndexDMIH:
    index = GpuIndexDMIH(CASE.d)
    index.add(codes)
    index.compact()
    return index


@pytest.mark.parametrize("engine", ["auto", "scan", "probe"])
def test_arrays_of_cupy(cupy: Any, stream: Any, engine: str) -> None:
    with stream:
        xq, mask = cupy.asarray(CASE.xq), cupy.asarray(MASK)
        index = filled(cupy.asarray(CASE.xb))
        index.force_engine(engine)
        for k in (7, 3000):
            D, I = index.search(xq, k)
            assert isinstance(D, cupy.ndarray)
            assert_same((D.get(), I.get()), reference.knn(CASE.xb, CASE.xq, k))
            found = index.search(xq, k, mask=mask)
            expected = reference.knn(CASE.xb, CASE.xq, k, mask=MASK)
            assert_same(tuple(x.get() for x in found), expected)
        for queries, radius in ((xq, 12), (xq ^ np.uint8(255), 1), (xq[:0], 12)):
            found = index.range_search(queries, radius)
            expected = reference.range_search(CASE.xb, queries.get(), radius)
            assert_same(tuple(x.get() for x in found), expected)
        assert index.remove_ids(cupy.arange(10, dtype=np.uint8)) == 10
        assert_knn(index, CASE.xb[10:], CASE.xq, 7)


def test_only_the_array_interface(cupy: Any) -> None:
    xq = cupy.asarray(CASE.xq)
    like_numba = SimpleNamespace(__cuda_array_interface__=xq.__cuda_array_interface__)
    D, I = filled(CASE.xb).search(like_numba, 7)
    assert_same((D.get(), I.get()), NEAREST)


def test_each_on_a_stream_of_its_own(cupy: Any) -> None:
    """Nobody waits on the host: what is read is there all the same, and what is freed is not yet
    written over."""
    adding, searching, other = (cupy.cuda.Stream(non_blocking=True) for _ in range(3))
    busy = cupy.zeros(1 << 26, np.float32)
    codes, xq = cupy.empty(CASE.xb.shape, np.uint8), cupy.asarray(CASE.xq)
    xb = cupy.asarray(CASE.xb)
    cupy.cuda.Device().synchronize()

    def keep_busy() -> None:
        for _ in range(20):
            busy[:] = busy + 1

    index = GpuIndexDMIH(CASE.d)
    found = []
    for _ in range(3):
        with adding:
            keep_busy()
            codes[:] = xb
            index.reset()
            index.add(codes)
            codes[:] = 0
        with searching:
            keep_busy()
            found.append(index.search(xq, 7))
    del index
    with other:
        rubbish = cupy.full(1 << 24, 255, np.uint8)
    cupy.cuda.Device().synchronize()
    assert rubbish.all()
    for D, I in found:
        assert_same((D.get(), I.get()), NEAREST)


def test_pinned_memory_is_the_callers_again(cupy: Any) -> None:
    memory = cupy.cuda.alloc_pinned_memory(CASE.xb.nbytes)
    codes = np.frombuffer(memory, np.uint8, CASE.xb.size).reshape(CASE.xb.shape)
    codes[:] = CASE.xb
    index = GpuIndexDMIH(CASE.d)
    index.add(codes)
    codes[:] = 0
    assert_knn(index, CASE.xb, CASE.xq, 7)


@pytest.mark.parametrize("kind", [GpuIndexDMIH, lambda d: GpuShards(d, [0, 0])])
def test_tensors(cupy: Any, kind: Any) -> None:
    torch = pytest.importorskip("torch", reason="no torch", exc_type=ImportError)
    if not torch.cuda.is_available():
        pytest.skip("this torch knows no GPU")

    def there(x: Any) -> Any:
        return torch.from_numpy(x).cuda()

    for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
        with torch.cuda.stream(stream):
            index = kind(CASE.d)
            wide = torch.zeros((CASE.n, 11), dtype=torch.uint8, device="cuda")
            wide[:, 3:] = there(CASE.xb)
            index.add(wide[:, 3:])
            wide.zero_()
            index.compact()
            D, I = index.search(there(CASE.xq), 7)
            assert (D.is_cuda, D.dtype, I.dtype) == (True, torch.int32, torch.int64)
            assert_same((D.cpu().numpy(), I.cpu().numpy()), NEAREST)
            expected = reference.knn(CASE.xb, CASE.xq, 7, mask=MASK)
            found = index.search(there(CASE.xq), 7, mask=there(MASK))
            assert_same(tuple(x.cpu().numpy() for x in found), expected)
            lims, D, I = index.range_search(there(CASE.xq), 12)
            assert (lims.dtype, D.dtype, I.dtype) == (torch.int64, torch.float32, torch.int64)
            found = lims.cpu().numpy().astype(np.uint64), D.cpu().numpy(), I.cpu().numpy()
            assert_same(found, WITHIN)
            assert index.range_search(~there(CASE.xq), 1)[2].shape == (0,)
            with pytest.raises(TypeError, match="got dtype"):
                index.search(there(CASE.xq).float().requires_grad_(), 7)
            assert_same(index.search(torch.from_numpy(CASE.xq), 7), NEAREST)
            assert index.remove_ids(there(np.arange(10))) == 10


def test_ids_on_the_device(cupy: Any) -> None:
    index = GpuIDMap(GpuIndexDMIH(CASE.d))
    index.add_with_ids(cupy.asarray(CASE.xb), cupy.arange(CASE.n) + 50)
    D, I = index.search(cupy.asarray(CASE.xq), 7)
    assert_same((D.get(), I.get()), (NEAREST[0], NEAREST[1] + 50))
    assert index.remove_ids(cupy.arange(60)) == 10

"""Scans on tensor cores, over the CPU executor: every length of code, edges of tiles, fallbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import assert_knn, assert_range, assert_same
from devices import UNSANITIZED, StrictDevice, examples
from hypothesis import given
from hypothesis import strategies as st
from shim import ShimLauncher
from strategies import CODES, Case, ks, radii

import faiss_dmih
from faiss_dmih import reference
from faiss_dmih.gpu import GpuIndexDMIH, knn, tensor
from faiss_dmih.gpu import index as index_module
from faiss_dmih.gpu.kernels import Kernel, Launcher
from faiss_dmih.gpu.tensor import IMMA, MMA, Scanner, TensorCores

SIZES = (1, 7, 9, 127, 129, 255, 257, 300)
BATCHES = (1, 17, 63, 65, 127, 129)


def with_tensor_cores(device: Any, scanner: Scanner, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The device as one whose best scan this is."""
    monkeypatch.setattr(tensor, "TENSOR", (scanner,))
    if not isinstance(device, StrictDevice):
        if device.compute_capability not in scanner.capabilities:
            pytest.skip(f"{scanner.name} is not for {device.compute_capability}")
    else:
        device.compute_capability = 120 if scanner is IMMA else 90
        device.shared_memory = 99 * 1024 if scanner is IMMA else 227 * 1024
        # That it is right is what these tests are about.
        monkeypatch.setattr(tensor, "_found_wrong", lambda *_: "")
    return device


@pytest.fixture(params=tensor.TENSOR, ids=lambda scanner: scanner.name)
def scanner(request: pytest.FixtureRequest) -> Scanner:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def cores(gpu: Any, scanner: Scanner, monkeypatch: pytest.MonkeyPatch) -> Any:
    return with_tensor_cores(gpu, scanner, monkeypatch)


def filled(case: Case, *, lists: bool) -> GpuIndexDMIH:
    index = GpuIndexDMIH(case.d, mode="auto" if lists else "scan")
    index.add(case.xb[: case.n // 2])
    if lists:
        index.compact()
    index.add(case.xb[case.n // 2 :])
    index.force_engine("tensor")
    return index


@st.composite
def problems(draw: st.DrawFn) -> Case:
    d = draw(st.sampled_from([8, 64, 72, 128, 136, 256, 512, 1024]))
    n, nq = draw(st.sampled_from(SIZES)), draw(st.sampled_from(BATCHES))
    return Case(
        d, n, min(nq, max(1, (1 << 22) // (n * d))), draw(st.sampled_from(sorted(CODES))), 0
    )


@UNSANITIZED
@examples(0.35)
@given(case=problems(), lists=st.booleans(), data=st.data())
def test_exact(cores: Any, case: Case, lists: bool, data: st.DataObject) -> None:
    index = filled(case, lists=lists)
    k, radius = data.draw(ks(case.n)), data.draw(radii(case.d))
    assert_knn(index, case.xb, case.xq, k)
    assert_range(index, case.xb, case.xq, radius)
    mask = np.random.default_rng(1).random(case.n) < 0.4
    expected = reference.knn(case.xb, case.xq, k, mask=mask)
    assert_same(index.search(case.xq, k, mask=mask), expected)


EDGES = [
    # d, n, nq: queries and rows in every place of a tile, and beyond it.
    *(("uniform", d, 300, 130) for d in (8, 64, 72, 136)),
    ("uniform", 128, 513, 129),
    ("duplicates", 256, 520, 65),
    ("all equal", 64, 700, 5),
    ("few bits", 512, 257, 70),
    ("complements", 1024, 130, 20),
    ("uniform", 4096, 140, 40),
    ("uniform", 64, 5300, 9),  # more tiles in a share than stages
]


@UNSANITIZED
@pytest.mark.parametrize(("kind", "d", "n", "nq"), EDGES)
def test_edges(cores: Any, kind: str, d: int, n: int, nq: int) -> None:
    """One neighbour, all of them, and more; among ties the smallest ids; some in a tail."""
    case = Case(d, n, nq, kind, seed=d)
    index = filled(case, lists=kind == "duplicates")
    for k in (1, 10, n + 3):
        assert_knn(index, case.xb, case.xq, k)
    middle = int(np.median(reference.knn(case.xb, case.xq, n // 2)[0][:, -1]))
    assert_range(index, case.xb, case.xq, middle)


def test_distances_from_0_to_d(cores: Any) -> None:
    """A code for each distance of each query: every column of a tile, every bit of the codes."""
    d = 136
    xq = np.random.default_rng(d).integers(0, 256, (9, d // 8), dtype=np.uint8)
    flipped = np.packbits(np.tri(d + 1, d, -1, dtype=np.uint8), axis=1, bitorder="little")
    xb = np.concatenate([xq[3] ^ flipped, xq[8] ^ flipped[::-1]])
    index = GpuIndexDMIH(d, mode="scan")
    index.add(xb)
    index.force_engine("tensor")
    for radius in (1, 2, 33, d // 2, d, d + 1):
        assert_same(index.range_search(xq, radius), reference.range_search(xb, xq, radius))


class Naive:
    """The scans by their shortest way."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def kernel(self, file: str, name: str, **defines: int) -> Kernel:
        return self._launcher.kernel(file, f"{name}_naive" if file == name else name, **defines)


@UNSANITIZED
@pytest.mark.parametrize("scanner", [MMA, IMMA], ids=lambda scanner: scanner.name)
def test_the_naive_scan_is_right_too(
    gpu: Any, scanner: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_tensor_cores(gpu, scanner, monkeypatch)
    for d in (8, 64, 136, 256):
        case = Case(d, 130, 33, "clustered", seed=1)
        index = filled(case, lists=False)
        gpu.launcher, launcher = Naive(gpu.launcher), gpu.launcher
        try:
            assert_range(index, case.xb, case.xq, d // 2)
        finally:
            gpu.launcher = launcher


@pytest.mark.parametrize("kInt8", [0, 1])
@pytest.mark.parametrize("words", [1, 2, 3, 5])
def test_accumulators_are_distances(launcher: Launcher, words: int, kInt8: int) -> None:
    """Were they smaller, only time would be lost, and no answer."""
    rng = np.random.default_rng(words)
    xq, xb = (rng.integers(0, 2**64, (n, words), dtype=np.uint64) for n in (16, 8))
    xb[:2] = xq[3], ~xq[4]
    out = np.full((16, 8), -1, np.int32)
    kernel = launcher.kernel(
        str(Path(__file__).parent / "kernels" / "accumulators"),
        "accumulators",
        kWords=words if words < 3 else 0,
        kInt8=kInt8,
    )
    kernel((1,), (32,), (xq, xb, np.int32(words), np.arange(16, dtype=np.uint32), out))
    bits = np.bitwise_xor(xq[:, None], xb[None])
    expected = np.unpackbits(bits.view(np.uint8), axis=2).sum(axis=2, dtype=np.int32)
    np.testing.assert_array_equal(out, expected)


def test_many_shares_of_work(cores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that go from queries to queries, and rings that go round; queries short of room."""
    for name, value in (("ROOM", 4), ("ROOM_PER_K", 1), ("ROOM_OF_BATCH", 0), ("SAMPLE", 256)):
        monkeypatch.setattr(knn, name, value)
    case = Case(72, 1600, 300, "clustered", seed=2)
    index = filled(case, lists=False)
    assert_knn(index, case.xb, case.xq, 3)


def test_what_probing_leaves(cores: Any) -> None:
    """The planner's choice, and queries that are done already."""
    case = Case(64, 2500, 140, "clustered", seed=3)
    index = filled(case, lists=True)
    index.force_engine("auto")
    faiss_dmih.reset_stats()
    assert_knn(index, case.xb, case.xq, 3)
    assert_range(index, case.xb, case.xq, 12)
    assert_knn(index, case.xb, case.xq[:3], 3)
    engine = cores_name(cores, index)
    assert faiss_dmih.stats()["gpu"]["queries"][engine] >= 140


def cores_name(cores: Any, index: GpuIndexDMIH) -> str:
    found = cores.tensor_cores.scanner(cores, index._store, "knn")
    return found.name.removeprefix("scan_")  # type: ignore[no-any-return]


# Which scan it is, and why it is none.


@pytest.fixture
def shim(shim_cache: Path, monkeypatch: pytest.MonkeyPatch) -> StrictDevice:
    device = StrictDevice(ShimLauncher(shim_cache, seed=3))
    device.compute_capability = 90
    device.shared_memory = 227 * 1024
    monkeypatch.setattr(index_module, "open_device", lambda number: device)
    faiss_dmih.reset_stats()
    return device


CASE = Case(64, 300, 40, "uniform", seed=4)


def index_of_case(engine: str) -> GpuIndexDMIH:
    index = GpuIndexDMIH(CASE.d, mode="scan")
    index.add(CASE.xb)
    index.force_engine(engine)
    return index


def started(shim: StrictDevice) -> set[str]:
    names = {name for name in shim.launcher.started if name.startswith("scan_")}
    shim.launcher.started.clear()
    return names - {"scan_sample"}


def test_it_is_compared_before_it_is_used(shim: StrictDevice) -> None:
    index = index_of_case("auto")
    assert_knn(index, CASE.xb, CASE.xq, 3)
    assert started(shim) == {"scan_knn", "scan_wgmma_knn"}
    assert_knn(index, CASE.xb, CASE.xq, 3)
    assert started(shim) == {"scan_wgmma_knn"}
    assert_range(index, CASE.xb, CASE.xq, 20)
    assert started(shim) == {"scan_range", "scan_wgmma_range"}
    assert_knn(index, CASE.xb, CASE.xq[:2], 3)  # so few do not pay
    assert started(shim) == {"scan_knn"}
    assert faiss_dmih.stats()["gpu"] == {"queries": {"wgmma": 120, "popc": 2}}


class Wrong:
    """A launcher whose kernels of some files are wrong, or cannot be had."""

    def __init__(self, launcher: Any, files: tuple[str, ...], why: str) -> None:
        self._launcher, self._files, self._why = launcher, files, why

    def kernel(self, file: str, name: str, **defines: int) -> Kernel:
        if not file.startswith(self._files):
            return self._launcher.kernel(file, name, **defines)  # type: ignore[no-any-return]
        if self._why:
            raise RuntimeError(self._why)
        return lambda *_, **__: None


@pytest.mark.parametrize(("why", "said"), [("", "its answers differ"), ("no wgmma\nat all", "")])
def test_one_that_is_wrong_is_not_used(shim: StrictDevice, why: str, said: str) -> None:
    shim.launcher, launcher = Wrong(shim.launcher, ("scan_wgmma",), why), shim.launcher
    index = index_of_case("auto")
    with pytest.warns(
        RuntimeWarning, match=f"scan_wgmma_knn is not used .*{said or 'no wgmma / at'}"
    ):
        assert_knn(index, CASE.xb, CASE.xq, 3)
    launcher.started.clear()
    assert_knn(index, CASE.xb, CASE.xq, 3)  # without a word
    assert {name for name in launcher.started if "scan_" in name} == {"scan_mma_knn"}
    assert faiss_dmih.stats()["gpu"]["queries"] == {"mma": 80}
    shim.launcher = Wrong(launcher, ("scan_wgmma", "scan_mma"), why)
    shim.tensor_cores = TensorCores()
    with pytest.warns(RuntimeWarning) as warned:
        assert_knn(index, CASE.xb, CASE.xq, 3)
    assert len(warned) == 2
    (where, reason) = next(iter(faiss_dmih.stats()["gpu"]["not_on_tensor_cores"].items()))
    assert where == "device 0, rows of 1 words"
    assert "scan_wgmma: " in reason
    assert "scan_mma: " in reason
    index.force_engine("tensor")
    with pytest.raises(RuntimeError, match="the engine 'tensor' cannot be used: scan_wgmma: "):
        index.search(CASE.xq, 3)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        (75, "scan_knn"),
        (80, "scan_mma_knn"),
        (100, "scan_imma_knn"),
        (103, "scan_knn"),
        (121, "scan_imma_knn"),
    ],
)
def test_other_devices(shim: StrictDevice, capability: int, expected: str) -> None:
    shim.compute_capability = capability
    case = Case(64, 300, 70, "uniform", seed=4)
    index = index_of_case("auto")
    index.search(case.xq, 3)
    shim.launcher.started.clear()
    assert_knn(index, case.xb, case.xq, 3)
    assert started(shim) == {expected}
    if expected == "scan_knn":
        index.force_engine("tensor")
        needs = (
            f"scan_wgmma: needs compute capability 90, and this is {capability}; .*"
            f"scan_imma: needs .* 100 or later, other than 103, and this is {capability}"
        )
        with pytest.raises(RuntimeError, match=needs):
            index.search(CASE.xq, 3)


def test_long_rows_need_shared_memory(shim: StrictDevice) -> None:
    shim.shared_memory = 64 * 1024
    index = GpuIndexDMIH(4096, mode="scan")
    index.add(np.zeros((3, 512), np.uint8))
    index.force_engine("tensor")
    with pytest.raises(RuntimeError, match="163840 bytes of shared memory, and there are 65536"):
        index.search(np.zeros((1, 512), np.uint8), 1)

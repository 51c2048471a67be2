"""Every kernel is compiled for every architecture, without a warning and without local memory."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import nvrtc
import pytest

from faiss_dmih.gpu import kernels

KERNELS = Path(__file__).parent / "kernels"

# On the platforms that the dev extra names a missing wheel is an error, not a skip.
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="NVIDIA has no NVRTC wheel for this platform",
)


def check(name: str, architecture: str) -> None:
    for defines in kernels.instantiations(name):
        text = kernels.source(name, defines)
        cubin, log = nvrtc.compile_cubin(text, architecture)
        assert log == "", f"{name} {defines} {architecture}"
        used = nvrtc.usage(cubin)
        assert used.keys() == kernels.kernels_in(text).keys()
        for kernel, needs in used.items():
            assert needs.registers > 0
            assert needs.local == 0, f"{name} {kernel} {defines} {architecture}: {needs}"
        if name in TENSOR:
            check_products(name, cubin, architecture)


def check_products(name: str, cubin: bytes, architecture: str) -> None:
    """They are instructions, which nothing emulates."""
    if not nvrtc.has_disassembler():
        pytest.skip("no wheel of nvdisasm")
    names = {found.split(".")[0] for found in nvrtc.instructions(nvrtc.disassembly(cubin))}
    products = "BGMMA" if "wgmma" in name else "IMMA" if "imma" in name else "BMMA"
    assert {"BGMMA", "BMMA", "IMMA"} & names == {products}
    of_three = architecture in ("sm_90", "sm_90a", "sm_100")
    assert ("VIMNMX3" in names) == (name.startswith("scan") and of_three)
    assert not {"LDL", "STL"} & names


@pytest.mark.parametrize(
    ("name", "architecture"),
    [(name, arch) for name in kernels.files() for arch in nvrtc.architectures(name)],
)
def test_kernels(name: str, architecture: str) -> None:
    check(name, architecture)


TENSOR = [name for name in kernels.files() if "mma" in name]


def test_other_architectures_are_left_out() -> None:
    """Files for tensor cores name theirs; newer ones emulate 1-bit products, older have none."""
    assert len(TENSOR) == 9
    for name in TENSOR:
        by_warp = ("sm_80", "sm_86", "sm_89", "sm_90")
        others = ("sm_100", "sm_120") if "imma" in name else by_warp
        assert kernels.architectures(name) == (("sm_90a",) if "wgmma" in name else others)
    with pytest.raises(RuntimeError, match=r"not supported on .target 'sm_90'"):
        nvrtc.compile_cubin(kernels.source("scan_wgmma_knn", {"kWords": 1}), "sm_90")


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
def test_the_kernels_of_the_shims_tests_are_cuda(architecture: str) -> None:
    check(str(KERNELS / "sound"), architecture)


STACK = """
extern "C" __global__ void stack(const int* in, int* out, int n) {
    int values[64];
    for (int i = 0; i < n; i++) values[in[i] & 63] = in[i];
    out[threadIdx.x] = values[n & 63];
}
"""
SPILL = """
extern "C" __global__ void __launch_bounds__(1024) spill(const float* in, float* out) {
    float values[96];
    #pragma unroll
    for (int i = 0; i < 96; i++) values[i] = in[i * 1024 + threadIdx.x];
    __syncthreads();
    #pragma unroll
    for (int i = 0; i < 96; i++) out[i * 1024 + threadIdx.x] = values[i] * values[(i + 1) % 96];
}
"""


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
@pytest.mark.parametrize("text", [STACK, SPILL], ids=["stack", "spill"])
def test_local_memory_is_seen(text: str, architecture: str) -> None:
    ((_, used),) = nvrtc.usage(nvrtc.compile_cubin(text, architecture)[0]).items()
    assert used.local > 0
    assert used.registers > 0


def test_registers_and_shared_memory_are_read() -> None:
    text = """
    extern "C" __global__ void f(int* out) {
        __shared__ int words[100];
        words[threadIdx.x % 100] = out[threadIdx.x];
        __syncthreads();
        out[threadIdx.x] = words[99 - threadIdx.x % 100];
    }
    """
    used = nvrtc.usage(nvrtc.compile_cubin(text, "sm_80")[0])["f"]
    assert used.shared == 400
    assert 4 <= used.registers <= 32


def test_warnings_are_seen(tmp_path: Path) -> None:
    (tmp_path / "w.cu").write_text('extern "C" __global__ void f(int* out) { int unused; }')
    with pytest.raises(AssertionError, match="never referenced"):
        check(str(tmp_path / "w"), "sm_80")


def test_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "e.cuh").write_text("\n\nint x = ;\n")
    (tmp_path / "e.cu").write_text('#include "e.cuh"\n')
    with pytest.raises(RuntimeError, match=rf"{tmp_path}/e.cuh\(3\): error"):
        check(str(tmp_path / "e"), "sm_80")

"""The launchers that every kernel is tested on: the shim by two seeds and sanitized, and a GPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from devices import StrictDevice
from shim import ShimLauncher

from faiss_dmih.gpu import index, kernels
from faiss_dmih.gpu.device import CudaDevice


class OverNumpy:
    """A CUDA launcher that takes NumPy arrays: copied there and back."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._launcher = kernels.CudaLauncher()

    def kernel(self, file: str, name: str, **defines: int) -> kernels.Kernel:
        here = self._cupy.cuda.Device().compute_capability
        written_for = {arch.rstrip("a") for arch in kernels.architectures(file)}
        if written_for and f"sm_{here}" not in written_for:
            pytest.skip(f"{file} is not for compute capability {here}")
        compiled = self._launcher.kernel(file, name, **defines)

        def launch(
            grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared: int = 0
        ) -> None:
            there = [self._cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in args]
            compiled(grid, block, tuple(there), shared=shared)
            for here, copy in zip(args, there, strict=True):
                if isinstance(here, np.ndarray) and here.flags.writeable:
                    here[...] = copy.get()

        return launch


@pytest.fixture(scope="session")
def cupy() -> Any:
    module = pytest.importorskip("cupy", reason="no CuPy, so no GPU", exc_type=ImportError)
    try:
        module.cuda.Device().use()
    except module.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no GPU: {error}")
    if "DMIH_NO_POOL" in os.environ:  # so that a sanitizer sees where each array ends
        module.cuda.set_allocator(None)
    return module


@pytest.fixture(scope="session")
def shim_cache(request: pytest.FixtureRequest) -> Path:
    """Outlives the session: what is found there is named by all that it was compiled from."""
    return Path(request.config.cache.mkdir("shim"))


@pytest.fixture(
    scope="session",
    params=["seed 1", "seed 2", "sanitized", pytest.param("cuda", marks=pytest.mark.gpu)],
)
def launcher(request: pytest.FixtureRequest, shim_cache: Path) -> kernels.Launcher:
    if request.param == "sanitized":
        return ShimLauncher(shim_cache, sanitize=True)
    if request.param.startswith("seed"):
        return ShimLauncher(shim_cache, seed=int(request.param[5:]))
    return OverNumpy(request.getfixturevalue("cupy"))


@pytest.fixture
def gpu(launcher: kernels.Launcher, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The device that GpuIndexDMIH is on: NumPy's arrays and the launcher's kernels, or a GPU."""
    device = CudaDevice(0) if isinstance(launcher, OverNumpy) else StrictDevice(launcher)
    monkeypatch.setattr(index, "open_device", lambda number: device)
    return device

"""Sources of the CUDA kernels, and how they are launched.

A kernel file `cuda/<name>.cu` holds `extern "C" __global__` functions. What it is compiled with is
written in its first lines, one combination of macros for each choice of values:

    // compile: kWords=0,1,2,4 kMode=0,1

Several such lines add up; without one, the file is compiled once, without macros. Only what is
declared can be launched, because only that is compiled for every architecture by the tests. A file
that only some architectures have the instructions for names them there:

    // arch: sm_80 sm_90a

An `a` means that the instructions are of that very architecture and no later one, and that the
compiler must be told.

Headers are included with quotes, relative to the file that includes them. There are no others:
NVRTC comes without the standard library.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Protocol

_INCLUDE = re.compile(r'\s*#\s*include\s*"([^"]+)"')
_PRAGMA_ONCE = re.compile(r"\s*#\s*pragma\s+once\b")
_COMPILE = re.compile(r"//\s*compile:(.*)")
_ARCH = re.compile(r"//\s*arch:(.*)")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_KERNEL = re.compile(
    r"__global__\s+void\s+"
    r"(?:__launch_bounds__\s*\((?P<bounds>[^(),]+)(?:,[^()]*)?\)\s*)?(?P<name>\w+)\s*\("
)


class Kernel(Protocol):
    """A compiled kernel."""

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        *,
        shared: int = 0,
    ) -> None:
        """Start it on one to three dimensions of blocks and threads.

        `args` are arrays and NumPy scalars (`np.int32(3)`) of the types of the kernel's
        parameters: nothing is converted. `shared` is a block's dynamic shared memory in bytes.
        """


class Launcher(Protocol):
    """Compiles kernels and starts them: on a GPU, or in tests on the CPU."""

    def kernel(self, file: str, name: str, **defines: int) -> Kernel:
        """The kernel `name` of `<file>.cu`, compiled with these macros."""


def folder() -> Path:
    """Where the CUDA sources are: in the package when installed, beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed, checkout = package / "_cuda", package.parent / "cuda"
    for place in (installed, checkout):
        if place.is_dir():
            return place
    raise FileNotFoundError(
        f"the CUDA sources are neither in {installed} nor in {checkout}: install faiss-dmih anew"
    )


def files() -> list[str]:
    """The names that `source` and `Launcher.kernel` take."""
    return sorted(path.stem for path in folder().glob("*.cu"))


def source(name: str, defines: dict[str, int]) -> str:
    """The text of `<name>.cu` as it is compiled: macros defined, headers in place of their names.

    CuPy's cache of compiled kernels is keyed by the text and knows nothing of headers. `name` is
    relative to the CUDA sources, or an absolute path without its suffix.
    """
    path = _path(name)
    text = path.read_text()
    declared = instantiations(name)
    if defines not in declared:
        raise ValueError(
            f"{path} is not declared to be compiled with {defines or 'no macros'}, but with "
            f"{declared}: add a line such as '// compile: kWords=1,2' to its first lines"
        )
    macros = [f"#define {macro} {value}" for macro, value in sorted(defines.items())]
    return "\n".join([*macros, *_lines(path, text, {path.resolve()}), ""])


def instantiations(name: str) -> list[dict[str, int]]:
    """All combinations of macros that `<name>.cu` is declared to be compiled with."""
    found = list[dict[str, int]]()
    for line in _head(_path(name).read_text()):
        if match := _COMPILE.match(line):
            choices = [macro.partition("=") for macro in match[1].split()]
            values = [[int(value) for value in listed.split(",")] for _, _, listed in choices]
            names = [macro for macro, _, _ in choices]
            found += [
                dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*values)
            ]
    return found or [{}]


def architectures(name: str) -> tuple[str, ...]:
    """Those that `<name>.cu` is written for, as "sm_90"; none named: all of them."""
    for line in _head(_path(name).read_text()):
        if match := _ARCH.match(line):
            return tuple(match[1].split())
    return ()


def kernels_in(text: str) -> dict[str, str]:
    """Names of the kernels in a text, each with its launch bounds as they are written, or ''."""
    found = _KERNEL.finditer(without_comments(text))
    return {match["name"]: match["bounds"] or "" for match in found}


def without_comments(text: str) -> str:
    return _COMMENT.sub("", text)


def _path(name: str) -> Path:
    path = folder() / f"{name}.cu"
    if not path.is_file():
        raise FileNotFoundError(f"there is no kernel file {path}; there are {files()}")
    return path


def _head(text: str) -> Iterator[str]:
    """The comment that a file opens with."""
    return itertools.takewhile(lambda line: line.startswith("//"), text.splitlines())


def _lines(path: Path, text: str, seen: set[Path]) -> Iterator[str]:
    """The lines of a file, headers inlined where they are first included; `#line` says whose."""
    yield f'#line 1 "{path}"'
    for number, line in enumerate(text.splitlines(), 1):
        if match := _INCLUDE.match(line):
            header = (path.parent / match[1]).resolve()
            if not header.is_file():
                raise FileNotFoundError(f"{path}:{number} includes {header}, which does not exist")
            if header in seen:
                yield ""
                continue
            seen.add(header)
            yield from _lines(header, header.read_text(), seen)
            yield f'#line {number + 1} "{path}"'
        else:
            yield "" if _PRAGMA_ONCE.match(line) else line


class CudaLauncher:
    """Kernels on the current CUDA device, compiled at first use; CuPy caches them on disk."""

    def kernel(self, file: str, name: str, **defines: int) -> Kernel:
        device = int(cupy().cuda.Device().id)
        return _kernel(device, file, name, tuple(sorted(defines.items())))


class _CudaKernel:
    def __init__(self, function: Any) -> None:
        self._function = function
        self._lock = threading.Lock()

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        *,
        shared: int = 0,
    ) -> None:
        # What a block may have without being asked for; more is an attribute of the function, which
        # no other thread may lower before the launch.
        if shared > 48 * 1024:
            with self._lock:
                if shared > self._function.max_dynamic_shared_size_bytes:
                    self._function.max_dynamic_shared_size_bytes = shared
        self._function(grid, block, args, shared_mem=shared)


@cache
def cupy() -> Any:
    """The module, where there is one and a GPU for it; otherwise an error that says what to do."""
    try:
        import cupy as module
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise
        raise ImportError(
            "the GPU engine needs CuPy, and there is none: run pip install 'faiss-dmih[cuda13]', "
            "or 'faiss-dmih[cuda12]' for a driver of CUDA 12"
        ) from None
    try:
        count = module.cuda.runtime.getDeviceCount()
    except module.cuda.runtime.CUDARuntimeError as error:
        raise RuntimeError(
            f"the GPU engine needs an NVIDIA GPU, and CuPy {module.__version__} finds none: "
            f"{error}. See that nvidia-smi lists one and that the driver is new enough for this "
            "CuPy"
        ) from None
    if count == 0:
        raise RuntimeError("the GPU engine needs an NVIDIA GPU; CUDA_VISIBLE_DEVICES leaves none")
    return module


@cache
def _kernel(device: int, file: str, name: str, defines: tuple[tuple[str, int], ...]) -> Kernel:
    return _CudaKernel(_module(device, file, defines).get_function(name))


@cache
def _module(device: int, file: str, defines: tuple[tuple[str, int], ...]) -> Any:
    """Compiled for that device, which must be current: CuPy asks it for its architecture."""
    options = ["-std=c++17"]
    own = f"sm_{cupy().cuda.Device(device).compute_capability}a"
    if own in architectures(file):
        options.append(
            f"-arch={own}"
        )  # before CuPy's, without the a: NVRTC takes both from 12.9 on
    return cupy().RawModule(code=source(file, dict(defines)), options=tuple(options))

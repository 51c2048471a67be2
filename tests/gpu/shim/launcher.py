"""The CPU's side of `faiss_dmih.gpu.kernels.Launcher`.

A kernel file is compiled by the C++ compiler against `cuda_shim.hpp`; `runtime.cpp` runs each CUDA
thread as a fiber. A seed decides in which order threads and blocks run and what uninitialised
shared memory holds, so that a kernel which depends on either gives other answers for other seeds.
What is certainly wrong is a `KernelFault` that names kernel, block, threads and source lines:
threads that wait for others in vain, different operations that meet, races (`races.hpp`), writes
beside shared variables, arguments of other types than the parameters or that overlap.

With `sanitize`, launches run in a process of their own under AddressSanitizer and UBSan, over
copies of the arrays that end where the arrays end. Threads are then switched at meetings and
atomics only, not at every access to memory, and races are not found.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import os
import re
import shutil
import struct
import subprocess
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from faiss_dmih.gpu import kernels

_HERE = Path(__file__).parent
_FLAGS = (
    *("-std=c++17", "-O1", "-g", "-fPIC", "-fvisibility=hidden"),
    # The kernels' warnings count; but reading an array of words as one of vectors is CUDA's habit.
    *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-fno-strict-aliasing"),
    *(f"-I{_HERE}", "-DDMIH_SHIM"),
)
# Lets threads be switched between any two accesses to memory, so that updates without atomics lose.
_INTERLEAVE = ("-fsanitize=thread",)
_SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
_SHARED = re.compile(
    r"(?P<extern>extern\s+)?__shared__\s+(?:(?:__align__|alignas)\s*\((?P<align>[^()]+)\)\s*)?"
    r"(?P<type>[\w:]+(?:\s+[\w:]+)*?(?:\s*<[^;<>()]*>)?)\s+(?P<name>\w+)\s*(?P<extent>(?:\[[^\]]*\]\s*)*);"
)


class KernelFault(RuntimeError):
    """A kernel did what no kernel may, or was launched as it cannot be."""


class _Type(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_char),
        ("is_pointer", ctypes.c_uint8),
        ("is_const", ctypes.c_uint8),
        ("alignment", ctypes.c_uint8),
        ("size", ctypes.c_uint32),
    )


class _Argument(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("bytes", ctypes.c_uint64), ("type", _Type))


class _Launch(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
    )


class ShimLauncher:
    """Compiles into `cache`, where what was compiled once is found again.

    Launches differ in their order of threads even under one seed. `arch` is what kernels see as
    `__CUDA_ARCH__`. `flags` go to the compiler.
    """

    def __init__(
        self,
        cache: Path,
        *,
        seed: int = 0,
        sanitize: bool = False,
        arch: int = 900,
        flags: tuple[str, ...] = (),
    ) -> None:
        self._cache = cache
        self._seed = seed
        self._launches = itertools.count()
        self._sanitize = sanitize
        self._flags = (*_FLAGS, f"-D__CUDA_ARCH__={arch}", *flags)
        self._built: dict[tuple[Any, ...], ctypes.PyDLL | Path | KernelFault] = {}

    def kernel(self, file: str, name: str, **defines: int) -> kernels.Kernel:
        text = kernels.source(file, defines)
        if name not in kernels.kernels_in(text):
            raise KernelFault(f"{file}.cu has no kernel {name}: {[*kernels.kernels_in(text)]}")
        key = (file, *sorted(defines.items()))
        if key not in self._built:
            try:
                self._built[key] = self._build(translate(text))
            except KernelFault as fault:  # the same the next time: Hypothesis tries again and again
                self._built[key] = fault
        built = self._built[key]
        if isinstance(built, KernelFault):
            raise built
        run = partial(_run_apart if isinstance(built, Path) else _run_here, built)

        def launch(
            grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared: int = 0
        ) -> None:
            seed = self._seed << 32 | next(self._launches)
            dimensions = [(*grid, 1, 1)[:3], (*block, 1, 1)[:3]]
            run(name, _Launch(*((ctypes.c_uint * 3)(*d) for d in dimensions), shared, seed), args)

        return launch

    def _build(self, text: str) -> ctypes.PyDLL | Path:
        # Itself it is not sanitized: it hands out memory, and says what of it may be touched.
        optimised = ("-O2", *["-DSHIM_ASAN"] * self._sanitize)
        runtime = self._compile((_HERE / "runtime.cpp").read_text(), optimised, ("-shared",))
        if self._sanitize:
            text += (_HERE / "main.cpp").read_text()
            return self._compile(text, _SANITIZE, (*_SANITIZE, str(runtime)))
        # ThreadSanitizer's own library is not linked: the runtime is in its place.
        return ctypes.PyDLL(str(self._compile(text, _INTERLEAVE, ("-shared", str(runtime)))))

    def _compile(self, text: str, flags: tuple[str, ...], link: tuple[str, ...]) -> Path:
        """The output of compiler and linker for this text, who are not asked twice."""
        flags = (*self._flags, *flags)
        headers = [path.read_text() for path in sorted(_HERE.glob("*.hpp"))]
        key = hashlib.sha256(repr((_compiler(), flags, link, text, headers)).encode()).hexdigest()[
            :24
        ]
        output = self._cache / f"{key}.so"
        if not output.exists():
            self._cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._cache) as scratch:
                unit, made = Path(scratch) / "unit.cpp", Path(scratch) / "made"
                unit.write_text(text)
                _run_compiler("-c", str(unit), *flags, "-o", f"{unit}.o")
                _run_compiler(f"{unit}.o", *link, "-o", str(made))
                made.replace(output)
        return output


def translate(source: str) -> str:
    """A kernel file as C++: shared variables made C++ variables, and the table of its kernels."""

    def declare(found: re.Match[str]) -> str:
        name, kind, lines = found["name"], found["type"], "\n" * found[0].count("\n")
        if found["extern"]:
            return f"auto* const {name} = static_cast<{kind}*>(::shim::dynamic_shared());{lines}"
        alignment = f"::std::max<size_t>({found['align'] or 1}, alignof({kind}))"
        whole = f"{kind}{found['extent']}"
        return f'auto& {name} = ::shim::shared<{whole}>([] {{}}, "{name}", {alignment});{lines}'

    text = _SHARED.sub(declare, source)
    if left := re.search(r"^.*\b__shared__\b.*$", kernels.without_comments(text), re.MULTILINE):
        raise KernelFault(
            f"the shim cannot read {left[0].strip()!r}: write one variable a statement, "
            "'__shared__ T name[n];' or 'extern __shared__ T name[];'"
        )
    entries = [
        f'    ::shim::Entry<&{name}>::describe("{name}", {bounds or 1024}),\n'
        for name, bounds in kernels.kernels_in(source).items()
    ]
    return (
        f'#include "cuda_shim.hpp"\n{text}\n'
        'extern "C" SHIM_EXPORT const shim::Kernel shim_kernels[];\n'
        f"const shim::Kernel shim_kernels[] = {{\n{''.join(entries)}    {{}}}};\n"
    )


@cache
def _compiler() -> tuple[str, str]:
    """The compiler, and which one it is."""
    found = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if not found:
        raise KernelFault("the shim needs a C++ compiler")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
    return found, version.stdout


def _run_compiler(*arguments: str) -> None:
    command = [_compiler()[0], *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise KernelFault(f"{' '.join(command)}\n{done.stderr}")


def _argument(value: Any) -> _Argument:
    """Of a NumPy array or scalar, whose memory it shares."""
    if isinstance(value, np.ndarray):
        if not value.flags.c_contiguous:
            raise TypeError(f"got an array with strides {value.strides}, expected a contiguous one")
        array, is_const = value, not value.flags.writeable
    elif isinstance(value, np.generic):
        array, is_const = np.asarray(value), True
    else:
        raise TypeError(f"got {value!r}, expected an array or a scalar of NumPy")
    kind = _Type(array.dtype.kind.encode(), value is array, is_const, 0, array.itemsize)
    argument = _Argument(array.ctypes.data, array.nbytes, kind)
    argument.keep_alive = array
    return argument


def _run_here(library: ctypes.PyDLL, name: str, launch: _Launch, args: tuple[Any, ...]) -> None:
    arguments = [_argument(value) for value in args]
    error = ctypes.create_string_buffer(4096)
    failed = library.shim_launch(
        ctypes.byref(ctypes.c_char.in_dll(library, "shim_kernels")),
        *(name.encode(), ctypes.byref(launch)),
        *((_Argument * len(arguments))(*arguments), len(arguments)),
        *(error, ctypes.c_size_t(len(error))),
    )
    if failed:
        raise KernelFault(error.value.decode())


def _run_apart(program: Path, name: str, launch: _Launch, args: tuple[Any, ...]) -> None:
    arrays = [value for value in args if isinstance(value, np.ndarray)]
    for one, other in itertools.combinations(arrays, 2):
        if np.may_share_memory(one, other):
            raise ValueError("arrays that overlap cannot be sanitized: each is copied")
    request = [bytes(launch), struct.pack("Q", len(args))]
    for value in args:
        argument = _argument(value)
        request += [bytes(argument), ctypes.string_at(argument.data, argument.bytes)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "launch"
        file.write_bytes(b"".join(request))
        # Kernels do not allocate; and the search for leaks fails where a debugger looks on.
        env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
        command = [program, name, file]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        if done.returncode != 0:
            raise KernelFault(done.stderr or f"{name} ended with {done.returncode}")
        answer = file.read_bytes()
    at = 0
    for value in args:
        if isinstance(value, np.ndarray) and value.flags.writeable:
            value.reshape(-1).view(np.uint8)[:] = np.frombuffer(answer, np.uint8, value.nbytes, at)
        at += value.nbytes

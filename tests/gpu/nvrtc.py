"""NVRTC from NVIDIA's wheel, through ctypes: compiles for any GPU on a machine that has none.

`python tests/gpu/nvrtc.py` prints what every kernel takes of every GPU.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import re
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache

from faiss_dmih.gpu import kernels

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120")

# Attributes in sections .nv.info and .nv.info.<kernel> of a cubin.
_FRAME_SIZE, _MIN_STACK_SIZE, _REGISTERS = 0x11, 0x12, 0x2F
_SIZED = 4  # format of an attribute that is followed by as many bytes as its value says


@dataclass
class Usage:
    """What one kernel takes. Local memory is a stack or spilled registers, in bytes a thread."""

    registers: int = 0
    shared: int = 0
    local: int = 0


@cache
def library() -> ctypes.CDLL:
    """Raises PackageNotFoundError where the wheel is not installed."""
    for file in importlib.metadata.files("nvidia-cuda-nvrtc") or []:
        if file.name.startswith("libnvrtc.so"):
            return ctypes.CDLL(str(file.locate()))
    raise FileNotFoundError("nvidia-cuda-nvrtc is installed without libnvrtc.so: install it anew")


def compile_cubin(text: str, architecture: str) -> tuple[bytes, str]:
    """The cubin, and what the compiler said. Raises RuntimeError with that if there is none."""
    nvrtc, program = library(), ctypes.c_void_p()
    options = [b"-std=c++17", b"-arch=" + architecture.encode()]
    _check(
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None)
    )
    try:
        status = nvrtc.nvrtcCompileProgram(
            program, len(options), (ctypes.c_char_p * len(options))(*options)
        )
        log = _fetch("nvrtcGetProgramLog", program).rstrip(b"\0").decode()
        if status != 0:
            raise RuntimeError(f"{architecture}: {log}")
        return _fetch("nvrtcGetCUBIN", program), log
    finally:
        _check(nvrtc.nvrtcDestroyProgram(ctypes.byref(program)))


def _fetch(what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _check(getattr(library(), f"{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(getattr(library(), what)(program, buffer))
    return buffer.raw


def _check(status: int) -> None:
    if status != 0:
        library().nvrtcGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(library().nvrtcGetErrorString(status).decode())


def architectures(name: str) -> tuple[str, ...]:
    """Those that a kernel file is compiled for."""
    return kernels.architectures(name) or ARCHITECTURES


def has_disassembler() -> bool:
    """Whether NVIDIA's wheel of nvdisasm is installed."""
    try:
        return importlib.metadata.files("nvidia-cuda-nvdisasm") is not None
    except importlib.metadata.PackageNotFoundError:
        return False


def disassembly(cubin: bytes) -> str:
    """SASS, by nvdisasm."""
    files = importlib.metadata.files("nvidia-cuda-nvdisasm") or []
    (program,) = (str(file.locate()) for file in files if file.name == "nvdisasm")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [program, "-c", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def instructions(sass: str) -> list[str]:
    """Their names, in order: "BMMA.168256.AND.POPC"."""
    return re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", sass)


def usage(cubin: bytes) -> dict[str, Usage]:
    """Of each kernel in a cubin, by name: read from the ELF file that a cubin is."""
    sections = _sections(cubin)
    found = {name[6:]: Usage() for name in sections if name.startswith(".text.")}
    symbols = _symbols(sections)
    for name, kernel in found.items():
        kernel.shared = sections.get(f".nv.shared.{name}", (0, b""))[0]
        kernel.local = sections.get(f".nv.local.{name}", (0, b""))[0]
    for section, (_, content) in sections.items():
        if section == ".nv.info" or section.startswith(".nv.info."):
            for attribute, symbol, value in _attributes(content):
                kernel = found.get(symbols[symbol], Usage())
                if attribute == _REGISTERS:
                    kernel.registers = value
                elif attribute in (_FRAME_SIZE, _MIN_STACK_SIZE):
                    kernel.local = max(kernel.local, value)
    return found


def _sections(elf: bytes) -> dict[str, tuple[int, bytes]]:
    """Size and content by name; sections without content in the file have a size all the same."""
    start, entry_size, count, names = (
        *struct.unpack_from("<Q", elf, 40),
        *struct.unpack_from("<3H", elf, 58),
    )
    headers = [struct.unpack_from("<IIQQQQIIQQ", elf, start + entry_size * i) for i in range(count)]
    strings = headers[names][4]
    found = {}
    for name, kind, _, _, offset, size, *_ in headers:
        end = elf.index(b"\0", strings + name)
        no_bits = 8
        content = b"" if kind == no_bits else elf[offset : offset + size]
        found[elf[strings + name : end].decode()] = (size, content)
    return found


def _symbols(sections: dict[str, tuple[int, bytes]]) -> list[str]:
    strings = sections[".strtab"][1]
    names = [name for name, *_ in struct.iter_unpack("<IBBHQQ", sections[".symtab"][1])]
    return [strings[name : strings.index(b"\0", name)].decode() for name in names]


def _attributes(info: bytes) -> list[tuple[int, int, int]]:
    """Attribute, symbol and value, for those attributes that are made of a symbol and a value."""
    found, at = [], 0
    while at < len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form == _SIZED:
            if attribute in (_FRAME_SIZE, _MIN_STACK_SIZE, _REGISTERS):
                found.append((attribute, *struct.unpack_from("<II", info, at)))
            at += size
    return found


if __name__ == "__main__":
    for name in kernels.files():
        for defines in kernels.instantiations(name):
            for arch in architectures(name):
                for kernel, used in usage(
                    compile_cubin(kernels.source(name, defines), arch)[0]
                ).items():
                    print(name, kernel, defines, arch, used)

"""FAISS's functions that read, write and clone binary indexes, for ours and composites of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faiss_dmih import composites, storage

Function = Callable[..., Any]
# What FAISS's readers and writers are asked for at a time.
_CHUNK = 1 << 20


def _write(original: Function, faiss: Any) -> Function:
    def write_index_binary(index: Any, target: Any) -> None:
        if not composites.holds_dmih(index):
            original(index, target)
        elif isinstance(target, str):
            storage.write_index(index, target)
        elif isinstance(target, faiss.IOWriter):
            storage.write_stream(index, _writer(target, faiss))
        else:
            raise TypeError(
                f"got a {type(target).__name__} to write an index to, expected a path or a "
                "faiss.IOWriter"
            )

    return write_index_binary


def _read(original: Function, faiss: Any) -> Function:
    def read_index_binary(source: Any, io_flags: int = 0) -> Any:
        if isinstance(source, str) and storage.is_ours(source):
            return storage.read_index(source, mmap=_wants_mapping(faiss, io_flags))
        if not isinstance(source, faiss.IOReader) or isinstance(
            source, (faiss.MappedFileIOReader, faiss.ZeroCopyIOReader)
        ):
            return original(source, io_flags)
        if isinstance(source, faiss.VectorIOReader):
            ahead = min(4, source.data.size() - source.rp)
            magic = bytes(source.data.at(source.rp + i) for i in range(max(ahead, 0)))
            if not storage.is_magic(magic):
                return original(source, io_flags)
            return storage.read_stream(_reader(source, faiss))
        # What has been read of a stream is gone, so that FAISS gets one that begins with it.
        read_into = _reader(source, faiss)
        magic = storage.read_up_to(read_into, 4)
        if storage.is_magic(magic):
            return storage.read_stream(read_into, before=magic)
        rest = storage.with_bytes_before(read_into, magic)
        return original(
            faiss.PyCallbackIOReader(lambda n: storage.read_up_to(rest, n), _CHUNK), io_flags
        )

    return read_index_binary


def _wants_mapping(faiss: Any, io_flags: int) -> bool:
    mmap = faiss.IO_FLAG_MMAP
    return bool(io_flags & mmap == mmap or io_flags & faiss.IO_FLAG_MMAP_IFC)


def _serialize(original: Function, faiss: Any) -> Function:
    def serialize_index_binary(index: Any) -> Any:
        if not composites.holds_dmih(index):
            return original(index)
        return storage.serialize(index)

    return serialize_index_binary


def _deserialize(original: Function, faiss: Any) -> Function:
    def deserialize_index_binary(data: Any) -> Any:
        if isinstance(data, np.ndarray) and storage.is_magic(data.ravel()[:4].tobytes()):
            return storage.deserialize(data)
        return original(data)

    return deserialize_index_binary


def _clone(original: Function, faiss: Any) -> Function:
    def clone_binary_index(index: Any) -> Any:
        if not composites.holds_dmih(index):
            return original(index)
        return composites.clone(index)

    return clone_binary_index


def _writer(writer: Any, faiss: Any) -> Callable[[memoryview], None]:
    def write(view: memoryview) -> None:
        data = np.frombuffer(view, np.uint8)
        done = writer(faiss.swig_ptr(data), 1, data.size) if data.size else 0
        if done != data.size:
            raise OSError(f"the writer took {done} of {data.size} bytes")

    return write


def _reader(reader: Any, faiss: Any) -> Callable[[memoryview], int]:
    def read_into(view: memoryview) -> int:
        data: NDArray[np.uint8] = np.frombuffer(view, np.uint8)
        return int(reader(faiss.swig_ptr(data), 1, data.size)) if data.size else 0

    return read_into


HOOKS = {
    "write_index_binary": _write,
    "read_index_binary": _read,
    "serialize_index_binary": _serialize,
    "deserialize_index_binary": _deserialize,
    "clone_binary_index": _clone,
}

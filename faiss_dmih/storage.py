"""Indexes as files and bytes: docs/format.md is the specification.

The engine reads and writes an IndexDMIH (`IBDM`). Here are whole files, and composites (`IBDC`): a
tree of nodes, each a header, a payload and its children.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from faiss_dmih import _engine, composites
from faiss_dmih.composites import DMIH, FAISS, IVF, Node
from faiss_dmih.folders import atomic_file
from faiss_dmih.index import IndexDMIH
from faiss_dmih.python_index import PythonIndexBinary

LEAF, COMPOSITE = b"IBDM", b"IBDC"
VERSION = 1
_ALIGNMENT = 64
_CHUNK = 1 << 20
HEADER = struct.Struct("<4sIQ44xI")
NODE = struct.Struct("<8sIIQQI24xI")
_MAX_CHILDREN = 1 << 16

ReadInto = Callable[[memoryview], int]


def write_index(index: Any, path: str | os.PathLike[str]) -> None:
    """Writes an index, or FAISS's composite of indexes, to a file.

    The file is replaced as a whole: whatever happens, it is the old one or the new one. Indexes
    without an IndexDMIH in them are written in FAISS's format.

    Raises:
        OSError: it cannot be written.
        TypeError: ``index`` is not a ``faiss.IndexBinary`` in host memory.
    """
    _check_index(index)
    if not composites.holds_dmih(index):
        data = faiss.serialize_index_binary(index)
        with atomic_file(Path(path)) as file:
            _write_all(file, memoryview(data))
        return
    with atomic_file(Path(path)) as file:
        composites.held(index, lambda: _encode(index, _FileOut(file)))


def read_index(path: str | os.PathLike[str], *, mmap: bool = False) -> Any:
    """The index that is in a file: an IndexDMIH, a composite, or FAISS's own.

    Args:
        path: of the file.
        mmap: map it instead of reading it: it is there at once, its pages are read when a search
            needs them, and all processes share them. The index is then read-only, its `copy()` is
            not, and checksums are not verified (`faiss-dmih verify` does).

    Raises:
        OSError: it cannot be read.
        ValueError: it is no index, is damaged where it cannot be repaired, or truncated.
        RuntimeError: FAISS's error, for its own files.

    Warns:
        RuntimeWarning: parts of it were damaged or missing. They have been built anew; with
            ``mmap`` they are done without, and searches are slower.
    """
    path = os.fspath(path)
    with open(path, "rb") as file, naming(path):
        fd = file.fileno()
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return _decode(_StreamIn(lambda view: file.readinto(view) or 0))
        if is_magic(os.pread(fd, 4, 0)):
            return _decode(_FileIn(fd, mmap))
    return faiss.read_index_binary(path, faiss.IO_FLAG_MMAP_IFC if mmap else 0)


def serialize(index: Any) -> NDArray[np.uint8]:
    """The bytes of an index that is, or holds, an IndexDMIH: what `write_index` writes."""

    def encoded() -> NDArray[np.uint8]:
        out = _MemoryOut(_size(index))
        _encode(index, out)
        return out.data

    return composites.held(index, encoded)


def deserialize(data: Any) -> Any:
    """The index that `serialize` has made bytes of. Raises ValueError, as `read_index` does."""
    return _decode(_MemoryIn(np.ascontiguousarray(np.frombuffer(data, np.uint8))))


def write_stream(index: Any, write: Callable[[memoryview], object]) -> None:
    """The same bytes, piece by piece, in calls of ``write``, which must not keep what it gets."""
    composites.held(index, lambda: _encode(index, _StreamOut(write)))


def read_stream(read_into: ReadInto, before: bytes = b"") -> Any:
    """An index out of a stream; as `deserialize`. ``read_into`` puts bytes into the memory it gets
    and says how many, 0 at the end. ``before``: what has been read already."""
    return _decode(_StreamIn(with_bytes_before(read_into, before)))


def is_magic(first: bytes) -> bool:
    """Whether a file that begins like this is ours."""
    return first[:4] in (LEAF, COMPOSITE)


def is_ours(path: str) -> bool:
    """Whether there is a file, and it is ours. Of a pipe nobody can tell without reading it."""
    try:
        with open(path, "rb") as file:
            return stat.S_ISREG(os.fstat(file.fileno()).st_mode) and is_magic(file.read(4))
    except OSError:
        return False


def read_up_to(read_into: ReadInto, n: int) -> bytes:
    """n bytes, fewer at the end."""
    out = bytearray(n)
    done = 0
    with memoryview(out) as view:
        while done < n:
            got = read_into(view[done:])
            if got == 0:
                break
            done += got
    return bytes(out[:done])


def with_bytes_before(read_into: ReadInto, before: bytes) -> ReadInto:
    """A stream of those bytes, then of the other ones."""
    left = memoryview(before)

    def read(view: memoryview) -> int:
        nonlocal left
        if not left:
            return read_into(view)
        n = min(len(left), len(view))
        view[:n] = left[:n]
        left = left[n:]
        return n

    return read


class _Out(Protocol):
    def write(self, data: memoryview) -> None: ...
    def leaf(self, index: IndexDMIH) -> None: ...


class _StreamOut:
    def __init__(self, write: Callable[[memoryview], object]) -> None:
        self._write = write

    def write(self, data: memoryview) -> None:
        for at in range(0, len(data), _CHUNK):
            self._write(data[at : at + _CHUNK])

    def leaf(self, index: IndexDMIH) -> None:
        _engine.write_stream(index, self._write)


class _MemoryOut(_StreamOut):
    def __init__(self, size: int) -> None:
        self.data: NDArray[np.uint8] = np.empty(size, np.uint8)
        self._left = self.data.data
        super().__init__(self._put)

    def _put(self, piece: memoryview) -> None:
        self._left[: len(piece)] = piece
        self._left = self._left[len(piece) :]


class _FileOut:
    def __init__(self, file: int) -> None:
        self._file = file

    def write(self, data: memoryview) -> None:
        _write_all(self._file, data)

    def leaf(self, index: IndexDMIH) -> None:
        _engine.write_file(index, self._file)


def _write_all(file: int, data: memoryview) -> None:
    while len(data) > 0:
        data = data[os.write(file, data) :]


class _In(Protocol):
    def left(self) -> int | None: ...
    def read(self, n: int) -> NDArray[np.uint8]: ...
    def leaf(self, size: int) -> tuple[Any, int]: ...


class _FileIn:
    def __init__(self, file: int, mmap: bool) -> None:
        self._file, self._at = file, 0
        self._size = os.fstat(file).st_size
        self._read_leaf = _engine.map_file if mmap else _engine.read_file

    def left(self) -> int | None:
        return self._size - self._at

    def read(self, n: int) -> NDArray[np.uint8]:
        out = np.empty(n, np.uint8)
        view = out.data
        while len(view) > 0 and (got := os.preadv(self._file, [view[:_CHUNK]], self._at)):
            view = view[got:]
            self._at += got
        return out[: n - len(view)]

    def leaf(self, size: int) -> tuple[Any, int]:
        found = self._read_leaf(self._file, self._at, size)
        self._at += size
        return found


class _MemoryIn:
    def __init__(self, data: NDArray[np.uint8]) -> None:
        self._data = data

    def left(self) -> int | None:
        return len(self._data)

    def read(self, n: int) -> NDArray[np.uint8]:
        out, self._data = self._data[:n].copy(), self._data[n:]
        return out

    def leaf(self, size: int) -> tuple[Any, int]:
        found = _engine.read_memory(self._data[:size])
        self._data = self._data[size:]
        return found


class _StreamIn:
    def __init__(self, read_into: ReadInto) -> None:
        self._read_into = read_into

    def left(self) -> int | None:
        return None

    def read(self, n: int) -> NDArray[np.uint8]:
        pieces = []
        while n > 0:
            piece = read_up_to(self._read_into, min(n, _CHUNK))
            pieces.append(piece)
            n -= len(piece)
            if len(piece) < min(n + len(piece), _CHUNK):
                break
        return np.frombuffer(bytearray(b"".join(pieces)), np.uint8)

    def leaf(self, size: int) -> tuple[Any, int]:
        return _engine.read_stream(self._read_into)

    def put_back(self, data: bytes) -> None:
        self._read_into = with_bytes_before(self._read_into, data)


def padding(size: int) -> int:
    return -size % _ALIGNMENT


def _size(index: Any) -> int:
    """Bytes of what `_encode` writes."""
    ours = composites.as_dmih(index)
    if ours is not None:
        return _engine.stored_size(ours)
    return HEADER.size + sum(size for _, size in _tree(index, 0))


def _tree(index: Any, depth: int) -> Iterator[tuple[tuple[Node, int], int]]:
    """The nodes, parents first, with the numbers of their children and their sizes in bytes."""
    composites.check_depth(depth)
    node, children = composites.take_apart(index)
    size = _payload_size(node)
    yield (node, len(children)), NODE.size + size + padding(size)
    for child in children:
        yield from _tree(child, depth + 1)


def _payload_size(node: Node) -> int:
    if node.kind == DMIH:
        return _engine.stored_size(node.payload)
    return 0 if node.payload is None else int(node.payload.size)


def _encode(index: Any, out: _Out) -> None:
    ours = composites.as_dmih(index)
    if ours is not None:
        return out.leaf(ours)
    nodes = list(_tree(index, 0))
    total = HEADER.size + sum(size for _, size in nodes)
    out.write(_with_checksum(HEADER, COMPOSITE, VERSION, total))
    for (node, children), _ in nodes:
        size = _payload_size(node)
        plain = node.kind != DMIH and node.payload is not None
        crc = _engine.crc32c(node.payload, 0, False) if plain else 0
        kind = node.kind.encode()
        out.write(_with_checksum(NODE, kind, node.d, children, node.flags, size, crc))
        if node.kind == DMIH:
            out.leaf(node.payload)
        elif plain:
            out.write(memoryview(node.payload))
        out.write(memoryview(bytes(padding(size))))


def _with_checksum(record: struct.Struct, *values: Any) -> memoryview:
    data = record.pack(*values, 0)[:-4]
    return memoryview(data + struct.pack("<I", _engine.crc32c(data, 0, False)))


def _unpack(record: struct.Struct, data: bytes, what: str) -> tuple[Any, ...]:
    if len(data) < record.size:
        raise ValueError(
            f"the index is truncated: {what} has {record.size} bytes, and there are {len(data)}"
        )
    values = record.unpack(data)
    if values[-1] != _engine.crc32c(data[:-4], 0, False):
        raise ValueError(f"the index is damaged: the checksum of {what} is wrong")
    return values[:-1]


def read_composite_header(data: bytes, there: int | None) -> int:
    """The size that the header says all of it has; ``there``: what there is, if that is known."""
    if data[:4] != COMPOSITE:
        raise ValueError(
            f"this is no index of faiss_dmih: it begins with {data[:4]!r}, expected "
            f"{LEAF!r} or {COMPOSITE!r}"
        )
    _, version, total = _unpack(HEADER, data, "the header of a composite")
    if version != VERSION:
        raise ValueError(
            f"the composite is of version {version} of the format, expected {VERSION}: read it "
            "with the faiss_dmih that has written it"
        )
    if there is not None and there != total:
        raise ValueError(
            f"the index is truncated: it says that it has {total} bytes, and there are {there}"
            if there < total
            else f"not a sound index: it says that it has {total} bytes, and there are {there}"
        )
    return int(total)


def read_node_header(data: bytes, left: int) -> tuple[str, int, int, int, int, int]:
    """(kind, d, number of children, flags, size, CRC) of a node that has ``left`` bytes at most."""
    kind, d, children, flags, size, crc = _unpack(NODE, data, "a node of the composite")
    name = kind.rstrip(b"\0").decode("latin-1")
    if NODE.size + size + padding(size) > left or children > _MAX_CHILDREN:
        raise ValueError(
            f"not a sound index: a node ({name}) of {size} bytes and {children} children, where "
            f"{left} bytes are left"
        )
    return name, d, children, flags, size, crc


def _decode(source: _In) -> Any:
    left = source.left()
    if isinstance(source, _StreamIn):
        magic = source.read(4).tobytes()
        source.put_back(magic)
    else:
        # A look ahead: the engine reads a leaf from its first byte.
        magic = _peek(source)
    if magic == LEAF:
        return IndexDMIH._opened(*source.leaf(left if left is not None else 0))
    total = read_composite_header(source.read(HEADER.size).tobytes(), left)
    index, used = _decode_node(source, total - HEADER.size, 0)
    if used != total - HEADER.size:
        raise ValueError(
            f"not a sound index: its nodes have {used} bytes, expected {total - HEADER.size}"
        )
    return index


def _peek(source: _In) -> bytes:
    if isinstance(source, _FileIn):
        return os.pread(source._file, 4, 0)
    assert isinstance(source, _MemoryIn)
    return source._data[:4].tobytes()


def _decode_node(source: _In, left: int, depth: int) -> tuple[Any, int]:
    """The index of the next node, and how many of the ``left`` bytes it and its children took."""
    composites.check_depth(depth)
    header = source.read(NODE.size).tobytes()
    kind, d, children, flags, size, crc = read_node_header(header, left)
    used = NODE.size + size + padding(size)
    if kind == DMIH:
        payload: Any = IndexDMIH._opened(*source.leaf(size))
    else:
        payload = source.read(size)
        if len(payload) < size:
            raise ValueError(
                f"the index is truncated: a node ({kind}) has {size} bytes, and there are "
                f"{len(payload)}"
            )
        if crc != _engine.crc32c(payload, 0, False):
            raise ValueError(f"the index is damaged: the checksum of a node ({kind}) is wrong")
    source.read(padding(size))
    inner = []
    for _ in range(children):
        child, more = _decode_node(source, left - used, depth + 1)
        inner.append(child)
        used += more
    node = Node(kind, d, flags, payload)
    if kind in (FAISS, DMIH) and inner:
        raise ValueError(f"not a sound index: a node ({kind}) with {children} children")
    if kind in (FAISS, IVF) and is_magic(payload[:4].tobytes()):
        raise ValueError(f"not a sound index: a node ({kind}) that is not FAISS's")
    return composites.put_together(node, inner), used


def _check_index(index: Any) -> None:
    if isinstance(index, PythonIndexBinary):
        raise TypeError(
            f"a {type(index).__name__} is not in host memory: write what its to_cpu() returns"
        )
    if not isinstance(index, faiss.IndexBinary):
        raise TypeError(f"got a {type(index).__name__}, expected a faiss.IndexBinary")


@contextmanager
def naming(path: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None

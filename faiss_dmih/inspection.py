"""What is in an index file, and whether it is whole, without building an index of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from faiss_dmih import _engine, composites, storage
from faiss_dmih.partition import Partition


@dataclass(frozen=True)
class Section:
    """A section of an index. ``sound``: whether its checksum is right; None where nobody looked."""

    tag: str
    segment: int
    table: int
    offset: int
    size: int
    sound: bool | None


@dataclass(frozen=True)
class Node:
    """An index in the file; ``depth`` is 0 for the outermost.

    An IndexDMIH (kind `dmih`) has ntotal, options, sections, and a partition if one was learned
    (and is not damaged, where somebody looked). Of other nodes there is the size of what they hold
    themselves, in bytes.
    """

    kind: str
    depth: int
    d: int
    size: int
    sound: bool | None
    version: int = storage.VERSION
    ntotal: int = 0
    mode: str = ""
    cuts: tuple[int, ...] = ()
    memory_budget: int | None = None
    partition: Partition | None = None
    sections: tuple[Section, ...] = ()


def inspect(path: str | os.PathLike[str], *, verify: bool) -> list[Node]:
    """The indexes of a file, outermost first.

    Args:
        path: of a file of this package's format.
        verify: whether to read all of it and compare checksums.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not of this format, or so damaged that its parts cannot be told.
    """
    with open(path, "rb") as file, storage.naming(os.fspath(path)):
        size = os.fstat(file.fileno()).st_size
        magic = os.pread(file.fileno(), 4, 0)
        if magic == storage.LEAF:
            return [_leaf(file, 0, size, 0, verify)]
        total = storage.read_composite_header(magic + os.pread(file.fileno(), 60, 4), size)
        nodes: list[Node] = []
        end = _walk(file, storage.HEADER.size, total, 0, verify, nodes)
        if end != total:
            raise ValueError(f"not a sound index: its nodes end at {end}, expected {total}")
        return nodes


def _leaf(file: BinaryIO, offset: int, size: int, depth: int, verify: bool) -> Node:
    version, d, mode, cuts, budget, ntotal, found = _engine.contents(
        file.fileno(), offset, size, verify
    )
    sections = tuple(
        Section(tag, segment, table, offset + at, bytes_, sound)
        for tag, segment, table, at, bytes_, _, sound in found
    )
    sound = all(section.sound for section in sections) if verify else None
    partition = _partition(file, sections, d, version)
    return Node(
        composites.DMIH,
        depth,
        d,
        size,
        sound,
        version,
        ntotal,
        mode,
        cuts,
        budget,
        partition,
        sections,
    )


def _partition(
    file: BinaryIO, sections: tuple[Section, ...], d: int, version: int
) -> Partition | None:
    """What section `bits` says, if that makes sense."""
    section = next((s for s in sections if (s.tag, s.segment, s.table) == ("bits", 0, 0)), None)
    if section is None or section.sound is False or version < 2:  # where it means nothing
        return None
    if not 4 * d <= section.size <= 8 * d:
        return None
    bits = np.frombuffer(os.pread(file.fileno(), section.size, section.offset), "<u4").tolist()
    order, cuts = tuple(bits[:d]), tuple(bits[d:])
    if sorted(order) != list(range(d)) or sum(cuts) != d or 0 in cuts:
        return None
    return Partition(order, cuts)


def _walk(file: BinaryIO, at: int, end: int, depth: int, verify: bool, nodes: list[Node]) -> int:
    """Appends the node that begins at a byte, and those in it; returns where they end."""
    composites.check_depth(depth)
    header = os.pread(file.fileno(), storage.NODE.size, at)
    kind, d, children, _, size, crc = storage.read_node_header(header, end - at)
    at += storage.NODE.size
    if kind == composites.DMIH:
        nodes.append(_leaf(file, at, size, depth, verify))
    else:
        sound = _crc(file, at, size) == crc if verify else None
        nodes.append(Node(kind, depth, d, size, sound))
    at += size + storage.padding(size)
    for _ in range(children):
        at = _walk(file, at, end, depth + 1, verify, nodes)
    return at


def _crc(file: BinaryIO, at: int, size: int) -> int:
    crc, chunk = 0, 1 << 20
    for begin in range(at, at + size, chunk):
        data = os.pread(file.fileno(), min(chunk, at + size - begin), begin)
        crc = _engine.crc32c(data, crc, False)
    return crc

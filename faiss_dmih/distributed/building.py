"""Shards made of codes, wherever these are: one task of Ray for each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from faiss_dmih.codes import check_codes, check_d, check_layout
from faiss_dmih.distributed import manifest, merging
from faiss_dmih.distributed.engine import ray
from faiss_dmih.distributed.folder import Folder
from faiss_dmih.distributed.manifest import Manifest, PartFiles, ShardFiles
from faiss_dmih.distributed.part import write_part
from faiss_dmih.index import IndexDMIH

MAX_CODES = 2**32 - 1


@dataclass(frozen=True)
class Piece:
    """Rows [begin, end) of a .npy file, or of an array in Ray's object store."""

    source: Any
    begin: int
    end: int

    def load(self) -> NDArray[np.uint8]:
        array = _mapped(self.source) if isinstance(self.source, str) else ray().get(self.source)
        return np.ascontiguousarray(array[self.begin : self.end])


def build(
    source: Any,
    num_shards: int,
    folder: Folder,
    options: dict[str, Any],
    column: str,
    num_cpus: float,
) -> Manifest:
    """As `ShardedIndexDMIH.build`."""
    if not isinstance(num_shards, int) or num_shards < 1:
        raise ValueError(f"got num_shards = {num_shards!r}, expected an integer of at least 1")
    if any(name.startswith("manifest-") for name in folder.names()):
        raise FileExistsError(f"{folder} holds shards already: open them, or remove the folder")
    pieces, code_size = _pieces(source, column)
    d = check_d(8 * code_size)
    IndexDMIH(d, **options)  # what is wrong with the options is said before anything is done
    ntotal = sum(piece.end - piece.begin for piece in pieces)
    if ntotal > num_shards * MAX_CODES or ntotal >= 1 << merging.ID_BITS:
        raise ValueError(
            f"got {ntotal} codes for {num_shards} shards, expected at most {MAX_CODES} in each"
        )
    folder.make()
    bounds = [ntotal * number // num_shards for number in range(num_shards + 1)]
    threads = max(1, int(num_cpus))
    task = ray().remote(_build_shard).options(num_cpus=num_cpus)
    parts = [
        task.remote(folder, number, _slice(pieces, begin, end), begin, d, options, threads)
        if begin < end
        else None
        for number, (begin, end) in enumerate(pairwise(bounds))
    ]
    shards = tuple(ShardFiles(0, () if part is None else (ray().get(part),)) for part in parts)
    return manifest.write(folder, Manifest(0, d, ntotal, shards, options), after=0)


def _build_shard(
    folder: Folder,
    number: int,
    pieces: list[Piece],
    first_id: int,
    d: int,
    options: dict[str, Any],
    threads: int,
) -> PartFiles:
    faiss.omp_set_num_threads(threads)
    index = IndexDMIH(d, **options)
    for piece in pieces:
        index.add(piece.load())
    if len(pieces) > 1:
        index.compact()
    return write_part(folder, number, index, first_id)


def _pieces(source: Any, column: str) -> tuple[list[Piece], int]:
    """What the source consists of, in order, and bytes of a code."""
    if hasattr(source, "to_numpy_refs"):
        return _of_dataset(source, column)
    if isinstance(source, (str, os.PathLike)):
        source = [source]
    if isinstance(source, Sequence) and all(isinstance(x, (str, os.PathLike)) for x in source):
        return _of_files([os.path.abspath(os.fspath(path)) for path in source])
    codes = check_codes(source, None, "codes")
    at_once = 1 << 22
    pieces = [
        Piece(ray().put(codes[at : at + at_once]), 0, min(at_once, len(codes) - at))
        for at in range(0, len(codes), at_once)
    ]
    return pieces, codes.shape[1]


def _of_files(paths: list[str]) -> tuple[list[Piece], int]:
    if not paths:
        raise ValueError("got no files of codes, expected at least one")
    pieces, code_size = [], None
    for path in paths:
        array = _mapped(path)
        check_layout(array, code_size, path)
        code_size = array.shape[1]
        pieces.append(Piece(path, 0, len(array)))
    assert code_size is not None
    return pieces, int(code_size)


def _of_dataset(dataset: Any, column: str) -> tuple[list[Piece], int]:
    columns = dataset.columns() or []
    if column not in columns:
        raise ValueError(f"got a dataset with columns {columns}, expected {column!r} among them")
    refs = dataset.to_numpy_refs(column=column)
    shapes = ray().get([ray().remote(_shape).options(num_cpus=0).remote(ref) for ref in refs])
    widths = {shape[1:] for dtype, shape in shapes if shape[0]}
    dtypes = {dtype for dtype, shape in shapes if shape[0]}
    if len(widths) != 1 or len(next(iter(widths))) != 1 or dtypes != {"uint8"}:
        raise ValueError(
            f"column {column!r}: got {sorted(dtypes)} rows of shapes {sorted(widths)}, expected "
            "uint8 (d / 8,), the same in all rows"
        )
    pieces = [
        Piece(ref, 0, shape[0]) for ref, (_, shape) in zip(refs, shapes, strict=True) if shape[0]
    ]
    return pieces, int(next(iter(widths))[0])


def _shape(array: Any) -> tuple[str, tuple[int, ...]]:
    return str(array.dtype), tuple(array.shape)


def _mapped(path: str) -> NDArray[np.uint8]:
    array: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _slice(pieces: list[Piece], begin: int, end: int) -> list[Piece]:
    """Rows [begin, end) of all of them together."""
    out, at = [], 0
    for piece in pieces:
        n = piece.end - piece.begin
        first, last = max(begin - at, 0), min(end - at, n)
        if first < last:
            out.append(Piece(piece.source, piece.begin + first, piece.begin + last))
        at += n
    return out

"""Code sets: a database of packed codes and the queries for it, from a name or from a file.

Held-out queries are items that are not in the database (test images, or rows taken out of a file).
Near-duplicate queries are fresh views of items that are. Planted queries exist for uniform codes.
Binarised codes of named data sets are kept in the cache, one file for each choice of parameters.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faiss_dmih.data import views
from faiss_dmih.data.binarize import METHODS, binarizer
from faiss_dmih.data.datasets import DATASETS, Dataset, load_dataset, located
from faiss_dmih.data.errors import InputError
from faiss_dmih.data.files import Progress, atomic_write, cache_dir, no_progress
from faiss_dmih.data.synthetic import GENERATORS, HELD_OUT, NEAR_DUPLICATE

Codes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

MAX_BITS = 4096
MAX_VIEWS = 32
"""Views of one item at most: beyond that a database is little but near duplicates."""

_RECIPE = 1
"""Part of every cache key; to be raised when the same parameters begin to give other codes."""
_CHUNK = 1 << 14


@dataclass(frozen=True)
class CodeSet:
    """`xb` (n, d/8) uint8 and `queries[kind]` (nq, d/8) uint8. `info` says how they were made."""

    name: str
    xb: Codes
    queries: dict[str, Codes]
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def d(self) -> int:
        return 8 * int(self.xb.shape[1])

    @property
    def n(self) -> int:
        return len(self.xb)


def check_bits(bits: int) -> None:
    """Raise `InputError` unless `bits` is a multiple of 8 that the index can hold."""
    if not 8 <= bits <= MAX_BITS or bits % 8:
        raise InputError(f"bits must be a multiple of 8 from 8 to {MAX_BITS}, got {bits}")


def synthetic_codes(name: str, *, bits: int, n: int, nq: int, seed: int, **options: Any) -> CodeSet:
    """What the generator of that name in `synthetic.GENERATORS` makes. Raises `InputError`."""
    check_bits(bits)
    if name not in GENERATORS:
        raise InputError(f"unknown synthetic code set {name!r}; known are {', '.join(GENERATORS)}")
    generator = GENERATORS[name]
    for option in options:
        if option not in generator.options:
            known = ", ".join(generator.options) or "none"
            raise InputError(f"{name} has no option {option!r}; its options are: {known}")
    xb, queries = generator.make(n, nq, bits, np.random.default_rng(seed), **options)
    return CodeSet(name, xb, queries, {"seed": seed, **options})


def dataset_codes(
    name: str,
    *,
    bits: int,
    n: int | None = None,
    nq: int | None = None,
    method: str = "itq",
    seed: int = 0,
    progress: Progress = no_progress,
) -> CodeSet:
    """Codes of a named data set, with held-out and near-duplicate queries.

    The database is the training items, then a view of each, then another view of each, cut at `n`
    (default: the training items alone). Queries are `nq` test items (default: 1,024, or all there
    are). Raises `InputError` or `DataUnavailable`.
    """
    check_bits(bits)
    if method not in METHODS:
        raise InputError(f"unknown binarisation {method!r}; known are {', '.join(METHODS)}")
    if name not in DATASETS:
        known = [*DATASETS, *GENERATORS]
        raise InputError(f"unknown data set {name!r}; known are {', '.join(known)}")
    key = {
        "recipe": _RECIPE,
        "dataset": name,
        "files": file_stamps(name),
        "bits": bits,
        "n": n,
        "nq": nq,
        "method": method,
        "seed": seed,
    }
    path = _cache_path(key)
    cached = _read_cache(path, name, key)
    if cached is not None:
        return cached
    dataset = load_dataset(name, progress)
    made = _binarise(dataset, bits, n, nq, method, seed, progress)
    with atomic_write(path) as file:
        np.savez(
            file,
            key=np.array(json.dumps(key)),
            info=np.array(json.dumps(made.info)),
            xb=made.xb,
            **{f"xq_{kind}": xq for kind, xq in made.queries.items()},  # type: ignore[arg-type]
        )
    return made


def file_stamps(name: str) -> list[list[str | int]]:
    """Name, size and time of each file of a named data set; empty if it is not here."""
    return [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in located(name) or []]


def _binarise(
    dataset: Dataset,
    bits: int,
    n: int | None,
    nq: int | None,
    method: str,
    seed: int,
    progress: Progress,
) -> CodeSet:
    base, test = dataset.train, dataset.test
    n = len(base) if n is None else n
    nq = min(1024, len(test)) if nq is None else nq
    _check_sizes(dataset.name, n, MAX_VIEWS * len(base), nq, len(test))
    progress(f"training {method} on {dataset.name}", 0, 0)
    encoder = binarizer(method, _as_floats(base[:n]), bits, seed)
    deviation = None if dataset.is_images else base.std(axis=0)

    def fresh(items: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
        if deviation is None:
            return views.image_views(items, rng)
        return views.feature_views(items, deviation, rng)

    xb = np.empty((n, bits // 8), np.uint8)
    for start, items in _blocks(base, n, seed, fresh):
        progress(f"encoding {dataset.name}", start, n)
        xb[start : start + len(items)] = encoder.encode(_as_floats(items))
    # Streams (seed, view) make the database; these two lie outside of them.
    held_out = test[np.random.default_rng([seed, MAX_VIEWS]).permutation(len(test))[:nq]]
    rng = np.random.default_rng([seed, MAX_VIEWS + 1])
    near = fresh(base[rng.integers(0, min(n, len(base)), nq)], rng)
    queries = {
        HELD_OUT: encoder.encode(_as_floats(held_out)),
        NEAR_DUPLICATE: encoder.encode(_as_floats(near)),
    }
    info = {
        "source": Path(dataset.source).name,
        "binarize": method,
        "seed": seed,
        "items": min(n, len(base)),
        "views_per_item": -(-n // len(base)),
        "distinct_codes": len(np.unique(xb.view(f"V{bits // 8}").ravel())),
    }
    return CodeSet(dataset.name, xb, queries, info)


def _blocks(
    base: npt.NDArray[Any], n: int, seed: int, fresh: Any
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """(position, items) for the first `n` of: all items, a view of each, another view, ..."""
    for view in range(-(-n // len(base))):
        rng = np.random.default_rng([seed, view])
        stop = min(len(base), n - view * len(base))
        for start in range(0, stop, _CHUNK):
            items = base[start : min(start + _CHUNK, stop)]
            yield view * len(base) + start, items if view == 0 else fresh(items, rng)


def _as_floats(items: npt.NDArray[Any]) -> Floats:
    return items.reshape(len(items), -1).astype(np.float32, copy=False)


def _check_sizes(name: str, n: int, n_available: int, nq: int, nq_available: int) -> None:
    if not 1 <= n <= n_available:
        raise InputError(f"{name}: n must be between 1 and {n_available:,} available, got {n:,}")
    if not 1 <= nq <= nq_available:
        raise InputError(
            f"{name}: queries must be between 1 and {nq_available:,} available, got {nq:,}"
        )


def file_codes(
    path: Path,
    *,
    bits: int | None = None,
    n: int | None = None,
    nq: int | None = None,
    method: str = "itq",
    seed: int = 0,
) -> CodeSet:
    """Codes of a .npy or .npz file with held-out queries. Raises `InputError`.

    A uint8 array (rows, d/8) is taken as packed codes, a float array (rows, dim) is binarised to
    `bits` (default 64). An .npz file holds one two-dimensional array, or `xb` and, if it likes,
    `xq`. Without `xq` the queries are `nq` random rows, taken out of the database.
    """
    rows, given = _read_file(path)
    _check_array(path, rows)
    if rows.dtype == np.uint8:
        check_bits(8 * rows.shape[1])
        if bits is not None and bits != 8 * rows.shape[1]:
            raise InputError(
                f"{path}: codes of {rows.shape[1]} bytes have {8 * rows.shape[1]} bits, but "
                f"{bits} were asked for; leave --bits out"
            )
    else:
        bits = 64 if bits is None else bits
        check_bits(bits)
    if given is not None:
        _check_array(path, given)
        if given.dtype != rows.dtype or given.shape[1] != rows.shape[1]:
            raise InputError(
                f"{path}: xq is {given.dtype} of width {given.shape[1]}, xb is {rows.dtype} of "
                f"width {rows.shape[1]}; they must agree"
            )
        nq = min(1024, len(given)) if nq is None else nq
        _check_sizes(str(path), len(rows) if n is None else n, len(rows), nq, len(given))
        base, xq = rows[:n], given[:nq]
    else:
        if len(rows) < 2:
            raise InputError(f"{path}: needs at least 2 rows, one of them the query, got 1")
        nq = min(1024, len(rows) // 2) if nq is None else nq
        _check_sizes(str(path), 1, 1, nq, len(rows) - 1)
        left = len(rows) - nq
        _check_sizes(str(path), left if n is None else n, left, nq, len(rows) - 1)
        order = np.random.default_rng(seed).permutation(len(rows))
        xq, base = rows[order[:nq]], rows[np.sort(order[nq:])][:n]
    info: dict[str, Any] = {"source": path.name, "seed": seed}
    if rows.dtype != np.uint8:
        encoder = binarizer(method, _as_floats(base), bits or 64, seed)
        base, xq = encoder.encode(_as_floats(base)), encoder.encode(_as_floats(xq))
        info["binarize"] = method
    return CodeSet(
        path.stem, np.ascontiguousarray(base), {HELD_OUT: np.ascontiguousarray(xq)}, info
    )


def _read_file(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded, None
            arrays = {key: loaded[key] for key in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: not a .npy or .npz file of codes ({error}); write one with "
            "numpy.save(path, codes), codes being uint8 of shape (n, bits / 8)"
        ) from error
    if "xb" in arrays:
        return arrays["xb"], arrays.get("xq")
    tables = [array for array in arrays.values() if array.ndim == 2]
    if len(tables) != 1:
        raise InputError(
            f"{path}: expected an array 'xb' (and perhaps 'xq') or a single two-dimensional array; "
            f"got {', '.join(f'{key} {a.dtype}{a.shape}' for key, a in arrays.items()) or 'none'}"
        )
    return tables[0], None


def _check_array(path: Path, rows: npt.NDArray[Any]) -> None:
    if rows.dtype != np.uint8 and rows.dtype.kind != "f":
        hint = "; pack bits with numpy.packbits(x, axis=1, bitorder='little')"
        raise InputError(
            f"{path}: got dtype {rows.dtype}, expected uint8 (packed codes) or float vectors{hint}"
        )
    if rows.ndim != 2 or 0 in rows.shape:
        raise InputError(
            f"{path}: got shape {rows.shape}, expected two axes, (n, bits / 8) for codes or "
            "(n, dim) for vectors, neither of length 0"
        )
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        raise InputError(f"{path}: holds NaN or infinite values; remove those rows")


def _cache_path(key: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return cache_dir() / "codes" / f"{key['dataset']}-{key['bits']}-{digest}.npz"


def _read_cache(path: Path, name: str, key: dict[str, Any]) -> CodeSet | None:
    """The cached set, or None when there is none or the file is damaged or of another key."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as z:
            if json.loads(str(z["key"])) != key:
                return None
            kinds = {f[3:]: z[f] for f in z.files if f.startswith("xq_")}
            return CodeSet(name, z["xb"], kinds, json.loads(str(z["info"])))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None

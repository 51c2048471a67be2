"""From float vectors to packed codes, by a named method.

`sign`
    Bit i is set where feature i exceeds its median over the training vectors. No projection, so
    the vectors must have as many features as the code has bits.
`lsh`
    faiss.IndexLSH with a random rotation (more bits than features: a random tight frame) and
    thresholds at the medians.
`itq`
    faiss.ITQTransform (Gong and Lazebnik 2011): centre, scale to unit length, PCA to `bits`
    dimensions, then the learned rotation; bits are signs. PCA gives at most as many dimensions as
    there are features; when more bits are asked for, the centred vectors are first mapped into
    `bits` dimensions by a random matrix with orthonormal columns, which keeps all distances, and
    ITQ learns its rotation there, so that the bits are signs on a learned tight frame. Vectors of
    more than `WIDE` features are first projected onto their leading subspace, which spares the
    full eigenvalue problem.

`faiss_dmih.baselines` has scikit-learn estimators: `LSH`, the same as here, and `ITQ`, whose
rotation is the paper's. FAISS's stays near the random one it begins with; benchmarks keep it, so
that their codes stay what they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import faiss
import numpy as np
import numpy.typing as npt

from faiss_dmih.data.errors import InputError

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]

MAX_TRAIN = 20_000
"""Training vectors used at most; a fixed stride picks them."""

WIDE = 1024
LONG_CODE = 256
LONG_CODE_ITERATIONS = 5
"""ITQ iterations above `LONG_CODE` bits, instead of FAISS's 50: an iteration factors a bits x bits
matrix (about a second at 512 bits), and the first few lower the quantisation error most."""


class Binarizer(ABC):
    """Trained on (n, dim) float32 vectors, turns such vectors into (n, bits/8) packed codes.

    `limit` of the vectors are trained on, at most.
    """

    name: ClassVar[str]

    def __init__(self, x: Floats, bits: int, seed: int, *, limit: int = MAX_TRAIN) -> None:
        self.bits = bits
        stride = -(-len(x) // limit)
        self._train(np.ascontiguousarray(x[::stride], dtype=np.float32), seed)

    @abstractmethod
    def _train(self, x: Floats, seed: int) -> None: ...

    @abstractmethod
    def encode(self, x: Floats) -> Codes:
        """(n, dim) float32 to (n, bits/8) uint8, bit i in byte i // 8 at place i % 8."""


class Sign(Binarizer):
    name = "sign"

    def _train(self, x: Floats, seed: int) -> None:
        if x.shape[1] != self.bits:
            raise InputError(
                f"binarisation 'sign' needs as many features as bits: got {x.shape[1]} features "
                f"and {self.bits} bits; choose 'itq' or 'lsh', or --bits {x.shape[1]}"
            )
        self._threshold = np.median(x, axis=0)

    def encode(self, x: Floats) -> Codes:
        return np.packbits(x > self._threshold, axis=1, bitorder="little")


class Lsh(Binarizer):
    name = "lsh"

    def _train(self, x: Floats, seed: int) -> None:
        # IndexLSH draws its rotation from a fixed seed of its own, so a seeded one is put in.
        index = faiss.IndexLSH(x.shape[1], self.bits, True, True)
        index.rrot.init(seed)
        index.train(x)
        self._index: Any = index

    @property
    def hyperplanes(self) -> tuple[Floats, Floats]:
        """Normals (bits, dim), and the thresholds (bits,) of the products with them."""
        normals = faiss.vector_to_array(self._index.rrot.A).reshape(self.bits, -1)
        return normals, faiss.vector_to_array(self._index.thresholds)

    def encode(self, x: Floats) -> Codes:
        codes: Codes = self._index.sa_encode(np.ascontiguousarray(x, dtype=np.float32))
        return codes


class Itq(Binarizer):
    name = "itq"

    def _train(self, x: Floats, seed: int) -> None:
        dim = x.shape[1]
        self._mean = x.mean(axis=0)
        x = x - self._mean
        self._linear: Floats | None = None
        if self.bits > dim:
            self._linear = _orthonormal(self.bits, dim, np.random.default_rng(seed)).T.copy()
        elif dim > max(WIDE, 2 * self.bits):
            self._linear = _leading_subspace(x, max(WIDE // 2, 2 * self.bits), seed)
        if self._linear is not None:
            x = x @ self._linear
        itq = faiss.ITQTransform(x.shape[1], self.bits, self.bits <= dim)
        itq.itq.seed = seed
        if self.bits > LONG_CODE:
            itq.itq.max_iter = LONG_CODE_ITERATIONS
        with _one_thread():
            itq.train(x)
        self._itq: Any = itq

    def encode(self, x: Floats) -> Codes:
        x = np.asarray(x, dtype=np.float32) - self._mean
        if self._linear is not None:
            x = x @ self._linear
        return np.packbits(self._itq.apply(x) > 0, axis=1, bitorder="little")


@contextmanager
def _one_thread() -> Iterator[None]:
    """ITQ factors many small matrices: threads gain little, and lose much on a busy machine."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _orthonormal(rows: int, columns: int, rng: np.random.Generator) -> Floats:
    """(rows, columns) with orthonormal columns, drawn at random."""
    return np.linalg.qr(rng.standard_normal((rows, columns), dtype=np.float32))[0]


def _leading_subspace(x: Floats, size: int, seed: int) -> Floats:
    """(dim, size) orthonormal basis of the directions of largest variance of centred `x`."""
    covariance = x.T @ x
    basis = _orthonormal(x.shape[1], size, np.random.default_rng(seed))
    for _ in range(4):
        basis = np.linalg.qr(covariance @ basis)[0]
    return basis


METHODS: dict[str, type[Binarizer]] = {cls.name: cls for cls in (Sign, Lsh, Itq)}


def binarizer(method: str, x: Floats, bits: int, seed: int) -> Binarizer:
    """The method called `method`, trained on `x` (n, dim) float32. Raises `InputError`."""
    if method not in METHODS:
        raise InputError(f"unknown binarisation {method!r}; known are {', '.join(METHODS)}")
    if len(x) == 0:
        raise InputError("binarisation needs at least one training vector, got none")
    return METHODS[method](x, bits, seed)

"""cuda/offsets.cu: the buckets of a table, compared with NumPy's."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from faiss_dmih.gpu.kernels import Launcher


def keys_of(codes: NDArray[np.uint64], first: int, bits: int) -> NDArray[np.int64]:
    """Bit by bit."""
    all_bits = np.unpackbits(codes.view(np.uint8), axis=1, bitorder="little").astype(np.int64)
    return all_bits[:, first : first + bits] @ (1 << np.arange(bits))


@st.composite
def tables(draw: st.DrawFn) -> tuple[NDArray[np.uint64], int, int, int]:
    """Codes, the words they are compiled for, and a substring of at most 12 bits."""
    words = draw(st.sampled_from([1, 2, 3, 4, 5]))
    compiled = words if words in (1, 2, 4) and draw(st.booleans()) else 0
    n = draw(st.sampled_from([0, 1, 31, 255, 256, 257, 1000, 3000]))
    bits = draw(st.integers(1, 12))
    last = 64 * words - bits
    edges = [0, 64 - bits, min(65 - bits, last), last]
    first = draw(st.sampled_from(edges) | st.integers(0, last))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    codes = rng.integers(0, 2**64, (n, words), dtype=np.uint64)
    if n and draw(st.booleans()):  # few distinct ones
        codes = codes[rng.integers(0, min(n, 5), n)]
    return codes, compiled, first, bits


@given(table=tables(), blocks=st.sampled_from([1, 3, 20]), threads=st.sampled_from([32, 100, 256]))
def test_buckets(
    launcher: Launcher,
    table: tuple[NDArray[np.uint64], int, int, int],
    blocks: int,
    threads: int,
) -> None:
    codes, compiled, first, bits = table
    n, words = codes.shape
    rows = (codes, np.int64(n), np.int32(words), np.int32(first), np.int32(bits))
    keys = keys_of(codes, first, bits)

    counts = np.zeros(1 << bits, np.uint32)
    launcher.kernel("offsets", "bucket_counts", kWords=compiled)(
        (blocks,), (threads,), (*rows, counts)
    )
    np.testing.assert_array_equal(counts, np.bincount(keys, minlength=1 << bits))

    ends = np.cumsum(counts, dtype=np.uint32)
    cursor = ends - counts
    slots = np.full(n, 2**32 - 1, np.uint32)
    fill = launcher.kernel("offsets", "bucket_fill", kWords=compiled)
    fill((blocks,), (threads,), (*rows, cursor, slots))
    np.testing.assert_array_equal(cursor, ends)
    np.testing.assert_array_equal(keys[slots], np.sort(keys))
    np.testing.assert_array_equal(np.sort(slots), np.arange(n))


def test_a_large_table(launcher: Launcher) -> None:
    """A key of 20 bits across two words."""
    codes = np.random.default_rng(0).integers(0, 2**64, (5000, 2), dtype=np.uint64)
    counts = np.zeros(1 << 20, np.uint32)
    numbers = (np.int64(5000), np.int32(2), np.int32(51), np.int32(20))
    launcher.kernel("offsets", "bucket_counts", kWords=2)((20,), (256,), (codes, *numbers, counts))
    np.testing.assert_array_equal(counts, np.bincount(keys_of(codes, 51, 20), minlength=1 << 20))

"""The kernels that measure limits, and cuda/random_words.cu, do what they claim: their sums are
NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from faiss_dmih.gpu.kernels import Launcher

CHAINS = LOADS = 8


def launched(
    launcher: Launcher,
    name: str,
    blocks: int,
    threads: int,
    *args: object,
    file: str = "ceilings",
    shared: int = 0,
) -> int:
    """The kernel's sum, from something to which it has to be added."""
    total = np.full(1, 2**64 - 5, np.uint64)
    launcher.kernel(file, name)((blocks,), (threads,), (*args, total), shared=shared)
    return (int(total[0]) + 5) % 2**64


def words(n: int) -> NDArray[np.uint32]:
    return np.random.default_rng(n).integers(0, 2**32, n, dtype=np.uint32)


@pytest.mark.parametrize("steps", [0, 1, 4, 7])
@pytest.mark.parametrize(("blocks", "threads"), [(1, 32), (3, 96), (2, 256)])
def test_popc_rate(launcher: Launcher, steps: int, blocks: int, threads: int) -> None:
    x = np.arange(CHAINS * blocks * threads, dtype=np.uint32)
    bits = 0
    for _ in range(steps):
        x = x * np.uint32(747796405) + np.uint32(2891336453)
        bits += int(np.unpackbits(x.view(np.uint8)).sum())
    assert launched(launcher, "popc_rate", blocks, threads, np.int32(steps)) == bits


@pytest.mark.parametrize("n", [0, 1, 31, 64 * LOADS, 64 * LOADS - 1, 3000])
@pytest.mark.parametrize(("blocks", "threads"), [(1, 64), (2, 256)])
def test_read_memory(launcher: Launcher, n: int, blocks: int, threads: int) -> None:
    data = words(4 * n)
    got = launched(launcher, "read_memory", blocks, threads, data, np.int64(n))
    assert got == int(data.sum(dtype=np.uint64))


def mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ x >> np.uint64(shift)) * np.uint64(factor) & np.uint64(2**32 - 1)
    return x ^ x >> np.uint64(16)


@pytest.mark.parametrize(("n", "rounds"), [(1, 1), (7, 2), (1000, 3), (4096, 0)])
@pytest.mark.parametrize(("blocks", "threads"), [(1, 32), (2, 256)])
def test_read_sectors(launcher: Launcher, n: int, rounds: int, blocks: int, threads: int) -> None:
    data = words(8 * n)
    asked = np.arange(LOADS * rounds * blocks * threads, dtype=np.uint64)
    sectors = mixed(asked) * np.uint64(n) >> np.uint64(32)
    got = launched(launcher, "read_sectors", blocks, threads, data, np.uint32(n), np.int32(rounds))
    assert got == int(data[8 * sectors].sum(dtype=np.uint64))


def bits(x: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Of 32-bit words, (n, words) as (n, 32 words)."""
    return np.unpackbits(x.astype("<u4").view(np.uint8), axis=-1, bitorder="little")


@pytest.mark.parametrize(("steps", "blocks", "threads"), [(0, 1, 32), (1, 3, 64), (5, 2, 256)])
def test_mma_rate(launcher: Launcher, steps: int, blocks: int, threads: int) -> None:
    words = mixed(np.arange(6 * 32, dtype=np.uint64)).reshape(6, 8, 4)  # g, t
    a = [np.concatenate([words[i], words[i + 2]], axis=1) for i in range(2)]
    b = np.concatenate([words[4], words[5]], axis=1)
    pairs = bits(np.concatenate(a)).astype(np.int64) @ bits(b).T.astype(np.int64)
    args = (np.int32(steps),)
    got = launched(launcher, "mma_rate", blocks, threads, *args, file="ceiling_mma")
    assert got == int(pairs.sum()) * CHAINS * steps * blocks * threads // 32


@pytest.mark.parametrize(("steps", "blocks", "threads"), [(0, 1, 32), (1, 3, 64), (5, 2, 256)])
def test_imma_rate(launcher: Launcher, steps: int, blocks: int, threads: int) -> None:
    words = mixed(np.arange(6 * 32, dtype=np.uint64)).reshape(6, 8, 4)  # g, t
    a = [np.concatenate([words[i], words[i + 2]], axis=1) for i in range(2)]
    b = np.concatenate([words[4], words[5]], axis=1)
    rows, columns = (x.astype("<u4").view(np.int8).astype(int) for x in (np.concatenate(a), b))
    args = (np.int32(steps),)
    got = launched(launcher, "imma_rate", blocks, threads, *args, file="ceiling_imma")
    expected = int((rows @ columns.T).sum()) * CHAINS * steps * blocks * threads // 32
    assert got == expected % 2**64


@pytest.mark.parametrize(("steps", "blocks"), [(0, 1), (1, 2), (5, 1)])
def test_wgmma_rate(launcher: Launcher, steps: int, blocks: int) -> None:
    words = mixed(np.arange(8 * (64 + 256), dtype=np.uint64)).reshape(-1, 4)
    a, b = (words[first : first + 2 * n].reshape(2, n, 4) for first, n in ((0, 64), (128, 256)))
    rows = [bits(np.concatenate([x[0], x[1]], axis=1)).astype(np.int64) for x in (a, b)]
    expected = int((rows[0] @ rows[1].T).sum())
    args = (np.int32(steps),)
    file, shared = "ceiling_wgmma", 32 * (64 + 256)
    got = launched(launcher, "wgmma_rate", blocks, 256, *args, file=file, shared=shared)
    assert got == expected * steps * blocks * 2


def test_random_sectors_are_spread() -> None:
    counts = np.bincount((mixed(np.arange(100_000, dtype=np.uint64)) >> np.uint64(24)).astype(int))
    assert len(counts) == 256
    assert abs(counts - 390.6).max() < 6 * 390.6**0.5


def splitmix(seed: int, count: int) -> list[int]:
    found = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) % 2**64
        z = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        found.append(z ^ z >> 31)
    return found


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
@pytest.mark.parametrize("n", [1, 700])
def test_random_words(launcher: Launcher, seed: int, n: int) -> None:
    out = np.zeros(n + 1, np.uint64)
    fill = launcher.kernel("random_words", "random_words")
    fill((2,), (96,), (np.uint64(seed), np.int64(n), out))
    assert out.tolist() == [*splitmix(seed, n), 0]


def test_random_words_are_splitmix64s(launcher: Launcher) -> None:
    """The numbers that its author publishes for this seed."""
    out = np.zeros(3, np.uint64)
    launcher.kernel("random_words", "random_words")(
        (1,), (32,), (np.uint64(1234567), np.int64(3), out)
    )
    assert out.tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]

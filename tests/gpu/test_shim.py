"""The CPU executor itself: what is right in CUDA gives CUDA's answers, what is wrong is found."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from shim import KernelFault, ShimLauncher

from faiss_dmih.gpu.kernels import Launcher

KERNELS = Path(__file__).parent / "kernels"
SOUND = str(KERNELS / "sound")
FAULTY = str(KERNELS / "faulty")


def sound(launcher: Launcher, name: str, threads: int = 256) -> Any:
    return launcher.kernel(SOUND, name, kThreads=threads)


def test_indices(launcher: Launcher) -> None:
    out = np.zeros((2 * 3 * 2, 5 * 3 * 2), np.uint32)
    sound(launcher, "indices")((2, 3, 2), (5, 3, 2), (out,))
    np.testing.assert_array_equal(out, 1000 * np.arange(12)[:, None] + np.arange(30))


@pytest.mark.parametrize("threads", [96, 256])
def test_block_sum(launcher: Launcher, threads: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**60, (20, threads), dtype=np.uint64)
    sums = np.zeros(20, np.uint64)
    sound(launcher, "block_sum", threads)((20,), (threads,), (values, sums))
    np.testing.assert_array_equal(sums, values.sum(axis=1))


@pytest.mark.parametrize("threads", [1, 33, 256, 1024])
def test_block_scan(launcher: Launcher, threads: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 1000, (3, threads), dtype=np.uint32)
    out = np.zeros_like(values)
    sound(launcher, "block_scan")((3,), (threads,), (values, out), shared=4 * threads)
    np.testing.assert_array_equal(out, values.cumsum(axis=1) - values)


def test_histogram(launcher: Launcher) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, 5001, dtype=np.uint8)
    counts = np.zeros(256, np.uint32)
    sound(launcher, "histogram")((7,), (100,), (values, np.int32(len(values)), counts))
    np.testing.assert_array_equal(counts, np.bincount(values, minlength=256))


@pytest.mark.parametrize("argument", [0, 1, 5, 9, 31])
def test_shuffles(launcher: Launcher, argument: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-1000, 1000, 32, dtype=np.int32)
    out = np.zeros((8, 32), np.int32)
    sound(launcher, "shuffles")((1,), (32,), (values, np.int32(argument), out))
    expected = []
    lane = np.arange(32)
    for width in (8, 32):
        first = lane // width * width
        last = first + width - 1
        up, down, xor = lane - argument, lane + argument, lane ^ argument
        expected += [
            values[first + argument % width],
            values[np.where(up >= first, up, lane)],
            values[np.where(down <= last, down, lane)],
            values[np.where(xor <= last, xor, lane)],
        ]
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("side", [0, 0xFFFF, 0x55555555, 1])
def test_votes(launcher: Launcher, side: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-6, 7, 32, dtype=np.int32)
    out = np.zeros((10, 32), np.uint32)
    sound(launcher, "votes")((1,), (32,), (values, np.uint32(side), out))
    for members in (
        [i for i in range(32) if side >> i & 1],
        [i for i in range(32) if ~side >> i & 1],
    ):
        mine = values[members]
        unsigned = mine.view(np.uint32)
        for lane in members:
            expected = [
                sum(1 << i for i in members if values[i] & 1),
                (mine > 5).any(),
                (mine > -5).all(),
                sum(1 << i for i in members if values[i] == values[lane]),
                int(mine.sum()) % 2**32,
                int(mine.min()) % 2**32,
                unsigned.max(),
                np.bitwise_and.reduce(unsigned),
                np.bitwise_or.reduce(unsigned),
                np.bitwise_xor.reduce(unsigned),
            ]
            np.testing.assert_array_equal(out[:, lane], expected)


def test_an_older_gpu_lacks_warp_reductions(shim_cache: Path) -> None:
    out = np.zeros((10, 32), np.uint32)
    values = np.ones(32, np.int32)
    turing = ShimLauncher(shim_cache, arch=750)
    sound(turing, "votes")((1,), (32,), (values, np.uint32(0), out))
    assert (out[0] == 2**32 - 1).all()
    assert not out[4:].any()


@pytest.mark.parametrize("stay", [1, 40, 128])
def test_barriers_are_for_those_that_stay(launcher: Launcher, stay: int) -> None:
    out = np.zeros(128, np.int32)
    sound(launcher, "barriers")((1,), (128,), (out, np.int32(stay)))
    assert (out[:stay] == 100 * len(range(0, stay, 3)) + 10).all()
    assert not out[stay:].any()


def test_atomics(launcher: Launcher) -> None:
    out = np.array([0, 0, 1000, 0, 2**32 - 1, 0, 0, 0, 0], np.uint32)
    smallest, wide, real = np.zeros(1, np.int32), np.zeros(2, np.uint64), np.zeros(1, np.float32)
    sound(launcher, "atomics")((1,), (100,), (out, smallest, wide, real))
    total = sum(range(100))
    assert out.tolist() == [total, 2**32 - total, 5, 104, 0, 2**32 - 1, 0, 1, 200]
    assert (smallest[0], wide.tolist(), real[0]) == (3 - 99, [total << 40, 1], 50)


def test_arithmetic(launcher: Launcher) -> None:
    rng = np.random.default_rng(0)
    edges = np.array([0, 1, 2**31, 2**32 - 1], np.uint32)
    x = np.concatenate([np.repeat(edges, 4), rng.integers(0, 2**32, 50, dtype=np.uint32)])
    y = np.concatenate([np.tile(edges, 4), rng.integers(0, 2**32, 50, dtype=np.uint32)])
    out = np.zeros((len(x), 16), np.uint64)
    sound(launcher, "arithmetic")((3,), (32,), (x, y, out, np.int32(len(x))))
    for a, b, row in zip(x.tolist(), y.tolist(), out.tolist(), strict=True):
        both = b << 32 | a
        digits = [both >> 8 * at & 0xFF for at in (6, 3, 7, 1)]  # the selector's, lowest first
        assert row == [
            *(a.bit_count(), both.bit_count(), 32 - a.bit_length(), 64 - both.bit_length()),
            *((a & -a).bit_length(), (both & -both).bit_length(), int(f"{a:032b}"[::-1], 2)),
            sum(digit << 8 * i for i, digit in enumerate(digits)),
            *((both << 7 >> 32) % 2**32, (both >> 7) % 2**32, min(a, b), max(a, b), a * b >> 32),
            *((a & b) | (a & a >> 3) | (b & a >> 3), a, b),
        ]


def test_relay(launcher: Launcher) -> None:
    out = np.zeros(70, np.uint32)
    sound(launcher, "relay")((1,), (70,), (out,))
    np.testing.assert_array_equal(out, np.arange(70))


def test_ucontext_serves_where_the_switch_is_not_written(shim_cache: Path) -> None:
    test_block_scan(ShimLauncher(shim_cache, flags=("-DSHIM_UCONTEXT",)), 256)


def test_speed(shim_cache: Path) -> None:
    """More than 1e7 switches/s on an idle machine of 2026; a system call each would be too slow."""
    kernel = sound(ShimLauncher(shim_cache), "rounds")
    kernel((1,), (256,), (np.int32(1),))
    start = time.process_time()
    kernel((20,), (256,), (np.int32(200),))
    assert 20 * 256 * 200 / (time.process_time() - start) > 3e6


FAULTS = {
    "half_a_warp_shuffles": r"block \([01], 0, 0\): deadlock; threads 0-15 wait at "
    r"__shfl_xor_sync\(mask 0xffffffff\) in faulty\.cu:5; threads 16-63 wait at "
    r"__syncthreads\(\) in faulty\.cu:6$",
    "two_barriers": r"different barriers; threads 0-31 wait at __syncthreads\(\) in faulty\.cu:12; "
    r"threads 32-63 wait at __syncthreads\(\) in faulty\.cu:15$",
    "ballot_meets_shuffle": r"different operations meet; .*(__ballot_sync|__shfl_sync)",
    "mask_without_self": r"thread (0|32): the mask does not name the thread itself",
    "width_of_three": r"the width is not a power of two",
    "waits_for_nobody": r"threads sleep and nothing else happens",
    "trap": r"block \(1, 0, 0\), thread 3: __trap\(\) in faulty\.cu:\d+",
    "too_much_shared": r"more than 48 KiB of static shared memory",
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("sanitize", [False, True])
def test_faults_are_named(name: str, sanitize: bool, shim_cache: Path) -> None:
    kernel = ShimLauncher(shim_cache, sanitize=sanitize).kernel(FAULTY, name)
    with pytest.raises(KernelFault, match=rf"(?m)^kernel {name}, .*{FAULTS[name]}"):
        kernel((2,), (64,), (np.zeros(64, np.uint32),))


def answers(name: str, cache: Path, threads: int) -> list[NDArray[np.uint32]]:
    found = []
    for seed in range(4):
        out = np.zeros(threads, np.uint32)
        kernel = ShimLauncher(cache, seed=seed).kernel(FAULTY, name)
        kernel((1,), (threads,), (out,), shared=4 * threads)
        found.append(out)
    return found


@pytest.mark.parametrize(
    ("name", "threads"),
    [
        ("uninitialised", 32),
        ("uninitialised_dynamic", 32),
        ("inactive_source", 32),
    ],
)
def test_what_depends_on_chance_varies(name: str, threads: int, shim_cache: Path) -> None:
    found = answers(name, shim_cache, threads)
    assert len({out.tobytes() for out in found}) == len(found)


RACES = {
    "missing_syncwarp": r"(?=.*a read )(?=.*a write ).* byte \d+ of values",
    "missing_second_barrier": r"(?=.*a read )(?=.*a write ).* byte \d+ of values",
    "counts_after_a_vote": r"(?=.*a read )(?=.*an atomic ).* byte 0 of counter",
    "counts_without_atomics": r".* byte 0 of array 0 that it writes to",
    "blocks_write_one_word": r"a write by thread (\d+) and a write by thread \1 of another block",
    "reads_what_others_count": r"(?=.*a read )(?=.*an atomic ).* of another block, unordered",
}


@pytest.mark.parametrize("name", RACES)
def test_races(name: str, shim_cache: Path) -> None:
    for seed in range(4):
        kernel = ShimLauncher(shim_cache, seed=seed).kernel(FAULTY, name)
        with pytest.raises(KernelFault, match=f"^kernel {name}, .*: a race: {RACES[name]}"):
            kernel((2,), (64,), (np.zeros(64, np.uint32),))


ASYNCHRONOUS = {
    1: "by the tensor cores .*, a race: a read by thread 257 and a write by thread",
    2: "deadlock; threads 0-255 wait at an mbarrier",
    3: "a thread ends while a wgmma is under way",
    4: "no wgmma.fence since the accumulators were touched",
    6: "a race: ",
    7: "an operand of wgmma reaches beyond the dynamic shared memory",
    8: "there is no mbarrier there|does not know yet that the mbarrier is made",
    9: "there is no mbarrier there",
}


def product(cache: Path, fault: int, seed: int, sanitize: bool = False) -> tuple[Any, Any]:
    """The counts that a warpgroup finds, and those of all bits, as the PTX ISA lays them out."""
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(0, 2**64, (2, n, 2), dtype=np.uint64) for n in (64, 256))
    out = np.zeros((128, 128), np.int32)
    launcher = ShimLauncher(cache, seed=seed, sanitize=sanitize)
    kernel = launcher.kernel(str(KERNELS / "asynchronous"), "product", kFault=fault)
    kernel((1,), (256,), (a, b, out), shared=a.nbytes + b.nbytes)
    bits_a, bits_b = (
        np.unpackbits(np.concatenate(list(x), axis=1).view(np.uint8), axis=1).astype(np.int32)
        for x in (a, b)
    )
    counts = bits_a @ bits_b.T
    t, i = np.arange(128)[:, None], np.arange(128)
    rows = t // 32 * 16 + t % 32 // 4 + i // 2 % 2 * 8
    return out, counts[rows, i // 4 * 8 + t % 4 * 2 + i % 2]


@pytest.mark.parametrize("sanitize", [False, True])
def test_products_of_warpgroups(sanitize: bool, shim_cache: Path) -> None:
    for seed in range(4):
        found, expected = product(shim_cache, 0, seed, sanitize)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("fault", ASYNCHRONOUS)
def test_faults_beside_the_threads(fault: int, shim_cache: Path) -> None:
    for seed in range(4):
        with pytest.raises(KernelFault, match=ASYNCHRONOUS[fault]):
            product(shim_cache, fault, seed)


def test_results_are_there_when_they_were_waited_for(shim_cache: Path) -> None:
    wrong = [not np.array_equal(*product(shim_cache, 5, seed)) for seed in range(12)]
    assert any(wrong)


def test_arrays_do_not_overlap(shim_cache: Path) -> None:
    kernel = ShimLauncher(shim_cache).kernel(FAULTY, "reads_beyond_global")
    both = np.zeros(65, np.uint32)
    kernel((1,), (32,), (both[32:], both[:32]))
    with pytest.raises(KernelFault, match="arguments 1 and 0 overlap"):
        kernel((1,), (32,), (both[31:], both[:32]))


@pytest.mark.parametrize("sanitize", [False, True])
@pytest.mark.parametrize("name", ["beyond_static", "beyond_dynamic"])
def test_writes_beside_shared_memory(name: str, sanitize: bool, shim_cache: Path) -> None:
    kernel = ShimLauncher(shim_cache, sanitize=sanitize).kernel(FAULTY, name)
    kernel((1,), (1,), (np.array([3, 0], np.int32),), shared=16)
    # ASan's resolution is 8 bytes; the guards see what it does not.
    expected = "a write beside shared variable" + "|use-after-poison" * sanitize
    for at in (-1, 4):
        with pytest.raises(KernelFault, match=expected):
            kernel((1,), (1,), (np.array([at, 0], np.int32),), shared=16)


SANITIZED = {
    "beyond_global": ("heap-buffer-overflow", (np.zeros(7, np.uint32), np.int32(7))),
    "reads_beyond_global": (
        "heap-buffer-overflow",
        (np.zeros(32, np.uint32), np.zeros(32, np.uint32)),
    ),
    "reads_beyond_dynamic": ("use-after-poison", (np.full(1, 4, np.int32),)),
    "shifts_too_far": ("shift exponent 32", (np.zeros(1, np.uint32), np.int32(32))),
    "unaligned": ("misaligned address", (np.zeros(32, np.uint32),)),
}


@pytest.mark.parametrize("name", SANITIZED)
def test_sanitizers(name: str, shim_cache: Path) -> None:
    message, args = SANITIZED[name]
    kernel = ShimLauncher(shim_cache, sanitize=True).kernel(FAULTY, name)
    with pytest.raises(KernelFault, match=f"(?s){message}.*faulty.cu|faulty.cu.*{message}"):
        kernel((1,), (32,), args, shared=16)


@pytest.mark.parametrize("sanitize", [False, True])
def test_launches_that_cannot_be(sanitize: bool, shim_cache: Path) -> None:
    kernel = ShimLauncher(shim_cache, sanitize=sanitize).kernel(FAULTY, "narrow")
    out, n, vectors = np.zeros(64, np.uint32), np.int32(64), np.zeros(4, np.uint32)
    kernel((1,), (64,), (out, n, vectors))
    read_only = out.copy()
    read_only.flags.writeable = False
    for grid, block, args, message in (
        ((1,), (65,), (out, n, vectors), "65 x 1 x 1 threads; it takes 1 to 64"),
        ((0,), (64,), (out, n, vectors), "a grid of 0 x 1 x 1"),
        ((1,), (64,), (out, n), "got 2 arguments, takes 3"),
        ((1,), (64,), (out, np.int64(64), vectors), "argument 1: got i8, the kernel takes i4"),
        ((1,), (64,), (out.view(np.int32), n, vectors), "argument 0: got an array of i4"),
        ((1,), (64,), (out, n, vectors[:3].copy()), "argument 2: .* bytes are left over"),
        ((1,), (64,), (read_only, n, vectors), "argument 0: the kernel writes to a read-only"),
    ):
        with pytest.raises(KernelFault, match=message):
            kernel(grid, block, args)
    for args in ((out[::2], n, vectors), (out, 64, vectors)):
        with pytest.raises(TypeError, match="expected"):
            kernel((1,), (64,), args)


def test_what_does_not_compile(shim_cache: Path, tmp_path: Path) -> None:
    for text, message in (
        ("__global__ void f() { int x = y; }", r"broken.cu:1:.*y. was not declared"),
        ("__global__ void f() { __shared__ int x, y; }", "one variable a statement"),
        ("__device__ void f() {}", "has no kernel f"),
    ):
        (tmp_path / "broken.cu").write_text(text)
        with pytest.raises(KernelFault, match=message):
            ShimLauncher(shim_cache).kernel(str(tmp_path / "broken"), "f")

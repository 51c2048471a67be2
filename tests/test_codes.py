"""Packing, unpacking, and what is taken as codes."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from faiss_dmih import codes

BITS = npst.arrays(bool, st.tuples(st.integers(0, 9), st.integers(0, 20).map(lambda b: b * 8)))


class Arrayish:
    """An array known by one protocol only, as those of other libraries are."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array


class WithArray(Arrayish):
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.array, dtype=dtype)


class WithDLPack(Arrayish):
    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class OnDevice(WithDLPack):
    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


@given(BITS)
def test_pack_puts_bit_b_in_byte_b_div_8(bits: np.ndarray) -> None:
    packed = codes.pack(bits)
    n, d = bits.shape
    assert packed.dtype == np.uint8
    assert packed.shape == (n, d // 8)
    loops = [[bool(packed[i, b // 8] >> (b % 8) & 1) for b in range(d)] for i in range(n)]
    assert loops == bits.tolist()


@given(BITS, st.sampled_from(["?", "u1", "i8", "f4"]))
def test_pack_and_unpack_are_inverse(bits: np.ndarray, dtype: str) -> None:
    unpacked = codes.unpack(codes.pack(bits.astype(dtype)))
    assert unpacked.dtype == np.bool_
    np.testing.assert_array_equal(unpacked, bits, strict=True)


@given(BITS, st.data())
def test_unpack_keeps_the_first_d_bits(bits: np.ndarray, data: st.DataObject) -> None:
    d = data.draw(st.integers(0, bits.shape[1]))
    np.testing.assert_array_equal(codes.unpack(codes.pack(bits), d), bits[:, :d], strict=True)


def test_pack_agrees_with_faiss() -> None:
    bits = np.random.default_rng(0).random((50, 96)) < 0.5
    floats = np.where(bits, 1.0, -1.0).astype(np.float32)
    faiss_codes = np.empty((50, 12), dtype=np.uint8)
    faiss.fvecs2bitvecs(faiss.swig_ptr(floats), faiss.swig_ptr(faiss_codes), 96, 50)
    np.testing.assert_array_equal(codes.pack(bits), faiss_codes, strict=True)


@pytest.mark.parametrize(
    ("bits", "error", "message"),
    [
        (np.zeros(8), ValueError, r"got shape \(8,\), expected \(n, d\)"),
        (np.zeros((1, 8, 8)), ValueError, r"got shape \(1, 8, 8\), expected \(n, d\)"),
        (np.zeros((2, 12)), ValueError, r"got 12 bits per code, expected a multiple of 8"),
        (np.full((1, 8), 2), ValueError, r"other than 0 and 1.*pass `x > 0`"),
        (np.full((1, 8), -1.0), ValueError, r"other than 0 and 1"),
        (np.full((1, 8), np.nan), ValueError, r"other than 0 and 1"),
        (np.full((1, 8), "1"), TypeError, r"got dtype <U1, expected bool or a number type"),
    ],
)
def test_pack_refuses(bits: np.ndarray, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        codes.pack(bits)


@pytest.mark.parametrize("d", [-1, 17])
def test_unpack_refuses(d: int) -> None:
    with pytest.raises(ValueError, match=rf"got d = {d}, expected 0 to 16"):
        codes.unpack(np.zeros((3, 2), np.uint8), d)


def test_codes_in_order_are_not_copied() -> None:
    x = np.arange(24, dtype=np.uint8).reshape(3, 8)
    assert codes.check_codes(x, 8) is x
    for wrapped in (WithArray(x), WithDLPack(x)):
        checked = codes.check_codes(wrapped, 8)
        assert np.shares_memory(checked, x)
        np.testing.assert_array_equal(checked, x, strict=True)


def test_read_only_codes_are_taken() -> None:
    x = np.zeros((3, 8), dtype=np.uint8)
    x.flags.writeable = False
    assert codes.check_codes(x, 8) is x


@pytest.mark.parametrize(
    "view",
    [lambda x: x[::2], lambda x: x[:, ::-1], lambda x: np.asfortranarray(x), lambda x: x.T[:16].T],
    ids=["strided", "reversed", "fortran", "columns"],
)
def test_codes_out_of_order_are_copied(view: Any) -> None:
    x = view(np.random.default_rng(1).integers(0, 256, (20, 32), dtype=np.uint8))
    checked = codes.check_codes(x, x.shape[1])
    assert checked.flags.c_contiguous
    np.testing.assert_array_equal(checked, x, strict=True)


def test_no_codes_are_codes() -> None:
    assert codes.check_codes(np.empty((0, 8), dtype=np.uint8), 8).shape == (0, 8)


@pytest.mark.parametrize("dtype", ["i1", "?", "u2", "f4", "O"])
@pytest.mark.parametrize("shape", [(3, 8), (3,)])
def test_wrong_dtype(dtype: str, shape: tuple[int, ...]) -> None:
    x = np.zeros(shape, dtype=dtype)
    with pytest.raises(TypeError, match=rf"xb: got dtype {x.dtype}, expected uint8; .*pack"):
        codes.check_codes(x, 8, "xb")


@pytest.mark.parametrize("x", [None, "codes", object(), [[1.5, 2.0]]])
def test_not_an_array(x: Any) -> None:
    with pytest.raises(TypeError, match=r"x: got dtype .*, expected uint8"):
        codes.check_codes(x, 8)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8,), r"got shape \(8,\), expected \(n, code_size\).*pass x\[None, :\]"),
        ((2, 3, 8), r"got shape \(2, 3, 8\), expected \(n, code_size\)"),
        ((), r"got shape \(\), expected \(n, code_size\)"),
        ((2, 7), r"got codes of 7 bytes, expected 8 \(d = 64 bits\)"),
        ((0, 9), r"got codes of 9 bytes, expected 8"),
    ],
)
def test_wrong_shape(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codes.check_codes(np.zeros(shape, np.uint8), 8)


def test_memory_of_a_device_is_refused() -> None:
    with pytest.raises(TypeError, match=r"OnDevice in the memory of a device.*x.cpu\(\)"):
        codes.check_codes(OnDevice(np.zeros((2, 8), np.uint8)), 8)


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    x = torch.arange(24, dtype=torch.uint8).reshape(3, 8)
    assert np.shares_memory(codes.check_codes(x, 8), x.numpy())
    np.testing.assert_array_equal(codes.check_codes(x.T, 3), x.numpy().T, strict=True)
    with pytest.raises(TypeError, match=r"got dtype float32, expected uint8"):
        codes.check_codes(x.float(), 8)


@pytest.mark.parametrize("d", [8, 72, 4096, np.int64(64), np.uint8(16)])
def test_good_d(d: Any) -> None:
    assert codes.check_d(d) == int(d)
    assert type(codes.check_d(d)) is int


@pytest.mark.parametrize("d", [0, -8, 1, 63, 100, 4097, 4104, 2**40])
def test_bad_d(d: int) -> None:
    with pytest.raises(ValueError, match=rf"got d = {d}, expected a multiple of 8 from 8 to 4096"):
        codes.check_d(d)


@pytest.mark.parametrize("d", [64.0, "64", None, True, np.bool_(True), [64]])
def test_d_of_another_type(d: Any) -> None:
    with pytest.raises(TypeError, match=rf"got d of type {type(d).__name__}, expected an int"):
        codes.check_d(d)

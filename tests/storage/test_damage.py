"""Files that are not whole: each kind of damage has its error, or is repaired."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from checks import assert_exact, make_index

import faiss_dmih
from faiss_dmih import IndexDMIH, _engine, composites, storage

GOLDEN = Path(__file__).with_name("golden")


def golden_codes() -> Any:
    """64 codes of 64 bits: (i + 1) times an odd number, every third twice."""
    words = np.arange(1, 65, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    words[::3] = words[0]
    return words.view(np.uint8).reshape(-1, 8)


def example() -> IndexDMIH:
    """What golden/v1.ibdm was written from: a segment with tables and equal codes, and a tail."""
    index = IndexDMIH(64, cuts=[8] * 8, memory_budget=10**6)
    index.add(golden_codes()[:60])
    index.compact()
    index.add(golden_codes()[60:])
    return index


def trained_example() -> IndexDMIH:
    """And golden/v2.ibdm, whose row has bit 7i (modulo 64) of a code as its bit i."""
    index = IndexDMIH(64)
    index.add(golden_codes()[:60])
    _repartition(index, np.arange(64) * 7 % 64, [5, 5] + [6] * 9)
    index.compact()
    index.add(golden_codes()[60:])
    return index


def _repartition(index: Any, order: Any, cuts: Any) -> None:
    _engine.repartition(index, np.array(order, np.int32), np.array(cuts, np.int32))


def example_map() -> Any:
    """And golden/v1.ibdc."""
    index = faiss.IndexBinaryIDMap2(IndexDMIH(64))
    index.add_with_ids(golden_codes(), np.arange(64) * 5)
    return index


def entries(data: bytes) -> list[tuple[str, int, int]]:
    """(tag, offset, size) of the sections."""
    n_cuts, n = struct.unpack_from("<II", data, 40)
    found = (struct.unpack_from("<8sIIQQII", data, 64 + 4 * n_cuts + 40 * i) for i in range(n))
    return [(tag.rstrip(b"\0").decode(), offset, size) for tag, _, _, offset, size, _, _ in found]


def sealed(data: bytes) -> bytes:
    """With the header's checksum made right."""
    n_cuts, n = struct.unpack_from("<II", data, 40)
    crc = _engine.crc32c(
        data[64 : 64 + 4 * n_cuts + 40 * n], _engine.crc32c(data[:60], 0, False), False
    )
    return data[:60] + struct.pack("<I", crc) + data[64:]


def put(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


@pytest.fixture(scope="module")
def sound() -> bytes:
    return faiss.serialize_index_binary(example()).tobytes()


def read_all(data: bytes, path: Path, match: str) -> None:
    """The error is the same whichever way it is read."""
    path.write_bytes(data)
    for read in (
        lambda: faiss_dmih.read_index(path),
        lambda: faiss_dmih.read_index(path, mmap=True),
        lambda: storage.deserialize(data),
        lambda: faiss.deserialize_index_binary(np.frombuffer(data, np.uint8)),
    ):
        with pytest.raises(ValueError, match=match):
            read()


@pytest.mark.parametrize("mmap", [False, True])
def test_golden_files(mmap: bool) -> None:
    """Those of every version are read for ever."""
    xb = golden_codes()
    index = faiss_dmih.read_index(GOLDEN / "v1.ibdm", mmap=mmap)
    assert (index.cuts, index.mode, index.memory_budget) == ((8,) * 8, "auto", 10**6)
    assert index.memory_usage()["tables"] > 0
    assert_exact(index, xb, xb ^ np.uint8(1), 5, 20)
    by_id = faiss_dmih.read_index(GOLDEN / "v1.ibdc", mmap=mmap)
    assert type(by_id) is faiss.IndexBinaryIDMap2
    np.testing.assert_array_equal(by_id.search(xb[1:2], 1)[1], [[5]])
    np.testing.assert_array_equal(by_id.reconstruct(10), xb[2])
    trained = faiss_dmih.read_index(GOLDEN / "v2.ibdm", mmap=mmap)
    assert trained.partition == trained_example().partition
    assert trained.partition.order[:11] == (0, 7, 14, 21, 28, 35, 42, 49, 56, 63, 6)
    for engine in ("auto", "probe", "scan"):
        trained.force_engine(engine)
        assert_exact(trained, xb, xb ^ np.uint8(1), 5, 20)
    np.testing.assert_array_equal(trained.reconstruct_n(), xb)


def test_golden_files_are_what_is_written(tmp_path: Path) -> None:
    faiss_dmih.write_index(example(), tmp_path / "v1.ibdm")
    faiss_dmih.write_index(example_map(), tmp_path / "v1.ibdc")
    faiss_dmih.write_index(trained_example(), tmp_path / "v2.ibdm")
    for name in ("v1.ibdm", "v1.ibdc", "v2.ibdm"):
        assert (tmp_path / name).read_bytes() == (GOLDEN / name).read_bytes()


def test_headers(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "index"
    header_only = sealed(put(sound, 44, struct.pack("<I", 0)))
    for data, match in (
        (sound[:4], r"truncated: its header has 64 bytes, and there are 4"),
        (sound[:63], r"truncated: its header has 64 bytes, and there are 63"),
        (sound[:100], r"truncated: it says that it has \d+ bytes, and there are 100"),
        (sound[:-64], r"truncated: it says that it has \d+ bytes, and there are \d+"),
        (sound + bytes(64), r"says that it has \d+ bytes, and there are \d+"),
        (put(sound, 4, b"\3"), r"version 3 of the format, expected 1 or 2: read it with the faiss"),
        (put(sound, 16, b"\1"), r"header of the index is damaged: its checksum is wrong"),
        (put(sound, 100, b"\1"), r"header of the index is damaged: its checksum is wrong"),
        (put(sound, 44, b"\xff" * 4), r"header of the index is damaged: \d+ cuts and 4294967295"),
        (sealed(put(sound, 24, b"\7")), r"codes of 7 bits, expected a multiple of 8"),
        (sealed(put(sound, 28, b"\7")), r"unknown mode 7"),
        (sealed(put(sound, 28, b"\1")), r"a memory budget in a mode that has none"),
        (sealed(put(sound, 64, b"\x1b")), r"a cut of 27 bits"),
        (sealed(put(sound, 64, b"\7")), r"cuts of 63 bits, codes of 64"),
        (sealed(put(sound, 16, b"\1")), r"`codes` has 512 bytes, expected 8 for 1 codes of 8"),
        (header_only, r"there is no section `codes`"),
        (sealed(put(sound, 96 + 16, bytes(8))), r"a section of 512 bytes at 0, between"),
        (sealed(put(sound, 96 + 24, b"\xff" * 8)), r"a section of 18446744073709551615 bytes at"),
    ):
        read_all(data, path, match)
    path.write_bytes(b"")
    with pytest.raises(RuntimeError, match="read error"):  # FAISS's
        faiss_dmih.read_index(path)
    with pytest.raises(FileNotFoundError):
        faiss_dmih.read_index(tmp_path / "nothing")
    with pytest.raises(ValueError, match="this is no index of faiss_dmih: it begins with b'what'"):
        storage.deserialize(b"whatever this is" * 8)


def test_every_section_damaged(sound: bytes, tmp_path: Path) -> None:
    """`codes` is refused; without any other one, answers are the same, and a warning says so."""
    xb, path = golden_codes(), tmp_path / "index"
    tags = set()
    for number, (tag, offset, size) in enumerate(entries(sound)):
        tags.add(tag)
        at = offset + size // 2
        data = put(sound, at, bytes([sound[at] ^ 0x40]))
        path.write_bytes(data)
        if tag == "codes":
            with pytest.raises(ValueError, match=r"codes of the index are damaged: .* `codes`"):
                faiss_dmih.read_index(path)
            continue
        with warnings.catch_warnings():
            # What is lost with `parts` is where segments end, and with `rows` nothing.
            if tag in ("parts", "rows"):
                warnings.simplefilter("ignore")
                index = faiss_dmih.read_index(path)
            else:
                with pytest.warns(RuntimeWarning, match="1 segments .* have been built anew"):
                    index = faiss_dmih.read_index(path)
        assert_exact(index, xb, xb ^ np.uint8(1), 5, 20)
        # Renamed: unknown sections are skipped, and missing ones done without.
        name = 64 + 4 * 8 + 40 * number
        path.write_bytes(sealed(put(sound, name, b"unknown\0")))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for mmap in (False, True):
                index = faiss_dmih.read_index(path, mmap=mmap)
                for engine in ("auto", "probe", "scan"):
                    index.force_engine(engine)
                    assert_exact(index, xb, xb ^ np.uint8(1), 5, 20)
    assert tags == {
        "codes",
        "parts",
        "ids",
        "lists",
        "rows",
        "cuts",
        "steps",
        "offsets",
        "slots",
        "signs",
    }


# What becomes of the uint32 of a section `bits`: 64 of the order, then the cuts.
WRONG_BITS: dict[str, Callable[[Any], Any]] = {
    "a bit twice": lambda bits: np.r_[bits[1], bits[1:]],
    "a bit too high": lambda bits: np.r_[np.uint32(64), bits[1:]],
    "a bit far too high": lambda bits: np.r_[np.uint32(2**32 - 1), bits[1:]],
    "no cuts": lambda bits: bits[:64],
    "cuts of too many bits": lambda bits: np.r_[bits, np.uint32(1)],
    "cuts of too few bits": lambda bits: bits[:-1],
    "a cut of no bits": lambda bits: np.r_[bits, np.uint32(0)],
    "too long a cut": lambda bits: np.r_[bits[:64], np.uint32([27, 26, 11])],
    "a part of the order": lambda bits: bits[:50],
    "nothing": lambda bits: bits[:0],
    "far too much": lambda bits: np.r_[bits, np.ones(100_000, np.uint32)],
}


def with_bits(data: bytes, bits: Any) -> bytes:
    """With another section `bits`, at the end, whose checksum is right."""
    n_cuts = struct.unpack_from("<I", data, 40)[0]
    number = next(i for i, entry in enumerate(entries(data)) if entry[0] == "bits")
    n = len(entries(data))
    table = 64 + 4 * n_cuts
    rows = [data[table + 40 * i : table + 40 * i + 40] for i in range(n)]
    payload = bits.astype(np.uint32).tobytes()
    crc = _engine.crc32c(payload, 0, False)
    rows.append(struct.pack("<8sIIQQII", b"bits", 0, 0, len(data), len(payload), crc, 0))
    del rows[number]
    data = data[:table] + b"".join(rows) + data[table + 40 * n :] + payload
    data += bytes(-len(data) % 64)
    return sealed(put(data, 8, struct.pack("<Q", len(data))))


def test_bits_that_are_no_partition(tmp_path: Path) -> None:
    """Without it the bits are as they come: what rows and tables are of is not used."""
    xb, path = golden_codes(), tmp_path / "index"
    sound = faiss.serialize_index_binary(trained_example()).tobytes()
    at = next(offset for tag, offset, _ in entries(sound) if tag == "bits")
    size = next(size for tag, _, size in entries(sound) if tag == "bits")
    bits = np.frombuffer(sound[at : at + size], np.uint32)
    wrong = {name: with_bits(sound, change(bits)) for name, change in WRONG_BITS.items()}
    # Another permutation, which the checksum alone tells from the right one.
    other = np.r_[bits[1], bits[0], bits[2:]]
    wrong["damaged"] = put(sound, at, other.tobytes())
    name = next(64 + 40 * i for i, entry in enumerate(entries(sound)) if entry[0] == "bits")
    wrong["missing"] = sealed(put(sound, name, b"unknown\0"))
    for what, data in wrong.items():
        path.write_bytes(data)
        for mmap in (False, True):
            said = "are searched by a scan" if mmap else "have been built anew"
            with pytest.warns(RuntimeWarning, match=f"1 segments .*{said}"):
                index = faiss_dmih.read_index(path, mmap=mmap)
            assert index.partition is None, what
            assert (index.memory_usage()["tables"] > 0) == (not mmap)
            for engine in ("auto", "probe", "scan"):
                index.force_engine(engine)
                assert_exact(index, xb, xb ^ np.uint8(1), 5, 20)
            np.testing.assert_array_equal(index.reconstruct_n(), xb)
        with pytest.warns(RuntimeWarning, match="built anew"):
            assert_exact(index.copy(), xb, xb[:9], 5, 20)
    # With a right checksum it is a partition: a full read finds that the tables are of another one.
    path.write_bytes(with_bits(sound, other))
    with pytest.warns(RuntimeWarning, match="1 segments .* have been built anew"):
        index = faiss_dmih.read_index(path)
    assert index.partition is not None
    assert index.partition.order[:2] == (7, 0)
    assert_exact(index, xb, xb ^ np.uint8(1), 5, 20)


def test_a_partition_of_other_cuts_than_those_given(tmp_path: Path) -> None:
    index = IndexDMIH(64, cuts=[8] * 8)
    index.add(golden_codes())
    _repartition(index, np.arange(64)[::-1], [8] * 8)
    sound = faiss.serialize_index_binary(index).tobytes()
    cuts = [9, 7] + [8] * 6
    (tmp_path / "index").write_bytes(with_bits(sound, np.r_[np.arange(64)[::-1], cuts]))
    with pytest.warns(RuntimeWarning, match="have been built anew"):
        back = faiss_dmih.read_index(tmp_path / "index")
    assert back.partition is None
    assert back.cuts == (8,) * 8


def test_a_version_1_has_no_partition(tmp_path: Path) -> None:
    """A section of that name in it is one that is not known."""
    sound = faiss.serialize_index_binary(trained_example()).tobytes()
    (tmp_path / "index").write_bytes(sealed(put(sound, 4, b"\1")))
    with pytest.warns(RuntimeWarning, match="have been built anew"):
        index = faiss_dmih.read_index(tmp_path / "index")
    assert index.partition is None
    assert_exact(index, golden_codes(), golden_codes()[:9], 5, 20)


@pytest.mark.parametrize("mode", ["auto", "mih", "scan"])
@pytest.mark.parametrize("n", [0, 9, 9000])
def test_untrained_indexes_are_of_version_1(mode: str, n: int) -> None:
    """Those that forgot what they had learned among them, byte by byte."""
    xb = np.random.default_rng(0).integers(0, 256, (n, 8), dtype=np.uint8)
    index, again = make_index(64, mode), make_index(64, mode)
    index.add(xb)
    _repartition(again, np.arange(64)[::-1], [16] * 4)
    again.add(xb)
    assert faiss.serialize_index_binary(again)[4] == 2
    again.train(xb[:1] if n else np.zeros((1, 8), np.uint8), strategy="contiguous")
    if mode == "scan":  # where nothing is learned, and nothing forgotten
        _repartition(again, (), ())
    assert faiss.serialize_index_binary(index)[4] == 1
    np.testing.assert_array_equal(
        faiss.serialize_index_binary(again), faiss.serialize_index_binary(index)
    )


def test_a_mapped_file_out_of_bounds(sound: bytes, tmp_path: Path) -> None:
    """Found where it is used; wrong answers are the worst that comes of the rest."""
    path = tmp_path / "index"
    for tag in ("offsets", "slots", "ids", "lists"):
        data = sound
        for name, offset, size in entries(sound):
            if name == tag:
                data = put(data, offset, b"\xff" * size)
        path.write_bytes(data)
        index = faiss_dmih.read_index(path, mmap=True)
        index.force_engine("probe" if tag in ("offsets", "slots") else "scan")
        for method, k_or_radius in ((index.search, 5), (index.range_search, 60)):
            with pytest.raises(RuntimeError, match=r"is mapped from is damaged.*faiss-dmih verify"):
                method(golden_codes(), k_or_radius)
        with pytest.warns(RuntimeWarning, match="built anew"):
            copy = index.copy()
        assert_exact(copy, golden_codes(), golden_codes()[:9], 5, 20)


def test_composites(tmp_path: Path) -> None:
    path = tmp_path / "index"
    sound = faiss.serialize_index_binary(example_map()).tobytes()

    def node(data: bytes, at: int, value: bytes) -> bytes:
        data = put(data, 64 + at, value)
        return put(data, 124, struct.pack("<I", _engine.crc32c(data[64:124], 0, False)))

    def header(data: bytes) -> bytes:
        return put(data, 60, struct.pack("<I", _engine.crc32c(data[:60], 0, False)))

    for data, match in (
        (sound[:40], r"truncated: the header of a composite has 64 bytes, and there are 40"),
        (sound[:-64], r"truncated: it says that it has \d+ bytes, and there are"),
        (put(sound, 8, b"\1"), r"damaged: the checksum of the header of a composite is wrong"),
        (header(put(sound, 4, b"\2")), r"composite is of version 2 of the format, expected 1"),
        (put(sound, 64, b"x"), r"damaged: the checksum of a node of the composite is wrong"),
        (node(sound, 0, b"xdmap2"), r"unknown kind of index 'xdmap2'"),
        (node(sound, 8, b"\x48"), r"an index of 64 bits in a composite \(idmap2\) of 72"),
        (node(sound, 12, b"\0"), r"an idmap2 of 0 indexes, expected one"),
        (node(sound, 12, b"\2"), r"truncated: a node of the composite has 64 bytes, and there are"),
        (
            node(sound, 24, b"\xff" * 8),
            r"a node \(idmap2\) of \d+ bytes .* where \d+ bytes are left",
        ),
        (put(sound, 130, b"\1"), r"damaged: the checksum of a node \(idmap2\) is wrong"),
        (put(sound, 64 + 64 + 512 + 64 + 64 + 10, b"\1"), r"header of the index is damaged"),
    ):
        read_all(data, path, match)


def test_nested_too_deep(tmp_path: Path) -> None:
    index: Any = IndexDMIH(8)
    for _ in range(composites.MAX_DEPTH - 1):
        index = faiss.IndexBinaryIDMap(index)
    back = storage.deserialize(storage.serialize(index))
    assert (back.d, back.ntotal) == (8, 0)
    with pytest.raises(ValueError, match="nested more than 16 deep"):
        faiss_dmih.write_index(faiss.IndexBinaryIDMap(index), tmp_path / "index")
    assert os.listdir(tmp_path) == []


def test_checksums() -> None:
    """CRC-32C: the check value of the standard, RFC 3720's vectors, and the portable one at all
    lengths and alignments around what is done at once."""
    for portable in (False, True):

        def crc(data: bytes, before: int = 0, portable: bool = portable) -> int:
            return _engine.crc32c(data, before, portable)

        assert crc(b"123456789") == 0xE3069283
        assert crc(bytes(32)) == 0x8A9136AA
        assert crc(b"\xff" * 32) == 0x62A8AB43
        assert crc(bytes(range(32))) == 0x46DD794E
        assert crc(b"6789", crc(b"12345")) == 0xE3069283
        assert crc(b"") == 0
    data = np.random.default_rng(0).bytes(40_000)
    for size in (1, 7, 8, 9, 4095, 12_287, 12_288, 12_289, 24_576, 30_001, 39_999):
        for begin in (0, 1, 5):
            piece = data[begin : begin + size]
            assert _engine.crc32c(piece, 7, False) == _engine.crc32c(piece, 7, True)

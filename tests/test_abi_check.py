"""The look at FAISS before the native module is loaded: what differs is a helpful ImportError."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import faiss
import pytest

from faiss_dmih import _abi_check
from faiss_dmih._abi_check import MEMBERS, SYMBOLS, VTABLES, Expected, NoFaiss, check

FLAT = "_ZTVN5faiss15IndexBinaryFlatE"
ADD = VTABLES[FLAT].index("_ZN5faiss15IndexBinaryFlat3addElPKh")
FOUND = rf"the FAISS it found, {faiss.__version__} in .*faiss: "
SUPPORTED = r"\. Supported are .*>=1\.14,<1\.16: run pip install 'faiss-cpu>=1\.14,<1\.16'"


def with_slots(slots: tuple[str | None, ...]) -> Expected:
    return Expected(vtables=VTABLES | {FLAT: slots})


def with_member(class_name: str, name: str, offset: int, ctype: Any) -> Expected:
    members = [
        (member, offset, ctype) if member == name else (member, old_offset, old_ctype)
        for member, old_offset, old_ctype in MEMBERS[class_name]
    ]
    return Expected(members=MEMBERS | {class_name: tuple(members)})


def swapped(a: int, b: int) -> tuple[str | None, ...]:
    slots = list(VTABLES[FLAT])
    slots[a], slots[b] = slots[b], slots[a]
    return tuple(slots)


def test_this_faiss_is_supported() -> None:
    assert check() is None


def test_it_starts_no_threads() -> None:
    before = len(os.listdir("/proc/self/task"))
    check()
    assert len(os.listdir("/proc/self/task")) == before


def test_it_is_quick() -> None:
    """The best of several runs, as anything may stop one of them."""

    def seconds() -> float:
        start = time.perf_counter()
        check()
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.02


WRONG = {
    "a function in another slot": (
        with_slots(swapped(ADD, ADD + 2)),
        rf"slot {ADD} of {FLAT} does not hold \S*12add_with_ids.*; slot {ADD + 2} ",
    ),
    "a name in the slot of another": (
        with_slots((*VTABLES[FLAT][:3], "_ZN5faiss15IndexBinaryFlat5resetEv", *VTABLES[FLAT][4:])),
        rf"slot 3 of {FLAT} does not hold _ZN5faiss15IndexBinaryFlat5resetEv",
    ),
    "a function that is not there": (
        with_slots((*VTABLES[FLAT][:-1], "_ZN5faiss11IndexBinary8frobnifyEv")),
        r"does not hold _ZN5faiss11IndexBinary8frobnifyEv",
    ),
    "a slot less": (with_slots(VTABLES[FLAT][:-1]), rf"{FLAT} has 176 bytes instead of 168"),
    "a slot more": (with_slots((*VTABLES[FLAT], None)), rf"{FLAT} has 176 bytes instead of 184"),
    "a vtable that is not there": (
        Expected(vtables={"_ZTVN5faiss11IndexOctaryE": (None,)}),
        r"libfaiss.so does not export _ZTVN5faiss11IndexOctaryE",
    ),
    "a member further on": (
        with_member("IndexBinaryFlat", "code_size", 16, ctypes.c_int),
        r"IndexBinaryFlat.code_size is not at byte 16",
    ),
    "a narrower member": (
        with_member("RangeSearchResult", "lims", 16, ctypes.c_uint16),
        r"RangeSearchResult.lims is not at byte 16",
    ),
    "a pointer further on": (
        with_member("SearchParameters", "sel", 0, ctypes.c_void_p),
        r"SearchParameters.sel is not at byte 0",
    ),
    "a name that is not exported": (
        Expected(symbols=(*SYMBOLS, "omp_get_least_threads")),
        r"libfaiss.so does not export omp_get_least_threads",
    ),
    "a library that is not loaded": (
        Expected(library="libfaiss_avx9000.so"),
        r"it has not loaded libfaiss_avx9000.so, as FAISS's wheels do",
    ),
    "another SWIG": (
        Expected(swig_runtime="swig_runtime_data9000"),
        r"its Python layer does not use SWIG's swig_runtime_data9000",
    ),
}


@pytest.mark.parametrize(("expected", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_differs_is_said(expected: Expected, message: str) -> None:
    with pytest.raises(ImportError, match=FOUND + ".*" + message + ".*" + SUPPORTED):
        check(expected)


@pytest.mark.parametrize("bounds", [((1, 16), (1, 17)), ((0, 9), (1, 14)), ((2, 0), (3, 0))])
def test_versions_outside_the_bounds(bounds: tuple[tuple[int, int], tuple[int, int]]) -> None:
    since, before = bounds
    expected = Expected(since=since, before=before)
    versions = rf">={since[0]}\.{since[1]},<{before[0]}\.{before[1]}"
    with pytest.raises(ImportError, match=rf"{FOUND}its version is not supported.*{versions}"):
        check(expected)


@pytest.mark.parametrize("version", ["1.13.2", "1.16.0", "0.1", "2.0.0", "unknown", "nightly"])
def test_other_versions_of_faiss(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(faiss, "__version__", version)
    with pytest.raises(ImportError, match=rf"found, {version} in .*its version is not supported"):
        check()


@pytest.mark.parametrize("version", ["1.14.0", "1.15.7", "1.15.1.post2"])
def test_versions_within_the_bounds(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(faiss, "__version__", version)
    assert check() is None


def test_no_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(NoFaiss, match=r"'faiss-dmih\[cpu\]', or 'faiss-dmih\[gpu\]'"):
        check()


def test_something_else_called_faiss(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder of that name imports as an empty package."""
    (tmp_path / "faiss").mkdir()
    folder = ModuleType("faiss")
    folder.__path__ = [str(tmp_path / "faiss")]
    monkeypatch.setitem(sys.modules, "faiss", folder)
    with pytest.raises(ImportError, match=rf"found, unknown in {tmp_path}/faiss: its version"):
        check()


def test_faiss_with_something_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A FAISS that cannot be imported says itself why."""
    (tmp_path / "faiss").mkdir()
    (tmp_path / "faiss" / "__init__.py").write_text("import what_faiss_needs")
    monkeypatch.delitem(sys.modules, "faiss")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="what_faiss_needs"):
        check()


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(ImportError, match=rf"Linux only.*this is {platform}"):
        check()


def test_a_c_library_that_tells_no_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_abi_check, "_symbol_size", lambda address: 0)
    with pytest.raises(ImportError, match=rf"{FLAT} has 0 bytes instead of 176"):
        check()


@pytest.mark.parametrize("other", ["faiss_gpu-1.15.1", "faiss_gpu_cuvs-1.14"])
def test_two_faiss_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, other: str
) -> None:
    for name in ("faiss_cpu-1.15.1", other, "faiss_dmih-0.1.0"):
        (tmp_path / f"{name}.dist-info").mkdir()
    monkeypatch.setattr(faiss, "__path__", [str(tmp_path / "faiss")])
    with pytest.warns(UserWarning, match=f"faiss_cpu-1.15.1 and {other} are both installed"):
        check()


def test_expectations_are_not_shared() -> None:
    """A changed expectation is a new one: what import checks cannot be changed by accident."""
    assert replace(Expected(), library="libother.so") != Expected()
    with pytest.raises(AttributeError):
        Expected().library = "libother.so"  # type: ignore[misc]

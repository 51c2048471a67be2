"""Does the FAISS of this process look as the native module was compiled to see it?

FAISS's wheels carry `libfaiss.so` but no headers: the native module itself declares the few classes
of FAISS that it derives from or reads. Before it is loaded, what those declarations promise is
compared with the `libfaiss.so` that `import faiss` has loaded. Whatever differs is an ImportError
naming the FAISS found and the versions supported, instead of a crash later on. Where there is no
FAISS at all it is a NoFaiss, which `import faiss_dmih` outlives: not everything needs FAISS.

No search is made here: one would start OpenMP's threads, and a child forked after that would hang.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

# Virtual functions by slot. None stands for a function without an exported name (destructors and
# functions defined in a header): such a slot must hold something.
VTABLES: Mapping[str, tuple[str | None, ...]] = {
    "_ZTVN5faiss15IndexBinaryFlatE": (
        None,  # ~IndexBinaryFlat
        None,  # ~IndexBinaryFlat, then delete
        "_ZN5faiss11IndexBinary5trainElPKh",
        None,  # train_ex
        "_ZN5faiss15IndexBinaryFlat3addElPKh",
        None,  # add_ex
        "_ZN5faiss11IndexBinary12add_with_idsElPKhPKl",
        None,  # add_with_ids_ex
        "_ZNK5faiss15IndexBinaryFlat6searchElPKhlPiPlPKNS_16SearchParametersE",
        None,  # search_ex
        "_ZNK5faiss15IndexBinaryFlat12range_searchElPKhiPNS_17RangeSearchResultEPKNS_16SearchParametersE",
        "_ZN5faiss15IndexBinaryFlat5resetEv",
        "_ZN5faiss15IndexBinaryFlat10remove_idsERKNS_10IDSelectorE",
        "_ZNK5faiss15IndexBinaryFlat11reconstructElPh",
        "_ZNK5faiss11IndexBinary13reconstruct_nEllPh",
        "_ZNK5faiss11IndexBinary22search_and_reconstructElPKhlPiPlPhPKNS_16SearchParametersE",
        "_ZN5faiss11IndexBinary10merge_fromERS0_l",
        "_ZNK5faiss11IndexBinary26check_compatible_for_mergeERKS0_",
        "_ZNK5faiss11IndexBinary12sa_code_sizeEv",
        "_ZN5faiss11IndexBinary12add_sa_codesElPKhPKl",
    ),
    "_ZTVN5faiss14FaissExceptionE": (
        None,  # ~FaissException
        None,  # ~FaissException, then delete
        "_ZNK5faiss14FaissException4whatEv",
    ),
    "_ZTVN5faiss15IDSelectorRangeE": (
        "_ZNK5faiss15IDSelectorRange9is_memberEl",
        None,  # ~IDSelectorRange
        None,  # ~IDSelectorRange, then delete
    ),
    "_ZTVN5faiss17RangeSearchResultE": (
        "_ZN5faiss17RangeSearchResult13do_allocationEv",
        "_ZN5faiss17RangeSearchResultD1Ev",
        "_ZN5faiss17RangeSearchResultD0Ev",
    ),
}

# Members by class: name, offset in bytes, type. The first of each object is its vtable's address.
MEMBERS: Mapping[str, tuple[tuple[str, int, Any], ...]] = {
    "IndexBinaryFlat": (
        ("d", 8, ctypes.c_int),
        ("code_size", 12, ctypes.c_int),
        ("ntotal", 16, ctypes.c_int64),
        ("verbose", 24, ctypes.c_bool),
        ("is_trained", 25, ctypes.c_bool),
        ("metric_type", 28, ctypes.c_int),
    ),
    "RangeSearchResult": (
        ("nq", 8, ctypes.c_size_t),
        ("lims", 16, ctypes.c_void_p),
        ("labels", 24, ctypes.c_void_p),
        ("distances", 32, ctypes.c_void_p),
        ("buffer_size", 40, ctypes.c_size_t),
    ),
    "SearchParameters": (("sel", 8, ctypes.c_void_p),),
    "IDSelectorRange": (("imin", 8, ctypes.c_int64), ("imax", 16, ctypes.c_int64)),
    "IDSelectorArray": (("n", 8, ctypes.c_size_t), ("ids", 16, ctypes.c_void_p)),
    # After a std::unordered_set and a std::vector.
    "IDSelectorBatch": (("nbits", 88, ctypes.c_int), ("mask", 96, ctypes.c_int64)),
    "IDSelectorBitmap": (("n", 8, ctypes.c_size_t), ("bitmap", 16, ctypes.c_void_p)),
    "IDSelectorNot": (("sel", 8, ctypes.c_void_p),),
    "IDSelectorAnd": (("lhs", 8, ctypes.c_void_p), ("rhs", 16, ctypes.c_void_p)),
    "IDSelectorOr": (("lhs", 8, ctypes.c_void_p), ("rhs", 16, ctypes.c_void_p)),
    "IDSelectorXOr": (("lhs", 8, ctypes.c_void_p), ("rhs", 16, ctypes.c_void_p)),
    "IDSelectorTranslated": (("sel", 16, ctypes.c_void_p),),
}

# What else the native module refers to or looks up by name.
SYMBOLS = (
    "_ZTIN5faiss11IndexBinaryE",
    "_ZTIN5faiss14FaissExceptionE",
    "_ZN5faiss11IndexBinaryC2ElNS_10MetricTypeE",
    "_ZN5faiss11IndexBinaryD2Ev",
    "_ZN5faiss14FaissExceptionC1ERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE",
    "_ZN5faiss17InterruptCallback5checkEv",
    "omp_get_max_threads",
)


class NoFaiss(ImportError):
    """There is nothing called `faiss` to import."""


@dataclass(frozen=True)
class Expected:
    """What the native module was compiled to see."""

    since: tuple[int, int] = (1, 14)
    before: tuple[int, int] = (1, 16)
    library: str = "libfaiss.so"
    swig_runtime: str = "swig_runtime_data5"
    vtables: Mapping[str, tuple[str | None, ...]] = field(default_factory=lambda: VTABLES)
    members: Mapping[str, tuple[tuple[str, int, Any], ...]] = field(default_factory=lambda: MEMBERS)
    symbols: tuple[str, ...] = SYMBOLS

    @property
    def versions(self) -> str:
        return f">={self.since[0]}.{self.since[1]},<{self.before[0]}.{self.before[1]}"


def check(expected: Expected | None = None) -> None:
    """Raise ImportError unless the native module can be loaded and work with this FAISS.

    It is a NoFaiss where there is none.
    """
    expected = expected or Expected()
    if sys.platform != "linux":
        raise ImportError(
            f"faiss_dmih runs on Linux only, so far; this is {sys.platform}: "
            "use a Linux machine or container"
        )
    faiss = _import_faiss()
    place = _place(faiss)
    _warn_of_two_distributions(os.path.dirname(place))

    version = str(getattr(faiss, "__version__", "unknown"))
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if not numbers or not expected.since <= (int(numbers[1]), int(numbers[2])) < expected.before:
        raise _mismatch(version, place, expected, "its version is not supported")
    try:
        library = ctypes.CDLL(expected.library, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        raise _mismatch(
            version, place, expected, f"it has not loaded {expected.library}, as FAISS's wheels do"
        ) from None
    differences = [
        *_symbols(library, expected),
        *_vtables(library, expected),
        *_swig_runtime(expected),
    ]
    # Objects are read only where the tables hold: a wrong offset must not be the first thing met.
    if not differences:
        differences = list(_members(faiss, library, expected))
    if differences:
        raise _mismatch(version, place, expected, "; ".join(differences[:5]))


def _import_faiss() -> ModuleType:
    try:
        import faiss
    except ModuleNotFoundError as error:
        if error.name != "faiss":
            raise
        raise NoFaiss(
            "faiss_dmih is a plugin of FAISS, and there is no FAISS: "
            "run pip install 'faiss-dmih[cpu]', or 'faiss-dmih[gpu]' for faiss-gpu",
            name="faiss",
        ) from None
    module: ModuleType = faiss
    return module


def _place(faiss: ModuleType) -> str:
    """The folder that `import faiss` found, be it FAISS or just a folder of that name."""
    return str(next(iter(faiss.__path__)))


def _warn_of_two_distributions(site_packages: str) -> None:
    # Read by hand: importlib.metadata takes longer to import than all the rest to run.
    found = sorted(
        entry.rpartition(".")[0]
        for entry in os.listdir(site_packages)
        if re.fullmatch(r"faiss_(cpu|gpu\w*)-.*\.dist-info", entry)
    )
    if len(found) > 1:
        warnings.warn(
            f"{' and '.join(found)} are both installed in {site_packages}, and each overwrites "
            "files of the other: pip uninstall both, then install one",
            stacklevel=3,
        )


def _mismatch(version: str, place: str, expected: Expected, differences: str) -> ImportError:
    return ImportError(
        f"faiss_dmih cannot work with the FAISS it found, {version} in {place}: {differences}. "
        f"Supported are the wheels faiss-cpu and faiss-gpu {expected.versions}: "
        f"run pip install 'faiss-cpu{expected.versions}'"
    )


def _symbols(library: ctypes.CDLL, expected: Expected) -> Iterator[str]:
    for name in expected.symbols:
        if _address(library, name) is None:
            yield f"{expected.library} does not export {name}"


def _vtables(library: ctypes.CDLL, expected: Expected) -> Iterator[str]:
    for table, slots in expected.vtables.items():
        start = _address(library, table)
        if start is None:
            yield f"{expected.library} does not export {table}"
            continue
        # A slot more at the end would be called on our objects, whose vtable ends before it.
        size = _symbol_size(start)
        if size != _slot_offset(len(slots)):
            yield f"{table} has {size} bytes instead of {_slot_offset(len(slots))}"
            continue
        for slot, name in enumerate(slots):
            held = ctypes.c_void_p.from_address(start + _slot_offset(slot)).value
            if not held or (name is not None and held != _address(library, name)):
                yield f"slot {slot} of {table} does not hold {name or 'a function'}"


def _members(faiss: ModuleType, library: ctypes.CDLL, expected: Expected) -> Iterator[str]:
    index = faiss.IndexBinaryFlat(72)
    index.add(np.zeros((3, 9), dtype=np.uint8))
    result = faiss.RangeSearchResult(3)
    result.do_allocation()
    selector, other = faiss.IDSelectorRange(3, 9), faiss.IDSelectorRange(1, 2)
    ids = np.arange(3)
    objects = {
        "IndexBinaryFlat": index,
        "RangeSearchResult": result,
        "SearchParameters": faiss.SearchParameters(sel=selector),
        "IDSelectorRange": selector,
        "IDSelectorArray": faiss.IDSelectorArray(ids),
        "IDSelectorBatch": faiss.IDSelectorBatch(ids),
        "IDSelectorBitmap": faiss.IDSelectorBitmap(np.zeros(3, np.uint8)),
        "IDSelectorNot": faiss.IDSelectorNot(selector),
        "IDSelectorAnd": faiss.IDSelectorAnd(selector, other),
        "IDSelectorOr": faiss.IDSelectorOr(selector, other),
        "IDSelectorXOr": faiss.IDSelectorXOr(selector, other),
        "IDSelectorTranslated": faiss.IDSelectorTranslated(faiss.Int64Vector(), selector),
    }
    # That an object's vtable is the one looked at shows that this library made the object.
    for name, thing in (("IndexBinaryFlat", index), ("IDSelectorRange", selector)):
        table = _address(library, f"_ZTVN5faiss{len(name)}{name}E")
        vtable = ctypes.c_void_p.from_address(int(thing.this)).value
        if table is None or vtable != table + _slot_offset(0):
            yield f"the vtable of a faiss.{name} is not the one in {expected.library}"
    for class_name, members in expected.members.items():
        thing = objects[class_name]
        for member, offset, ctype in members:
            value = getattr(thing, member)
            wanted = int(getattr(value, "this", value))  # of an object, where it lies
            if ctype.from_address(int(thing.this) + offset).value != wanted:
                yield f"{class_name}.{member} is not at byte {offset}"


def _swig_runtime(expected: Expected) -> Iterator[str]:
    # SWIG modules share their types through this module; without it our objects are not FAISS's.
    if not hasattr(sys.modules.get(expected.swig_runtime), "type_pointer_capsule"):
        yield f"its Python layer does not use SWIG's {expected.swig_runtime}"


def _slot_offset(slot: int) -> int:
    """Bytes from a vtable's symbol to a slot: first come the offset to the top and the typeinfo."""
    return (2 + slot) * ctypes.sizeof(ctypes.c_void_p)


def _address(library: ctypes.CDLL, name: str) -> int | None:
    try:
        return ctypes.addressof(ctypes.c_char.in_dll(library, name))
    except ValueError:
        return None


class _DlInfo(ctypes.Structure):
    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


class _ElfSymbol(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_uint32),
        ("info", ctypes.c_uint8),
        ("other", ctypes.c_uint8),
        ("section", ctypes.c_uint16),
        ("value", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
    )


def _symbol_size(address: int) -> int:
    """The size in bytes of the exported object at this address; 0 where the C library can't say."""
    dladdr1 = getattr(ctypes.CDLL(None), "dladdr1", None)
    info, symbol = _DlInfo(), ctypes.POINTER(_ElfSymbol)()
    with_symbol = 1  # RTLD_DL_SYMENT
    found = dladdr1 and dladdr1(
        ctypes.c_void_p(address), ctypes.byref(info), ctypes.byref(symbol), with_symbol
    )
    return int(symbol.contents.size) if found and symbol else 0

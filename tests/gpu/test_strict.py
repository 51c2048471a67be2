"""The stand-in for CuPy has what CuPy has, and refuses what CuPy refuses."""

from __future__ import annotations

import inspect
import operator
import re
from typing import Any

import numpy as np
import pytest
import strict

FUNCTIONS = [name for name, _ in inspect.getmembers(strict, inspect.isfunction) if name[0] != "_"]
NOT_CUPYS = {"argument", "stream"}
METHODS = [name for name in vars(strict.ndarray) if name[0] != "_" and name != "made_on"]


def of(*values: int, dtype: Any = np.uint32) -> strict.ndarray:
    return strict.ndarray(np.array(values, dtype))


def parameters(function: Any) -> list[str]:
    """Names, also of Cython's functions, whose first line of documentation has them."""
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:
        given = re.search(r"\((.*)\)", function.__doc__.partition("\n")[0])
        assert given is not None
        return [re.split("[:=]", one)[0].split()[-1].lstrip("*") for one in given[1].split(",")]


@pytest.mark.parametrize("name", sorted({*FUNCTIONS} - NOT_CUPYS))
def test_functions_are_cupys(name: str) -> None:
    cupy = pytest.importorskip("cupy", reason="no CuPy", exc_type=ImportError)
    ours, theirs = (parameters(getattr(module, name)) for module in (strict, cupy))
    assert set(ours) <= set(theirs)
    by_place = [
        one.name
        for one in inspect.signature(getattr(strict, name)).parameters.values()
        if one.kind is not one.KEYWORD_ONLY
    ]
    assert by_place == theirs[: len(by_place)]


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_cupys(name: str) -> None:
    cupy = pytest.importorskip("cupy", reason="no CuPy", exc_type=ImportError)
    ours, theirs = (getattr(kind, name) for kind in (strict.ndarray, cupy.ndarray))
    if not isinstance(ours, property):
        assert set(parameters(ours)) <= set(parameters(theirs))


def test_nothing_goes_to_or_from_numpy_by_itself() -> None:
    x, host = of(1, 2), np.array([1, 2], np.uint32)
    for wrong in (
        lambda: np.asarray(x),
        lambda: np.concatenate([x, x]),
        lambda: np.cumsum(x),
        lambda: x + host,
        lambda: host + x,
        lambda: x[host],
        lambda: list(x),
        lambda: operator.setitem(x, slice(2), host),
        lambda: strict.cumsum(host, dtype=np.uint32),
        lambda: strict.concatenate([x, host]),
        lambda: strict.argument(host),
        lambda: strict.argument(3),
    ):
        with pytest.raises(TypeError):
            wrong()


def test_waits_are_counted() -> None:
    x = of(3, 0, 5)
    quiet = (
        lambda: x[of(0, 1, dtype=np.int64)],
        lambda: x[1:],
        lambda: operator.setitem(x, of(0, 2), np.uint32(4)),
        lambda: strict.searchsorted(x, x),
    )
    waiting = (
        lambda: x[of(1, 0, 1, dtype=np.bool_)],
        lambda: int(x[0]),
        lambda: bool(x[0] > np.uint32(1)),
        lambda: strict.flatnonzero(x),
        lambda: strict.asnumpy(x),
        lambda: strict.argsort(x, kind="stable"),
        lambda: strict.asarray(np.zeros(3), blocking=True),
    )
    for calls, waits in ((quiet, 0), (waiting, 1)):
        for call in calls:
            strict.waits = 0
            call()
            assert strict.waits == waits


def test_types_are_those_of_both_versions() -> None:
    x = of(3, 4)
    assert (x - np.uint32(1)).dtype == (x + 1).dtype == np.uint32
    assert (of(1, dtype=np.uint64) >> np.uint64(2)).dtype == np.uint64
    assert (of(1, dtype=np.float64) ** 2).dtype == np.float64
    for wrong in (
        lambda: x - np.uint64(1),  # uint32 by its value, uint64 by its type
        lambda: x - 1.5,
        lambda: x > -1,
        lambda: of(3, dtype=np.uint8) < 3000,
        lambda: of(3, dtype=np.uint64) + of(3, dtype=np.int64),
    ):
        with pytest.raises(TypeError):
            wrong()


def test_memory() -> None:
    x = strict.zeros((2, 3), np.uint64)
    x[0].view(np.uint8)[:] = 255
    one = x[1, 2]
    assert (type(one), one.shape) == (strict.ndarray, ())
    one.fill(7)
    assert x.get().tolist() == [[2**64 - 1] * 3, [0, 0, 7]]
    assert strict.empty(2, np.uint32).get().all()
    with pytest.raises(ValueError, match="nothing of strides"):
        strict.argument(x[:, :1])

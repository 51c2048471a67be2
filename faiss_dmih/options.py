"""What an index is asked for, checked; how codes are cut by default. The same for all backends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral

MODES = ("auto", "mih", "scan")
ENGINES = ("auto", "scan", "probe")
GPU_ENGINES = (*ENGINES, "tensor")
MAX_SUBSTRING_BITS = 26


def check_mode(mode: str) -> str:
    """`mode`, if it is one of MODES; otherwise ValueError."""
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}: expected one of {', '.join(MODES)}")
    return mode


def check_engine(engine: str, engines: Sequence[str] = ENGINES) -> str:
    """`engine`, if it is one of `engines`; otherwise ValueError."""
    if engine not in engines:
        raise ValueError(f"unknown engine {engine!r}: expected one of {', '.join(engines)}")
    return engine


def check_cuts(cuts: Sequence[int] | None, d: int) -> tuple[int, ...] | None:
    """Substring lengths that sum to d, each in [1, 26]; None stays None.

    >>> check_cuts([20, 22, 22], 64)
    (20, 22, 22)
    """
    if cuts is None:
        return None
    if not isinstance(cuts, Iterable) or not all(isinstance(c, Integral) for c in cuts):
        raise TypeError(f"cuts must be a list of substring lengths in bits; got {cuts!r}")
    out = tuple(int(c) for c in cuts)
    if any(not 1 <= c <= MAX_SUBSTRING_BITS for c in out):
        raise ValueError(
            f"every substring has 1 to {MAX_SUBSTRING_BITS} bits (its table is addressed "
            f"directly); got cuts={out}: cut longer ones in two"
        )
    if sum(out) != d:
        raise ValueError(f"cuts must sum to d = {d} bits; got {out}, which sum to {sum(out)}")
    return out


def check_budget(memory_budget: int | None) -> int | None:
    """A number of bytes, or None."""
    if memory_budget is None:
        return None
    if not isinstance(memory_budget, Integral) or isinstance(memory_budget, bool):
        raise TypeError(f"memory_budget is a number of bytes; got {memory_budget!r}")
    if memory_budget < 0:
        raise ValueError(f"memory_budget must not be negative; got {memory_budget}")
    return int(memory_budget)


def even_cuts(d: int, m: int) -> tuple[int, ...]:
    """m substrings, the first d mod m of them one bit longer."""
    return tuple(d // m + (j < d % m) for j in range(m))


def paper_cuts(d: int, n: int) -> tuple[int, ...]:
    """m = max(1, floor(d / log2 n)) substrings as in the papers, more of them where they would be
    longer than 26 bits or their offsets more than 8 bytes per code and table, or 1 MB in all."""
    m = max(1, int(d / math.log2(max(n, 2))))
    while m < d:
        cuts = even_cuts(d, m)
        offsets = sum(4.0 * 2.0**bits for bits in cuts)
        if max(cuts) <= MAX_SUBSTRING_BITS and offsets <= max(8.0 * n * m, 2.0**20):
            break
        m += 1
    return even_cuts(d, m)

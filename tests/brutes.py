"""What the tests of indexes written in Python share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
from brute import Brute
from strategies import Case

CASE = Case(d=64, n=300, nq=20, kind="duplicates", seed=1)
Make = Callable[[int], Any]


class Refusal(Exception):
    pass


def as_faiss_sees(index: Any) -> Any:
    """The C++ object of an empty index: calls of it come in through FAISS."""
    seen = faiss.IndexBinaryIDMap(index).index
    seen.referenced_objects = [index]
    return seen


def filled(d: int = CASE.d, xb: np.ndarray = CASE.xb) -> Brute:
    index = Brute(d)
    index.add(xb)
    return index


def make_shards(make: Make, d: int, threaded: bool, successive: bool, count: int = 3) -> Any:
    shards = faiss.IndexBinaryShards(d, threaded, successive)
    for _ in range(count):
        shards.add_shard(make(d))
    return shards

"""An index written in Python: the oracle, as FAISS's composites can hold it."""

from __future__ import annotations

from typing import Any

import numpy as np

from faiss_dmih import reference
from faiss_dmih.python_index import PythonIndexBinary


class Brute(PythonIndexBinary):
    """Brute force over codes in an array. `fail`, where it is set, is raised by every method."""

    def __init__(self, d: int) -> None:
        super().__init__(d)
        self.xb = np.empty((0, d // 8), np.uint8)
        self.fail: BaseException | None = None

    def _check(self) -> None:
        if self.fail is not None:
            raise self.fail

    @property
    def ntotal(self) -> int:
        return len(self.xb)

    def train(self, x: Any) -> None:
        self._check()

    def add(self, x: Any) -> None:
        self._check()
        self.xb = np.concatenate([self.xb, x])
        self._changed()

    def search(self, x: Any, k: int, *, mask: Any = None) -> Any:
        self._check()
        return reference.knn(self.xb, x, k, mask=mask)

    def range_search(self, x: Any, radius: int, *, mask: Any = None) -> Any:
        self._check()
        return reference.range_search(self.xb, x, radius, mask=mask)

    def reset(self) -> None:
        self._check()
        self.xb = self.xb[:0]
        self._changed()

    def remove_ids(self, ids: Any) -> int:
        self._check()
        before = self.ntotal
        self.xb = np.delete(self.xb, ids, axis=0)
        self._changed()
        return before - self.ntotal

    def reconstruct_n(self, i0: int, ni: int) -> Any:
        self._check()
        if not 0 <= i0 <= i0 + ni <= self.ntotal:
            raise IndexError(f"ids {i0} to {i0 + ni} are not in [0, {self.ntotal})")
        return self.xb[i0 : i0 + ni]

"""What an index of shards is compared with: IDMap2 over one IndexDMIH of the same codes."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from checks import assert_same
from numpy.typing import NDArray

import faiss_dmih

Codes = NDArray[np.uint8]


class Model:
    def __init__(self, xb: Codes) -> None:
        self.index = faiss.IndexBinaryIDMap2(faiss_dmih.IndexDMIH(8 * xb.shape[1]))
        self.codes = dict[int, Codes]()
        self.add(xb, np.arange(len(xb)))

    def add(self, x: Codes, ids: NDArray[np.int64]) -> None:
        self.index.add_with_ids(x, ids)
        self.codes |= dict(zip(ids.tolist(), x, strict=True))

    def remove(self, ids: NDArray[np.int64]) -> int:
        self.codes = {key: code for key, code in self.codes.items() if key not in {*ids.tolist()}}
        return int(self.index.remove_ids(ids))

    def assert_equals(self, index: Any, xq: Codes, **options: Any) -> None:
        """Both answer alike, in every way there is."""
        assert index.ntotal == len(self.codes) == self.index.ntotal
        for k in (1, 7, 100):
            assert_same(index.search(xq, k, **options), self.index.search(xq, k))
        for radius in (0, 1, index.d // 8, index.d // 3):
            assert_same(index.range_search(xq, radius), self.index.range_search(xq, radius))
        some = np.array([*self.codes][::-3], np.int64)
        np.testing.assert_array_equal(
            index.reconstruct_batch(some),
            np.array([self.codes[key] for key in some.tolist()]).reshape(-1, index.d // 8),
        )

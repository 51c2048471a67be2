"""The two questions that an index answers: for the k nearest codes, and for all within a radius.

An answer is the tuple of arrays that FAISS gives: (D, I) to the first, (lims, D, I) to the second.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from faiss_dmih.bench import check

Codes = npt.NDArray[np.uint8]
Answer = tuple[npt.NDArray[Any], ...]


class Question(ABC):
    """What is asked about each query of a cell."""

    @property
    @abstractmethod
    def text(self) -> str:
        """For people, such as "k = 10"."""

    @abstractmethod
    def put_to(self, index: Any) -> Callable[[Codes], Answer]:
        """The function that asks `index`."""

    @abstractmethod
    def join(self, answers: Sequence[Answer]) -> Answer:
        """One answer from those to consecutive parts of the queries."""

    @abstractmethod
    def first(self, answer: Answer, nq: int) -> Answer:
        """What `answer`, to the same question or a wider one, says of the first `nq` queries."""

    @abstractmethod
    def difference(self, answer: Answer, truth: Answer) -> str:
        """Empty if both are equal bit for bit, else where they differ first."""

    @abstractmethod
    def equivalent(self, answer: Answer, truth: Answer) -> str:
        """The same for who has an order, and a choice among ties, of their own.

        Distances of neighbours must be equal; ids within a radius must be the same ones.
        """

    @abstractmethod
    def recalls(self, answer: Answer, truth: Answer) -> tuple[float, float]:
        """Recall and distance recall; see `check`. `ValueError` for arrays of the wrong shape."""


@dataclass(frozen=True)
class Nearest(Question):
    """For the k nearest codes. The answer for a larger k is wider: its first k columns count."""

    k: int

    @property
    def text(self) -> str:
        return f"k = {self.k}"

    def put_to(self, index: Any) -> Callable[[Codes], Answer]:
        return partial(index.search, k=self.k)

    def join(self, answers: Sequence[Answer]) -> Answer:
        return tuple(np.concatenate(arrays) for arrays in zip(*answers, strict=True))

    def first(self, answer: Answer, nq: int) -> Answer:
        return tuple(array[:nq, : self.k] for array in answer)

    def difference(self, answer: Answer, truth: Answer) -> str:
        return check.difference(*answer, *truth)

    def equivalent(self, answer: Answer, truth: Answer) -> str:
        return check.difference(answer[0], truth[1], truth[0], truth[1])

    def recalls(self, answer: Answer, truth: Answer) -> tuple[float, float]:
        (D, I), (D_true, I_true) = answer, truth
        if D.shape != D_true.shape or I.shape != I_true.shape:
            raise ValueError(f"got D{D.shape}, I{I.shape}, expected {D_true.shape} each")
        return check.recall(I, I_true), check.distance_recall(D, I, D_true, I_true)


@dataclass(frozen=True)
class Within(Question):
    """For all codes at a distance below `radius`, as FAISS's range_search has it."""

    radius: int

    @property
    def text(self) -> str:
        return f"radius {self.radius}"

    def put_to(self, index: Any) -> Callable[[Codes], Answer]:
        return lambda xq: index.range_search(xq, self.radius)

    def join(self, answers: Sequence[Answer]) -> Answer:
        lims, D, I = zip(*answers, strict=True)
        counts = np.concatenate([np.diff(part) for part in lims])
        joined = np.concatenate([lims[0][:1], np.cumsum(counts, dtype=counts.dtype)])
        return joined, np.concatenate(D), np.concatenate(I)

    def first(self, answer: Answer, nq: int) -> Answer:
        lims, D, I = answer
        end = int(lims[nq])
        return lims[: nq + 1], D[:end], I[:end]

    def difference(self, answer: Answer, truth: Answer) -> str:
        return check.range_difference(answer, truth)

    def equivalent(self, answer: Answer, truth: Answer) -> str:
        lims, D, I = answer
        counts = np.diff(lims).astype(np.int64)
        query = np.repeat(np.arange(len(counts)), counts)
        order = np.lexsort((I, query))
        return check.range_difference((lims, D[order], I[order]), truth)

    def recalls(self, answer: Answer, truth: Answer) -> tuple[float, float]:
        if answer[0].shape != truth[0].shape:
            raise ValueError(f"got lims{answer[0].shape}, expected {truth[0].shape}")
        # Whatever is within the radius is as good as anything else there: both are the same.
        found = check.range_recall(answer, truth)
        return found, found

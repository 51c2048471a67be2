"""Where a suite's codes come from: a named data set with all that determines it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from faiss_dmih.data import GENERATORS, HELD_OUT, NEAR_DUPLICATE, CodeSet
from faiss_dmih.data.codesets import dataset_codes, file_stamps, synthetic_codes
from faiss_dmih.data.files import Progress, no_progress


@dataclass(frozen=True)
class Source:
    """`n` codes of `bits` bits of a data set, and `nq` queries of each kind."""

    dataset: str
    bits: int
    n: int
    nq: int = 1024
    seed: int = 0
    method: str = "itq"
    """How real data are binarised."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the generator of synthetic data."""

    @property
    def title(self) -> str:
        return f"{self.n:,} codes of {self.bits} bits, {self.dataset}"

    @property
    def is_real(self) -> bool:
        """Whether it is a named data set, binarised by `method`."""
        return self.dataset not in GENERATORS

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of queries that it has."""
        generator = GENERATORS.get(self.dataset)
        return (HELD_OUT, NEAR_DUPLICATE) if generator is None else generator.kinds

    def load(self, progress: Progress = no_progress) -> CodeSet:
        """The codes. Raises `DataUnavailable`, or `InputError` for what the data cannot give."""
        numbers: dict[str, Any] = {
            "bits": self.bits,
            "n": self.n,
            "nq": self.nq,
            "seed": self.seed,
        }
        if self.dataset in GENERATORS:
            progress(f"making {self.dataset}", 0, 0)
            return synthetic_codes(self.dataset, **numbers, **self.options)
        return dataset_codes(self.dataset, **numbers, method=self.method, progress=progress)

    def key(self) -> dict[str, Any]:
        """Everything that determines the codes."""
        synthetic = self.dataset in GENERATORS
        return {**asdict(self), "files": [] if synthetic else file_stamps(self.dataset)}

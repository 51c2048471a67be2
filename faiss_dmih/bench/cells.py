"""The unit of work: one cell asks one question of every competitor. A suite is a list of cells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """k nearest neighbours of `nq` queries of one kind among `n` codes of `d` bits.

    `batch` is the number of queries given to one call of `search`; 1 means one at a time.
    """

    dataset: str
    queries: str
    d: int
    n: int
    nq: int
    k: int
    batch: int
    threads: int

    @property
    def workload(self) -> str:
        """Name for people of the codes and the queries."""
        return self.dataset if self.queries == "held-out" else f"{self.dataset}, {self.queries}"

    @property
    def id(self) -> str:
        """Name for files; different for different cells."""
        return (
            f"{self.dataset}_{self.queries}_d{self.d}_n{self.n}_nq{self.nq}"
            f"_k{self.k}_batch{self.batch}_t{self.threads}"
        )


def grid(
    dataset: str,
    *,
    d: int,
    n: int,
    nq: dict[str, int],
    ks: dict[str, list[int]],
    batches: list[int],
    threads: int,
) -> list[Cell]:
    """All cells of one database; `nq` and `ks` give sizes and k for each kind of queries.

    A batch larger than the number of queries is one call with all of them; batches that come out
    equal in this way are measured once.
    """
    return [
        Cell(dataset, kind, d, n, nq[kind], k, batch, threads)
        for kind in ks
        for batch in dict.fromkeys(min(batch, nq[kind]) for batch in batches)
        for k in ks[kind]
    ]

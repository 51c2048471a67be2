"""The unit of work: one cell asks one question of every competitor. A suite is a list of cells."""

from __future__ import annotations

from dataclasses import dataclass

from faiss_dmih.bench.questions import Nearest, Question, Within


@dataclass(frozen=True)
class Cell:
    """A question, asked for `nq` queries of one kind about `n` codes of `d` bits.

    The question is for the `k` nearest neighbours or, where a `radius` is given and k is 0, for all
    codes nearer than it. `batch` is the number of queries in one call; 1 means one at a time.
    """

    dataset: str
    queries: str
    d: int
    n: int
    nq: int
    k: int
    batch: int
    threads: int
    radius: int | None = None

    @property
    def question(self) -> Question:
        return Nearest(self.k) if self.radius is None else Within(self.radius)

    @property
    def workload(self) -> str:
        """Name for people of the codes and the queries."""
        return self.dataset if self.queries == "held-out" else f"{self.dataset}, {self.queries}"

    @property
    def codes(self) -> str:
        """What is searched, and with how many threads."""
        threads = threads_text(self.threads)
        return f"{self.dataset} {short(self.n)} x {self.d} bits, {threads}"

    @property
    def task(self) -> str:
        """What is asked, in how large calls."""
        kind = "" if self.queries == "held-out" else f"{self.queries}, "
        return f"{kind}{self.question.text}, batch {self.batch:,}"

    @property
    def title(self) -> str:
        """All of it for people, on one line."""
        return f"{self.codes}: {self.task}"

    @property
    def id(self) -> str:
        """Name for files; different for different cells."""
        asked = f"k{self.k}" if self.radius is None else f"r{self.radius}"
        return (
            f"{self.dataset}_{self.queries}_d{self.d}_n{self.n}_nq{self.nq}"
            f"_{asked}_batch{self.batch}_t{self.threads}"
        )


def threads_text(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def short(count: int) -> str:
    """Round counts in short: 10M, 600k, 1,234."""
    for unit, size in (("M", 1_000_000), ("k", 1000)):
        if count >= size and count % size == 0:
            return f"{count // size}{unit}"
    return f"{count:,}"


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

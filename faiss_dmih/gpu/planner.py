"""Whether queries are worth probing for, and how much.

Costs are derived from a GPU's rates, not measured (docs/gpu.md). What a probe and a scan cost
relative to each other is all that matters, and answers do not depend on it.

A k-NN query does not say how far it will have to look. So probing is tried with a small part of
what a scan costs, and whoever is not done by then is scanned for: in the worst case that small part
is lost. What share of the queries was done is known later; where it was not worth it, the next try
comes after twice as many batches as the last time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faiss_dmih import gpu_counters
from faiss_dmih.gpu.device import Device
from faiss_dmih.gpu.store import Store
from faiss_dmih.gpu.tables import Tables
from faiss_dmih.gpu.tensor import POPC, Scanner, pays, usable

# Clocks of all multiprocessors together, per item: 132 * 1.9e9 / 25e9 random sectors a second.
_ITEM_CLOCKS = 10.0
# Clocks of one multiprocessor, per item of a warp that waits for each 32 of them in turn.
_LONE_ITEM_CLOCKS = 120.0
# Bytes per clock and multiprocessor, from memory: 4.3e12 / (132 * 1.9e9).
_BYTES = 17.0

TRIED = 1 / 8
"""What probing may cost, of a scan."""
MAX_ITEMS = 1 << 26
"""More than any kernel is to be allowed: sums stay within 32 bits."""
_MAX_PAUSE = 64


@dataclass(frozen=True)
class Probe:
    """How queries are to be probed for: so many steps, at most so many items each."""

    steps: int
    items: int
    all_seen: bool


def scan_items(
    slots: int, words: int, nq: int, multiprocessors: int, scanner: Scanner = POPC
) -> float:
    """Items that one query may look at in the time that its share of a scan of all takes."""
    computing = slots * scanner.clocks(words, nq) / multiprocessors
    reading = 8.0 * words * slots / (_BYTES * multiprocessors)
    clocks = max(computing, reading)
    return min(clocks * multiprocessors / _ITEM_CLOCKS / nq, clocks / _LONE_ITEM_CLOCKS)


@dataclass
class Planner:
    """Plans for one index. `engine`: "auto", or the one to use whatever it costs."""

    device: Device
    engine: str = "auto"
    _pause: int = 0
    _next_pause: int = 1
    _outcome: tuple[int, Callable[[], NDArray[Any] | None]] | None = field(default=None, repr=False)

    def scanner(self, store: Store, what: str, nq: int) -> Scanner:
        """Which scan, if it comes to that; what: "knn" or "range"."""
        device, words = self.device, store.words
        forced = self.engine == "tensor"
        if not forced and self.engine != "auto":
            return POPC
        if not forced and not any(pays(one, words, nq) for one in usable(device)):
            return POPC
        found = device.tensor_cores.scanner(device, store, what)
        if found is None and forced:
            why = gpu_counters.stats()["not_on_tensor_cores"]
            raise RuntimeError(
                "the engine 'tensor' cannot be used: "
                + why[f"device {device.number}, rows of {words} words"]
                + "; force_engine('auto') takes another"
            )
        return POPC if found is None or not (forced or pays(found, words, nq)) else found

    def knn(
        self,
        tables: Tables | None,
        slots: int,
        words: int,
        nq: int,
        scanner: Scanner = POPC,
    ) -> Probe | None:
        """None: scan."""
        if tables is None or self.engine in ("scan", "tensor"):
            return None
        front = tables.front
        if self.engine == "probe":
            return Probe(len(front.steps), MAX_ITEMS, front.complete)
        self._learn()
        if self._pause > 0:
            self._pause -= 1
            return None
        items = TRIED * scan_items(slots, words, nq, self.device.multiprocessors, scanner)
        steps = int(np.searchsorted(front.items, items, side="right")) - 1
        if steps < 1:
            return None
        everything = front.complete and steps == len(front.steps)
        return Probe(steps, int(min(items, MAX_ITEMS)), everything)

    def range(
        self,
        tables: Tables | None,
        slots: int,
        words: int,
        nq: int,
        radius: int,
        scanner: Scanner = POPC,
    ) -> Probe | None:
        """For all codes at a distance below `radius`. None: scan."""
        if tables is None or self.engine in ("scan", "tensor"):
            return None
        front = tables.front
        enough = radius <= len(front.steps)
        if not enough and not front.complete:
            return None
        steps = min(radius, len(front.steps))
        if self.engine == "probe":
            return Probe(steps, MAX_ITEMS, not enough)
        items = scan_items(slots, words, nq, self.device.multiprocessors, scanner)
        if front.items[steps] > items / 2:
            return None
        return Probe(steps, int(min(items, MAX_ITEMS)), not enough)

    def tell(self, nq: int, given_up: Any) -> None:
        """After a search of `nq` queries by a plan of knn(): on the device, how many were left."""
        if self.engine == "auto" and self._outcome is None:
            self._outcome = (nq, self.device.read_later(given_up))

    def _learn(self) -> None:
        outcome = self._outcome  # which another thread may take away meanwhile
        if outcome is None:
            return
        nq, read = outcome
        given_up = read()
        if given_up is None:  # still under way
            return
        self._outcome = None
        if 1 - int(given_up[0]) / nq > TRIED:
            self._next_pause = 1
        else:
            self._pause = self._next_pause
            self._next_pause = min(2 * self._next_pause, _MAX_PAUSE)

"""What an index that grows by many adds takes from the system, beside what it says it holds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scripts import run

GROW = """
import json

def mib(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024

xb = codes(1_000_000)
first = faiss_dmih.IndexDMIH(64)  # threads, calibration: what comes once
first.add(xb[:10_000])
first.search(xb[:100], 1)
before = mib("VmRSS")
assert mib("VmHWM") < before + 16, "the peak is older than the index"
index = faiss_dmih.IndexDMIH(64)
for part in np.array_split(xb, 40):
    index.add(part)
held = mib("VmRSS") - before
peak = mib("VmHWM") - before
said = index.memory_usage()["total"] / 2**20
del index
print(json.dumps({"said": said, "held": held, "peak": peak, "left": mib("VmRSS") - before}))
"""


@pytest.fixture(scope="module")
def grown() -> dict[str, Any]:
    """MiB: what the index says it holds; what the process took meanwhile, and at the most."""
    return dict(json.loads(run(GROW)))


def test_holds_what_it_says(grown: dict[str, Any]) -> None:
    assert grown["said"] < grown["held"] < 1.2 * grown["said"] + 16


def test_growing_takes_at_most_twice_as_much(grown: dict[str, Any]) -> None:
    assert grown["peak"] < 2 * grown["said"] + 16


def test_what_was_held_is_given_back(grown: dict[str, Any]) -> None:
    assert grown["left"] < 0.4 * grown["said"]

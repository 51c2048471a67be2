"""Who takes part in a run on a GPU: the index's engines, and others where they are to be had."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import faiss

from faiss_dmih.bench.cells import Cell
from faiss_dmih.bench.competitors import Competitor, DmihAuto, Flat
from faiss_dmih.bench.protocol import Entrant
from faiss_dmih.data import HELD_OUT, PLANTED

SCAN, TENSOR, PROBE, AUTO = "dmih-scan", "dmih-tensor", "dmih-probe", "dmih-auto"
GPU_FLAT = "faiss-gpu-flat"
_ENGINES = {SCAN: "scan", TENSOR: "tensor", PROBE: "probe", AUTO: "auto"}
_HOST: dict[str, Competitor] = {"host flat": Flat(), "host dmih-auto": DmihAuto()}
SCANS = (SCAN, TENSOR, GPU_FLAT, "host flat")
"""They compare every query with every code."""


@dataclass(frozen=True)
class Contestant(Entrant):
    """An entrant, and whose arrays it takes."""

    host_clock: bool


def on_device(index: Any, cell: Cell, *, tensor_cores: bool) -> Iterator[Contestant]:
    """The engines of a GpuIndexDMIH that are worth measuring in a cell."""
    for name, engine in _ENGINES.items():
        if name == TENSOR and not (tensor_cores and cell.queries == HELD_OUT):
            continue
        # Among uniform codes of more bits, the nearest are so far that a probe is hopeless.
        if name != PROBE or cell.queries == PLANTED or cell.d <= 64:
            prepare = partial(index.force_engine, engine)
            yield Contestant(name, cell.question.put_to(index), prepare, host_clock=False)


def on_host(indexes: dict[str, Any], cell: Cell) -> Iterator[Contestant]:
    """The indexes that `host_makers` has made, as far as they can answer the cell's question."""
    for name, index in indexes.items():
        if name == GPU_FLAT and cell.radius is not None:
            continue  # it has no range search
        prepare = partial(_prepare, name, index, cell)
        yield Contestant(name, cell.question.put_to(index), prepare, host_clock=True)


def _prepare(name: str, index: Any, cell: Cell) -> None:
    if name in _HOST:
        faiss.omp_set_num_threads(_HOST[name].threads(cell.batch, cell.threads))
        _HOST[name].prepare(index, {})


def host_makers(d: int) -> dict[str, Callable[[], Any]]:
    """Makers of empty indexes over arrays of the host, the GPU's among them if there is one."""
    makers: dict[str, Callable[[], Any]] = {
        name: partial(competitor.make, d) for name, competitor in _HOST.items()
    }
    if not absent():
        makers[GPU_FLAT] = partial(_gpu_flat, d)
    return makers


def absent() -> dict[str, str]:
    """Competitors that cannot take part here, and why."""
    if hasattr(faiss, "GpuIndexBinaryFlat"):
        return {}
    return {GPU_FLAT: "this faiss has no GpuIndexBinaryFlat: it is not faiss-gpu"}


def _gpu_flat(d: int) -> Any:
    resources = faiss.StandardGpuResources()
    index = faiss.GpuIndexBinaryFlat(resources, d)
    index.resources = resources  # lives as long as the index
    return index

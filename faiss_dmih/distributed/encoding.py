"""Encoders by Ray: images made into codes by many processes, sub-models trained as tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from faiss_dmih.distributed.engine import ray

if TYPE_CHECKING:
    from faiss_dmih.encoders import Encoder

T = TypeVar("T")


def encode(
    encoder: Encoder,
    x: Any,
    *,
    workers: int = 2,
    batch_size: int = 256,
    num_cpus: float = 1,
    column: str = "image",
) -> Any:
    """Codes of many images or vectors, made by several processes.

    The codes are those of ``encoder.encode`` with ``device="cpu"`` on as many threads, in the same
    order: the items are cut into the same batches. Processors are what is asked for, GPUs are not
    used.

    Args:
        encoder: fitted; each process gets a copy.
        x: what ``encoder.encode`` takes, such as ``faiss_dmih.data.Images``, whose files are
            decoded by the processes, which must see them. Or a ``ray.data.Dataset``, such as
            ``ray.data.read_images`` gives; its batches are Ray's.
        workers: processes.
        batch_size: items at a time.
        num_cpus: processors of each, and threads.
        column: of the dataset, with the images or vectors.

    Returns:
        a ``ray.data.Dataset``, computed when it is used: a column ``code``, uint8 (bits/8,), and
        for a dataset its other columns. ``ShardedIndexDMIH.build`` takes it as it is.

    Raises:
        ImportError: ``ray.data`` is not installed. ValueError: the encoder was not fitted, or the
            dataset has no such column.
    """
    ray()
    from ray import data

    _ = encoder.cuts  # that it was not fitted is said here
    threads = max(1, int(num_cpus))
    if hasattr(x, "map_batches"):
        columns = x.columns() or []
        if column not in columns:
            raise ValueError(
                f"got a dataset with columns {columns}, expected {column!r} among them"
            )
        function: Any = _EncodeColumn
        work: tuple[Any, ...] = ray().put(encoder), threads, column
        source, size = x, batch_size
    else:
        spans = -(-len(x) // batch_size)
        if spans == 0:
            return data.from_numpy(encoder.encode(x, device="cpu")).rename_columns({"data": "code"})
        source, size = data.range(spans, override_num_blocks=spans), 1
        function, work = _EncodeSpan, (ray().put(encoder), threads, ray().put(x), batch_size)
    codes = source.map_batches(
        function,
        fn_constructor_args=work,
        batch_size=size,
        batch_format="numpy",
        compute=data.ActorPoolStrategy(size=workers),
        num_cpus=num_cpus,
    )
    codes.context.execution_options.preserve_order = True
    return codes


class _EncodeSpan:
    """Batches by their numbers."""

    def __init__(self, encoder: Any, threads: int, x: Any, batch_size: int) -> None:
        self._encoder, self._batch_size = _fetched(encoder, threads), batch_size
        self._x = ray().get(x)

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        first = int(batch["id"][0]) * self._batch_size
        chosen = self._x[first : first + self._batch_size]
        codes = self._encoder.encode(chosen, batch_size=self._batch_size, device="cpu")
        return {"code": codes}


class _EncodeColumn:
    """Batches of a dataset."""

    def __init__(self, encoder: Any, threads: int, column: str) -> None:
        self._encoder, self._column = _fetched(encoder, threads), column

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        x: Any = batch.pop(self._column)
        if x.dtype == np.object_:  # images of several sizes
            x = list(x)
        codes = self._encoder.encode(x, batch_size=max(1, len(x)), device="cpu")
        return {**batch, "code": codes}


def _fetched(encoder: Any, threads: int) -> Any:
    import torch

    torch.set_num_threads(threads)
    return ray().get(encoder)


def run_each(work: Callable[[Any], T], jobs: Sequence[Any], shared: tuple[Any, ...]) -> list[T]:
    """``work((job, *shared))`` of each job, as tasks of Ray, which get `shared` from its object
    store."""
    engine = ray()
    given = engine.put(shared)
    task = engine.remote(_run).options(num_cpus=1)
    results: list[T] = engine.get([task.remote(work, job, given) for job in jobs])
    return results


def _run(work: Callable[[Any], T], job: Any, shared: tuple[Any, ...]) -> T:
    return work((job, *shared))

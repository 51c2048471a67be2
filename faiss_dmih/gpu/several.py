"""Several devices behind one index: shards hold a part of the codes each, replicas all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from faiss_dmih.gpu import masks
from faiss_dmih.gpu.index import GpuIndexDMIH, check_k
from faiss_dmih.python_index import PythonIndexBinary

Answer = TypeVar("Answer")


class _Several(PythonIndexBinary):
    """What both have: an index for each device, and a thread for each of them."""

    def __init__(self, d: int, devices: Sequence[int], **options: Any) -> None:
        super().__init__(d)
        if len(devices) == 0:
            raise ValueError("got no devices, expected the number of at least one")
        self._indexes = [GpuIndexDMIH(d, device=number, **options) for number in devices]
        self._threads = ThreadPoolExecutor(len(devices), "faiss_dmih-gpu")

    @property
    def devices(self) -> tuple[int, ...]:
        """Numbers of the devices."""
        return tuple(index.device for index in self._indexes)

    def compact(self) -> None:
        """As ``GpuIndexDMIH.compact``, on all devices at a time."""
        self._each(lambda index: index.compact())

    def force_engine(self, engine: str) -> None:
        """As ``GpuIndexDMIH.force_engine``."""
        for index in self._indexes:
            index.force_engine(engine)

    def memory_usage(self) -> dict[str, int]:
        """Bytes held on all devices together, by part."""
        parts = [index.memory_usage() for index in self._indexes]
        return {name: sum(part[name] for part in parts) for name in parts[0]}

    def reset(self) -> None:
        """Removes all codes."""
        for index in self._indexes:
            index.reset()
        self._changed()

    def _each(self, work: Callable[..., Answer], *arguments: Sequence[Any]) -> list[Answer]:
        """work(index, argument) of each index, in its thread. Waits for all; raises what the first
        of those that failed has raised."""
        started = [
            self._threads.submit(work, *given)
            for given in zip(self._indexes, *arguments, strict=True)
        ]
        for one in started:
            one.exception()
        return [one.result() for one in started]

    def _on_host(self, x: Any) -> tuple[Any, Callable[[Any], Any]]:
        """`x` in host memory, and how answers go to where it was."""
        device = self._indexes[0].on_device
        if not device.owns(x):
            return x, lambda answer: answer
        here = masks.to_host(device, x, "x")

        def back(answer: NDArray[Any]) -> Any:
            with device.reading(x):
                return device.like(x, device.xp.asarray(answer))

        return here, back

    def _add(self, parts: Sequence[NDArray[np.uint8]]) -> None:
        """A part to each index; to all or none of them."""
        before = [index.ntotal for index in self._indexes]
        try:
            self._each(lambda index, part: index.add(part), parts)
        except BaseException:
            for index, n in zip(self._indexes, before, strict=True):
                index.remove_ids(np.arange(n, index.ntotal))
            raise


class GpuReplicas(_Several):
    """The same codes on every device; queries are dealt out to them.

    Takes and gives what ``GpuIndexDMIH`` does; queries on a device are copied to the host and
    their answers back, which waits.

    Args:
        d: bits of a code.
        devices: numbers of the CUDA devices.
        options: as for ``GpuIndexDMIH``; a memory budget is per device.
    """

    @property
    def ntotal(self) -> int:
        """Number of codes, each of which all devices hold."""
        return self._indexes[0].ntotal

    def add(self, x: Any) -> None:
        """As ``GpuIndexDMIH.add``; to all devices or, on an exception, to none."""
        codes, _ = self._on_host(x)
        self._add([codes] * len(self._indexes))
        self._changed()

    def search(self, x: Any, k: int, *, params: Any = None, mask: Any = None) -> tuple[Any, Any]:
        """As ``GpuIndexDMIH.search``."""
        k = check_k(k)
        queries, back = self._on_host(x)
        mask = masks.on_host(self._indexes[0].on_device, params, mask, self.ntotal)
        found = self._each(
            lambda index, part: index.search(part, k, mask=mask), self._deal(queries)
        )
        D, I = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        return back(D), back(I)

    def range_search(
        self, x: Any, thresh: int, *, params: Any = None, mask: Any = None
    ) -> tuple[Any, Any, Any]:
        """As ``GpuIndexDMIH.range_search``."""
        queries, back = self._on_host(x)
        mask = masks.on_host(self._indexes[0].on_device, params, mask, self.ntotal)
        found = self._each(
            lambda index, part: index.range_search(part, thresh, mask=mask), self._deal(queries)
        )
        counts = np.concatenate([np.diff(lims) for lims, _, _ in found])
        D, I = (np.concatenate([answer[part] for answer in found]) for part in (1, 2))
        return back(_limits(counts)), back(D), back(I)

    def remove_ids(self, ids: Any) -> int:
        """As ``GpuIndexDMIH.remove_ids``."""
        keep = masks.kept_on_host(self._indexes[0].on_device, ids, self.ntotal)
        removed = self._each(lambda index: index.remove_ids(np.flatnonzero(~keep)))
        self._changed()
        return int(removed[0])

    def reconstruct_n(self, i0: int = 0, ni: int = -1) -> Any:
        """As ``GpuIndexDMIH.reconstruct_n``."""
        return self._indexes[0].reconstruct_n(i0, ni)

    def _deal(self, queries: Any) -> list[Any]:
        n, m = len(queries), len(self._indexes)
        return [queries[n * part // m : n * (part + 1) // m] for part in range(m)]


class GpuShards(_Several):
    """Each code on one device; queries go to all, and their answers are merged in host memory.

    Ids count up over all devices, in the order of the adds: the codes of each add are spread
    evenly. Takes and gives what ``GpuIndexDMIH`` does; queries on a device are copied to the host
    and their answers back, which waits.

    Args:
        d: bits of a code.
        devices: numbers of the CUDA devices; one may be named more than once.
        options: as for ``GpuIndexDMIH``; a memory budget is per device.
    """

    def __init__(self, d: int, devices: Sequence[int], **options: Any) -> None:
        super().__init__(d, devices, **options)
        # Of each device its runs of consecutive ids, in order: first id and how many.
        self._runs: list[list[tuple[int, int]]] = [[] for _ in devices]

    @property
    def ntotal(self) -> int:
        """Number of codes on all devices together."""
        return sum(index.ntotal for index in self._indexes)

    def add(self, x: Any) -> None:
        """As ``GpuIndexDMIH.add``, an even part to each device; or, on an exception, to none."""
        codes, _ = self._on_host(x)
        first, n, m = self.ntotal, len(codes), len(self._indexes)
        at = [n * part // m for part in range(m + 1)]
        self._add([codes[at[s] : at[s + 1]] for s in range(m)])
        for s, runs in enumerate(self._runs):
            if at[s] < at[s + 1]:
                runs.append((first + at[s], at[s + 1] - at[s]))
        self._changed()

    def search(self, x: Any, k: int, *, params: Any = None, mask: Any = None) -> tuple[Any, Any]:
        """As ``GpuIndexDMIH.search``."""
        k = check_k(k)
        queries, back = self._on_host(x)
        found = self._each(
            lambda index, part: index.search(queries, k, mask=part), self._masks(params, mask)
        )
        D = np.concatenate([d for d, _ in found], axis=1)
        I = np.concatenate(
            [self._ids(s, i, there=i >= 0) for s, (_, i) in enumerate(found)], axis=1
        )
        nearest = np.lexsort((I, D), axis=1)[:, :k]
        return back(np.take_along_axis(D, nearest, 1)), back(np.take_along_axis(I, nearest, 1))

    def range_search(
        self, x: Any, thresh: int, *, params: Any = None, mask: Any = None
    ) -> tuple[Any, Any, Any]:
        """As ``GpuIndexDMIH.range_search``."""
        queries, back = self._on_host(x)
        found = self._each(
            lambda index, part: index.range_search(queries, thresh, mask=part),
            self._masks(params, mask),
        )
        counts = [np.diff(lims).astype(np.int64) for lims, _, _ in found]
        query = np.concatenate([np.repeat(np.arange(len(c)), c) for c in counts])
        D = np.concatenate([d for _, d, _ in found])
        I = np.concatenate([self._ids(s, i) for s, (_, _, i) in enumerate(found)])
        order = np.lexsort((I, query))
        return back(_limits(sum(counts))), back(D[order]), back(I[order])

    def remove_ids(self, ids: Any) -> int:
        """As ``GpuIndexDMIH.remove_ids``: later ids move down."""
        keep = masks.kept_on_host(self._indexes[0].on_device, ids, self.ntotal)
        removed = self._each(
            lambda index, part: index.remove_ids(np.flatnonzero(~part)), self._split(keep)
        )
        # A run's ids were consecutive, and what remains of them is again.
        before = np.concatenate([[0], np.cumsum(keep)])
        for s, runs in enumerate(self._runs):
            left = [(int(before[i]), int(before[i + n] - before[i])) for i, n in runs]
            self._runs[s] = [(first, n) for first, n in left if n > 0]
        self._changed()
        return sum(removed)

    def reset(self) -> None:
        """Removes all codes."""
        self._runs = [[] for _ in self._indexes]
        super().reset()

    def reconstruct_n(self, i0: int = 0, ni: int = -1) -> Any:
        """As ``GpuIndexDMIH.reconstruct_n``."""
        n = self.ntotal - i0 if ni == -1 else ni
        if i0 < 0 or n < 0 or i0 + n > self.ntotal:
            raise ValueError(
                f"ids [{i0}, {i0 + n}) are not in [0, ntotal = {self.ntotal}): ask for ids that "
                "the index has"
            )
        codes = np.empty((n, self.code_size), np.uint8)
        for index, runs in zip(self._indexes, self._runs, strict=True):
            local = 0
            for first, length in runs:
                begin, end = max(first, i0), min(first + length, i0 + n)
                if begin < end:
                    part = index.reconstruct_n(local + begin - first, end - begin)
                    codes[begin - i0 : end - i0] = part
                local += length
        return codes

    def _ids(self, shard: int, local: NDArray[np.int64], there: Any = True) -> NDArray[np.int64]:
        """Ids of all by those of one device; where not `there`, as they are."""
        firsts = np.array([first for first, _ in self._runs[shard]] or [0])
        locals_ = np.cumsum([0, *(n for _, n in self._runs[shard])])[: len(firsts)]
        run = np.searchsorted(locals_, local, side="right") - 1
        ids: NDArray[np.int64] = np.where(there, local + (firsts - locals_)[run], local)
        return ids

    def _masks(self, params: Any, mask: Any) -> list[Any]:
        """Of each device; None for all of them where there is none."""
        whole = masks.on_host(self._indexes[0].on_device, params, mask, self.ntotal)
        return [None] * len(self._indexes) if whole is None else self._split(whole)

    def _split(self, mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
        none = np.empty(0, np.bool_)
        return [
            np.concatenate([none, *(mask[first : first + n] for first, n in runs)])
            for runs in self._runs
        ]


def _limits(counts: Any) -> NDArray[np.uint64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)

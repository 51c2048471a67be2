"""EnsembleDSH: long codes of short ones, each from a net of its own."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from faiss_dmih.encoders.dmih import check_bits, with_input
from faiss_dmih.encoders.encoder import Architecture, Encoder, Inputs, Part, register
from faiss_dmih.encoders.nets import Head
from faiss_dmih.encoders.objective import Objective, check_labels
from faiss_dmih.encoders.training import Examples, Training, train_head


@register
class EnsembleDSH(Encoder):
    """Ensemble deep supervised hashing: m sub-models of 16 bits, one per half of the data.

    Long codes of one net repeat themselves; sub-models differ by initialisation, by data (random
    halves and their complements) and, if asked for, by architecture. They share the frozen stages
    of the backbone, are trained independently of each other, and can be added to later. Their
    codes are the index's substrings: `cuts` are their lengths.

    Args:
        bits: length of the codes.
        sub_bits: of a sub-model, 16 as in the paper. Where it does not divide bits, the last one is
            shorter.
        backbone, freeze, pretrained: as for `DMIH`; `freeze` is what sub-models share.
        vary: every second sub-model with half the units in its last layer.
        objective: of each sub-model; DMIH's balance terms may be among it. By default triplets.
        training: of each sub-model; its seed plus the number of the sub-model is that one's.
        workers: processes that train side by side, each on one thread; 1 trains in this process,
            on one thread too, with the same result. ``"ray"``: tasks of Ray, wherever it has room
            for them; the result is the same again.
    """

    def __init__(
        self,
        bits: int = 64,
        *,
        sub_bits: int = 16,
        backbone: str = "small",
        freeze: str | None = None,
        pretrained: bool | str | Path = False,
        vary: bool = False,
        objective: Objective | None = None,
        training: Training | None = None,
        workers: int | Literal["ray"] = 1,
    ) -> None:
        if workers != "ray" and (not isinstance(workers, int) or workers < 1):
            raise ValueError(f"got workers = {workers!r}, expected at least 1, or 'ray'")
        if not 1 <= sub_bits <= 26:
            raise ValueError(
                f"got sub_bits = {sub_bits}, expected 1 to 26: the code of a sub-model is the key "
                "of a hash table"
            )
        self._bits, self._sub_bits, self._vary = check_bits(bits), sub_bits, vary
        self.architecture = Architecture(
            backbone, freeze, pretrained if isinstance(pretrained, bool) else str(pretrained)
        )
        self.objective = objective or Objective()
        self.training = training or Training()
        self.workers = workers
        self.parts = []
        self._updates = 0

    def fit(self, x: Any, labels: Any, *, validation: tuple[Any, Any] | None = None) -> EnsembleDSH:
        """Train all sub-models on images or vectors and their labels: as `DMIH.fit`."""
        torch.manual_seed(self.training.seed)
        self.architecture = with_input(self.architecture, x)
        self.trunk, _ = self.architecture.build(self._sub_bits)
        self.parts = []
        self._standardise(self._first_items(x))
        self._add(self._bits, x, labels, validation)
        return self

    def extend(
        self, bits: int, x: Any, labels: Any, *, validation: tuple[Any, Any] | None = None
    ) -> EnsembleDSH:
        """Longer codes, of `bits` in all: trains sub-models for the new bits only. The codes there
        were stay what they were, as the first bits of the new ones."""
        before = self.bits
        if check_bits(bits) <= before:
            raise ValueError(f"got bits = {bits}, expected more than the {before} there are")
        self._add(bits - before, x, labels, validation)
        self._bits = bits
        return self

    def update(
        self, x: Any, labels: Any, *, validation: tuple[Any, Any] | None = None
    ) -> EnsembleDSH:
        """Learn from new data: one sub-model, each in its turn, is trained on it from where it is;
        the others keep what they know. Codes of that sub-model change: `fingerprints` tell."""
        number = self._updates % len(self._fitted())
        items = self.items(x)
        checked = check_labels(labels, len(items))
        job = self._job(
            number, np.arange(len(items)), self._seed(number) + 7919 * (self._updates + 1)
        )
        inputs, held_out = self.inputs(items), self._held_out(validation)
        self.parts[number].head = _train(job, inputs, checked, held_out)
        self._updates += 1
        return self

    def _add(self, bits: int, x: Any, labels: Any, validation: tuple[Any, Any] | None) -> None:
        items = self.items(x) if self.parts else self._first_items(x)
        checked = check_labels(labels, len(items))
        inputs = self.inputs(items, progress=self.training.progress)
        held_out = self._held_out(validation)
        first = len(self.parts)
        lengths = [self._sub_bits] * (bits // self._sub_bits)
        lengths += [bits % self._sub_bits] if bits % self._sub_bits else []
        groups = complementary_groups(len(items), first + len(lengths), self.training.seed)
        new = []
        for number, length in enumerate(lengths, first):
            torch.manual_seed(self._seed(number))
            halved = self._vary and number % 2 == 1
            _, head = self.architecture.build(length, halved=halved)
            new.append(Part(head, halved, (length,)))
        jobs = [
            (part.head, self.objective, part.cuts, self._training(number), groups[number])
            for number, part in enumerate(new, first)
        ]
        if self.workers == 1 or len(jobs) == 1:
            heads = [_train(job, inputs, checked, held_out) for job in jobs]
        else:
            # What processes are given is copied to them.
            every = _materialised(inputs), checked, _materialised_examples(held_out)
            if self.workers == "ray":
                from faiss_dmih.distributed.encoding import run_each

                heads = run_each(_train_apart, jobs, every)
            else:
                with ProcessPoolExecutor(self.workers, mp_context=get_context("spawn")) as pool:
                    heads = list(pool.map(_train_apart, [(job, *every) for job in jobs]))
        for part, head in zip(new, heads, strict=True):
            part.head = head
        self.parts = [*self.parts, *new]

    def _first_items(self, x: Any) -> Any:
        from faiss_dmih.encoders.items import Items

        preprocessing = self.trunk.preprocessing
        return Items(x, None if preprocessing is None else preprocessing.size)

    def _held_out(self, validation: tuple[Any, Any] | None) -> Any:
        if validation is None:
            return None
        items = self._first_items(validation[0])
        return self.inputs(items), check_labels(validation[1], len(items))

    def _seed(self, number: int) -> int:
        return self.training.seed + number

    def _training(self, number: int, seed: int | None = None) -> Training:
        named = self.training.named(f"sub-model-{number}")
        return replace(named, seed=self._seed(number) if seed is None else seed)

    def _job(self, number: int, chosen: NDArray[np.int64], seed: int) -> Any:
        part = self.parts[number]
        training = replace(self._training(number, seed), folder=None)
        # A copy: a training that fails leaves what there was.
        return deepcopy(part.head), self.objective, part.cuts, training, chosen

    def _arguments(self) -> dict[str, Any]:
        return {
            "bits": self._bits,
            "sub_bits": self._sub_bits,
            "vary": self._vary,
            "objective": asdict(self.objective),
        }


def complementary_groups(n: int, m: int, seed: int) -> list[NDArray[np.int64]]:
    """m groups of item numbers: a random half of n, the other half, a new random half, ...

    The first groups are the same for any m: sub-models can be added.

    >>> first, second = complementary_groups(4, 2, seed=0)
    >>> sorted([*first, *second])
    [np.int64(0), np.int64(1), np.int64(2), np.int64(3)]
    """
    groups: list[NDArray[np.int64]] = []
    for pair in range(-(-m // 2)):
        shuffled = np.random.default_rng([seed, pair]).permutation(n)
        groups += [np.sort(shuffled[: -(-n // 2)]), np.sort(shuffled[-(-n // 2) :])]
    # Half of one item is none: then everybody trains on it.
    return [group if len(group) else np.arange(n) for group in groups[:m]]


def _train(job: Any, inputs: Inputs, labels: NDArray[Any], held_out: Any) -> Head:
    head, objective, cuts, training, chosen = job
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums depend on how they are split among threads
    try:
        validation = None if held_out is None else Examples(*held_out)
        examples = Examples(inputs, labels, chosen)
        train_head(head, objective, cuts, training, examples, validation)
    finally:
        torch.set_num_threads(threads)
    return head  # type: ignore[no-any-return]


def _train_apart(work: Any) -> Head:
    job, inputs, labels, held_out = work
    return _train(job, _inputs(inputs), labels, held_out and (_inputs(held_out[0]), held_out[1]))


def _materialised(inputs: Inputs) -> torch.Tensor:
    return inputs.batch(range(inputs.n)).cpu()


def _materialised_examples(held_out: Any) -> Any:
    return None if held_out is None else (_materialised(held_out[0]), held_out[1])


def _inputs(features: torch.Tensor) -> Inputs:
    def batch(at: Sequence[int] | NDArray[np.int64]) -> torch.Tensor:
        return features[torch.as_tensor(np.asarray(at, np.int64))]

    return Inputs(len(features), batch)

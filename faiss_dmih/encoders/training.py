"""Training one head, by Lightning."""

from __future__ import annotations

import logging
import math
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from faiss_dmih.encoders._torchvision import import_torchvision
from faiss_dmih.encoders.buckets import BucketSampler, Snapshot, take_snapshot
from faiss_dmih.encoders.encoder import Inputs
from faiss_dmih.encoders.nets import Head
from faiss_dmih.encoders.objective import Objective

import_torchvision()  # Lightning imports it by itself
import lightning  # noqa: E402
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar  # noqa: E402
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger  # noqa: E402


@dataclass(frozen=True)
class Training:
    """How a head is trained.

    Args:
        epochs: passes over the training set, at most.
        batch_size: items of a batch.
        learning_rate, weight_decay: of AdamW; the rate falls to nothing along a cosine.
        seed: of initialisation, order, dropout, subgroups: the same seed gives the same codes.
        patience: epochs without a better loss on the validation items after which training stops,
            and the best epoch is taken; None: no early stopping.
        precision, accelerator, devices: as Lightning's Trainer takes them.
        folder: for checkpoints and logs. Training that was stopped goes on from the last epoch.
        log: "csv", "tensorboard", or None.
        progress: whether to show a bar.
    """

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    seed: int = 0
    patience: int | None = None
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: int | str = 1
    folder: Path | None = None
    log: str | None = "csv"
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
        if self.log not in ("csv", "tensorboard", None):
            raise ValueError(f"log: got {self.log!r}, expected 'csv', 'tensorboard' or None")

    def named(self, name: str) -> Training:
        """The same with a folder of its own, for one of several heads."""
        return self if self.folder is None else replace(self, folder=self.folder / name)


class Examples:
    """Inputs of a head and their labels; a batch at a time, as torch's DataLoader asks for them.

    `chosen`: the numbers of the items to train on, where not all are; they count from 0 here.
    """

    def __init__(
        self, inputs: Inputs, labels: NDArray[Any], chosen: NDArray[np.int64] | None = None
    ) -> None:
        self._inputs = inputs
        self._chosen = np.arange(inputs.n) if chosen is None else chosen
        self._labels = torch.from_numpy(labels[self._chosen])

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        at = np.asarray(indices, np.int64)
        return self._inputs.batch(self._chosen[at]), self._labels[at], torch.from_numpy(at)


class _Batches:
    """A batch sampler that looks at the net's codes when an epoch begins."""

    def __init__(self, task: _Task, sampler: BucketSampler) -> None:
        self._task, self._sampler = task, sampler

    def __len__(self) -> int:
        return -(-len(self._sampler) // int(self._task.trainer.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        trainer = self._task.trainer
        batches = list(self._sampler.epoch(trainer.current_epoch, self._task.refreshed()))
        # Of several devices each takes every so-manieth batch, all of them equally many.
        for at in range(len(self)):
            mine = at * trainer.world_size + trainer.global_rank
            yield batches[mine % len(batches)].tolist()


class _Task(lightning.LightningModule):  # type: ignore[misc]
    def __init__(
        self,
        head: Head,
        objective: Objective,
        cuts: tuple[int, ...],
        training: Training,
        examples: Examples,
    ) -> None:
        super().__init__()
        self.head, self.objective, self.cuts = head, objective, cuts
        self.training_, self.examples = training, examples
        self.snapshot: Snapshot | None = None

    def train_dataloader(self) -> Any:
        share = self.objective.bucket_share if self.objective.instance_weight > 0 else 0.0
        batch_size = min(self.training_.batch_size, len(self.examples))
        sampler = BucketSampler(len(self.examples), batch_size, share, self.training_.seed)
        return DataLoader(
            self.examples, batch_sampler=_Batches(self, sampler), collate_fn=lambda batch: batch
        )

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(
            self.head.parameters(),
            lr=self.training_.learning_rate,
            weight_decay=self.training_.weight_decay,
        )

    def on_train_epoch_start(self) -> None:
        # By the epoch alone, wherever training was taken up: Lightning's schedulers step after the
        # checkpoint of an epoch, not before.
        share = (1 + math.cos(math.pi * self.current_epoch / self.training_.epochs)) / 2
        for group in self.optimizers().param_groups:
            group["lr"] = self.training_.learning_rate * share

    def training_step(self, batch: Any, number: int) -> Tensor:
        x, labels, at = batch
        # Dropout, too, depends on the seed and the step alone.
        torch.manual_seed(self.training_.seed * 1_000_003 + self.global_step)
        h = self.head(x)
        terms = self.objective.terms(h, labels, self.cuts, self._of(at))
        for name, value in terms.items():
            if not torch.isfinite(value):
                raise FloatingPointError(
                    f"step {self.global_step}, epoch {self.current_epoch}: the term {name!r} of "
                    f"the loss is {float(value.detach())}; {self._cause(x, h)}"
                )
        if number == 0 and "phi" in terms and terms["phi"].requires_grad:
            (gradient,) = torch.autograd.grad(terms["phi"], h, retain_graph=True)
            self.log("phi_gradient", gradient.norm())
        self.log_dict(terms, on_step=False, on_epoch=True, prog_bar=False)
        return terms["total"]

    def validation_step(self, batch: Any, number: int) -> None:
        x, labels = batch
        terms = self.objective.terms(self.head(x), labels, self.cuts, None)
        self.log("validation", terms["total"], on_epoch=True, prog_bar=True, batch_size=len(x))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.snapshot is not None:
            s = self.snapshot
            checkpoint["snapshot"] = [torch.from_numpy(a) for a in (s.bucket, s.group, s.subgroup)]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "snapshot" in checkpoint:
            self.snapshot = Snapshot(*(a.numpy() for a in checkpoint["snapshot"]))

    def refreshed(self) -> Snapshot | None:
        """The snapshot of this epoch, if phi needs one."""
        if self.objective.instance_weight == 0:
            return None
        h = relaxed(self.head, self.examples, self.training_.batch_size)
        rng = np.random.default_rng([self.training_.seed, self.current_epoch, 1])
        limit = self.objective.bucket_limit
        self.snapshot = take_snapshot(h > 0, self.cuts, limit, rng, self.snapshot)
        if self.logger is not None:
            self.logger.log_metrics(
                {
                    "overfull_buckets": self.snapshot.overfull,
                    "distinct_codes": int(self.snapshot.group.max()) + 1,
                },
                self.global_step,
            )
        return self.snapshot

    def _of(self, at: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        if self.snapshot is None:
            return None
        s, items = self.snapshot, at.cpu().numpy()
        bucket, group, subgroup = (
            torch.from_numpy(a[items]).to(at.device) for a in (s.bucket, s.group, s.subgroup)
        )
        return bucket, group, subgroup

    def _cause(self, x: Tensor, h: Tensor) -> str:
        if not torch.isfinite(x.float()).all():
            return "its input holds values that are not finite: clean the data"
        bad = [n for n, p in self.head.named_parameters() if not torch.isfinite(p).all()]
        if bad:
            return f"weights are not finite any more ({bad[0]}): take a smaller learning rate"
        if not torch.isfinite(h).all():
            return "the net's output is not finite: take a smaller learning rate or full precision"
        return "the codes are finite: the distances overflowed; take a smaller scale"


def relaxed(head: Head, examples: Examples, batch_size: int) -> NDArray[np.float32]:
    """Relaxed codes (n, bits) of a head in use: nothing is dropped."""
    was_training = head.training
    head.eval()
    device = next(head.parameters()).device
    out = np.empty((len(examples), head.bits), np.float32)
    with torch.no_grad():
        for at in range(0, len(examples), batch_size):
            x, _, here = examples.__getitems__(range(at, min(at + batch_size, len(examples))))
            out[here.numpy()] = head(x.to(device)).float().cpu().numpy()
    head.train(was_training)
    return out


def train_head(
    head: Head,
    objective: Objective,
    cuts: tuple[int, ...],
    training: Training,
    examples: Examples,
    validation: Examples | None = None,
) -> None:
    """Train `head` in place, on inputs that the trunk has made.

    Raises:
        FloatingPointError: a loss is not finite; says at which step, and what caused it.
        ValueError: early stopping without validation items.
    """
    if training.patience is not None and validation is None:
        raise ValueError("patience needs validation items: pass validation, never the queries")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    task = _Task(head, objective, cuts, training, examples)
    callbacks: list[Any] = []
    if training.progress:
        callbacks.append(TQDMProgressBar(leave=True))
    if training.folder is not None:
        # The new one is written before the old one goes.
        callbacks.append(ModelCheckpoint(training.folder, filename="{epoch}"))
    best = _Best() if training.patience is not None else None
    if best is not None and training.patience is not None:
        callbacks += [EarlyStopping("validation", patience=training.patience), best]
    trainer = lightning.Trainer(
        max_epochs=training.epochs,
        precision=training.precision,
        accelerator=training.accelerator,
        devices=training.devices,
        callbacks=callbacks,
        logger=_logger(training),
        enable_checkpointing=training.folder is not None,
        enable_progress_bar=training.progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=1,
    )
    loader = None
    if validation is not None:
        every = range(0, len(validation), training.batch_size)
        loader = DataLoader(
            validation,
            batch_sampler=[
                list(range(at, min(at + training.batch_size, len(validation)))) for at in every
            ],
            collate_fn=lambda batch: batch[:2],
        )
    with warnings.catch_warnings():
        # Of its advice on workers: inputs are in memory.
        warnings.filterwarnings("ignore", module="lightning")
        trainer.fit(task, val_dataloaders=loader, ckpt_path=_last_checkpoint(training.folder))
    if trainer.interrupted:
        raise KeyboardInterrupt
    if best is not None and best.state is not None:
        head.load_state_dict(best.state)
    head.cpu().eval()


def _last_checkpoint(folder: Path | None) -> Path | None:
    """The newest that was written to its end."""
    found = [] if folder is None else [p for p in folder.glob("*.ckpt") if zipfile.is_zipfile(p)]
    return max(found, key=lambda path: int(re.sub(r"\D", "", path.stem) or 0), default=None)


class _Best(lightning.Callback):  # type: ignore[misc]
    """Keeps the weights of the epoch with the smallest loss on the validation items."""

    def __init__(self) -> None:
        self.loss = float("inf")
        self.state: dict[str, Tensor] | None = None

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        loss = float(trainer.callback_metrics["validation"])
        if loss < self.loss:
            self.loss = loss
            self.state = {k: v.detach().cpu().clone() for k, v in module.head.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self.loss, "state": self.state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loss, self.state = state_dict["loss"], state_dict["state"]


def _logger(training: Training) -> Any:
    if training.folder is None or training.log is None:
        return False
    if training.log == "csv":
        return CSVLogger(training.folder, name="", version="")
    return TensorBoardLogger(training.folder, name="", version="")

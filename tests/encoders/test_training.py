"""Training is what its arguments say, goes on where it was stopped, and says what went wrong."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import quick, vectors

from faiss_dmih import reference
from faiss_dmih.encoders import DMIH, DeepHash, Objective, load_encoder, training


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "training"


FULL = Objective(feature_weight=0.1, instance_weight=0.1, bucket_limit=5)


def encoder(kind: Any = DMIH, objective: Objective | None = FULL, **changes: Any) -> Any:
    return kind(16, n=240, backbone="features", objective=objective, training=quick(**changes))


def separation(codes: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance of codes of different classes, less that of the same class, in bits."""
    distances = reference.hamming(codes, codes)
    same = labels[:, None] == labels[None, :]
    return float(distances[~same].mean() - distances[same].mean())


@pytest.mark.parametrize("loss", ["triplet", "pairwise"])
@pytest.mark.parametrize("weights", [(0, 0), (0.1, 0), (0, 0.1), (0.1, 0.1)])
def test_classes_are_told_apart(loss: str, weights: tuple[float, float]) -> None:
    x, labels = vectors()
    objective = Objective(loss, feature_weight=weights[0], instance_weight=weights[1])
    trained = encoder(objective=objective, epochs=8).fit(x, labels)
    new, new_labels = vectors(seed=1)
    assert separation(trained.encode(new), new_labels) > 3


def test_half_the_precision_tells_classes_apart_too() -> None:
    x, labels = vectors()
    trained = encoder(precision="bf16-mixed", epochs=8).fit(x, labels)
    whole = encoder(epochs=8).fit(x, labels)
    new, new_labels = vectors(seed=1)
    assert separation(trained.encode(new), new_labels) > 3
    assert not np.array_equal(trained.relaxed(new), whole.relaxed(new))


SEVERAL = """
import os, sys
sys.path.insert(0, sys.argv[1])
from small import quick, vectors
from faiss_dmih.encoders import DMIH

if __name__ == "__main__":
    x, labels = vectors()
    training = quick(accelerator="cpu", devices=2, epochs=4)
    trained = DMIH(16, n=240, backbone="features", training=training).fit(x, labels)
    rank = os.environ.get("LOCAL_RANK", "0")
    with open(f"{sys.argv[2]}/rank-{rank}", "w") as file:
        file.write(trained.fingerprints[0][1])
    trained.save(f"{sys.argv[2]}/encoder-{rank}")
"""


def test_several_devices_train_one_encoder(tmp_path: Path) -> None:
    """Two processes, each with half of the batches: in the end both hold the same weights."""
    script = tmp_path / "several.py"
    script.write_text(SEVERAL)
    here = str(Path(__file__).parent)
    command = [sys.executable, str(script), here, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    first, second = (path.read_text() for path in sorted(tmp_path.glob("rank-*")))
    assert first == second
    new, new_labels = vectors(seed=1)
    together = load_encoder(tmp_path / "encoder-0")
    assert separation(together.encode(new), new_labels) > 3


def test_the_same_seed_gives_the_same_codes() -> None:
    x, labels = vectors()
    first, second, other = (encoder(seed=seed).fit(x, labels).relaxed(x) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_a_killed_training_goes_on_to_the_same_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any epoch, with the state of the subgroups, the optimiser and the schedule."""
    x, labels = vectors()
    whole = encoder(epochs=5).fit(x, labels).relaxed(x)
    step = training._Task.training_step

    def killed(self: Any, batch: Any, number: int) -> Any:
        if self.current_epoch == 3 and number == 2:
            raise SystemExit("killed")
        return step(self, batch, number)

    monkeypatch.setattr(training._Task, "training_step", killed)
    with pytest.raises(SystemExit):
        encoder(epochs=5, folder=folder).fit(x, labels)
    monkeypatch.setattr(training._Task, "training_step", step)
    began = []
    monkeypatch.setattr(
        training._Task,
        "training_step",
        lambda self, batch, number: began.append(self.current_epoch) or step(self, batch, number),
    )
    resumed = encoder(epochs=5, folder=folder).fit(x, labels).relaxed(x)
    assert min(began) == 3
    np.testing.assert_array_equal(resumed, whole)


def test_a_finished_training_is_not_done_again(folder: Path) -> None:
    x, labels = vectors()
    first = encoder(folder=folder).fit(x, labels).relaxed(x)
    again = encoder(folder=folder).fit(x, labels).relaxed(x)
    np.testing.assert_array_equal(first, again)


def test_early_stopping_takes_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of the training items are noise: what is learnt soon does not help the others."""
    x, labels = vectors()
    noise = np.random.default_rng(0).permutation(labels)
    seen = list[tuple[float, torch.Tensor]]()
    look = training._Best.on_validation_end

    def spy(self: Any, trainer: Any, module: Any) -> None:
        look(self, trainer, module)
        loss = float(trainer.callback_metrics["validation"])
        seen.append((loss, module.head.hash.weight.detach().clone()))

    monkeypatch.setattr(training._Best, "on_validation_end", spy)
    trained = encoder(DeepHash, None, epochs=40, patience=2, learning_rate=0.03)
    trained.fit(x, noise, validation=vectors(80, seed=3))
    losses = [loss for loss, _ in seen]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 40
    assert torch.equal(trained.parts[0].head.hash.weight, seen[best][1])
    with pytest.raises(ValueError, match="patience needs validation items"):
        encoder(patience=2).fit(x, labels)


def test_the_log_holds_every_epoch(folder: Path) -> None:
    x, labels = vectors()
    encoder(folder=folder).fit(x, labels)
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("triplet", "psi", "phi", "total", "overfull_buckets", "distinct_codes"):
        assert sum(row.get(name, "") != "" for row in rows) == 3, name
    assert any(float(row["phi_gradient"]) > 0 for row in rows if row.get("phi_gradient"))


def test_a_loss_that_is_not_finite_stops_with_the_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, labels = vectors()
    x[17, 3] = np.nan
    with pytest.raises(FloatingPointError, match=r"step \d+, epoch 0: the term 'triplet'.*clean"):
        encoder().fit(x, labels)
    x, labels = vectors()
    with pytest.raises(FloatingPointError, match=r"the codes are finite.*take a smaller scale"):
        encoder(DeepHash, Objective(scale=1e38)).fit(x, labels)
    step = training._Task.training_step

    def spoilt(self: Any, batch: Any, number: int) -> Any:
        if self.global_step == 3:
            self.head.hash.weight.data[0, 0] = np.inf
        return step(self, batch, number)

    monkeypatch.setattr(training._Task, "training_step", spoilt)
    with pytest.raises(FloatingPointError, match=r"step 3.*weights are not.*\(hash\.weight\)"):
        encoder().fit(x, labels)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (None, ValueError, "labels are missing"),
        (np.zeros(239, np.int64), ValueError, r"got shape \(239,\).*there are 240 items"),
        (np.zeros(240), TypeError, "got dtype float64, expected integers"),
        (np.full((240, 3), 2), TypeError, "expected bool"),
    ],
)
def test_labels_are_checked(labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        encoder().fit(vectors()[0], labels)


def test_hard_cases() -> None:
    """Fewer items than a batch, a class of one, one class, several labels, unbalanced classes."""
    x, labels = vectors(12)
    for given in (
        labels,
        np.arange(12),
        np.zeros(12, np.int64),
        np.eye(4, dtype=np.bool_)[labels] | np.eye(4, dtype=np.bool_)[(labels + 1) % 4],
        np.minimum(labels, 1) * (np.arange(12) == 3),
    ):
        assert encoder(batch_size=64).fit(x, given).encode(x).shape == (12, 2)


def test_importing_the_package_takes_no_torch() -> None:
    code = "import sys, faiss_dmih; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"

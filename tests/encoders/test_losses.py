"""Each loss against the paper's formula in plain loops, its gradient against differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from faiss_dmih.encoders import Objective
from faiss_dmih.encoders.losses import (
    adjacency_loss,
    codes_loss,
    feature_level_loss,
    instance_level_loss,
    orthogonal_loss,
    pairwise_loss,
    quantisation_loss,
    targets,
    triplet_loss,
)


def d(h: Tensor, g: Tensor, scale: float = 0.25) -> float:
    return scale * sum((float(a) - float(b)) ** 2 for a, b in zip(h, g, strict=True))


def parts(h: Tensor, cuts: tuple[int, ...]) -> list[Tensor]:
    out, first = [], 0
    for length in cuts:
        out.append(h[first : first + length])
        first += length
    return out


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def triplets(h: Tensor, similar: Tensor, margin: float, scale: float) -> float:
    n = range(len(h))
    return mean(
        [
            max(0.0, margin + d(h[a], h[p], scale) - d(h[a], h[q], scale))
            for a in n
            for p in n
            for q in n
            if a != p and a != q and similar[a, p] and not similar[a, q]
        ]
    )


def pair_wise(h: Tensor, similar: Tensor, margin: float, scale: float) -> float:
    values = []
    for i in range(len(h)):
        for j in range(i + 1, len(h)):
            distance = d(h[i], h[j], scale)
            values.append(distance if similar[i, j] else max(0.0, margin - distance))
    return mean(values)


def psi(h: Tensor, cuts: tuple[int, ...], scale: float) -> float:
    values = []
    for i in range(len(h)):
        for j in range(i + 1, len(h)):
            even = math.floor(d(h[i], h[j], scale) / len(cuts))
            total = 0.0
            for a, b in zip(parts(h[i], cuts), parts(h[j], cuts), strict=True):
                distance = d(a, b, scale)
                total += max(0.0, even - distance) + max(0.0, distance - (even + 1))
            values.append(total)
    return mean(values)


def phi(
    h: Tensor,
    cuts: tuple[int, ...],
    bucket: Tensor,
    group: Tensor,
    subgroup: Tensor,
    scale: float,
) -> float:
    values = []
    for table in range(len(cuts)):
        for i in range(len(h)):
            for j in range(i + 1, len(h)):
                if bucket[i, table] < 0 or bucket[i, table] != bucket[j, table]:
                    continue
                distance = d(parts(h[i], cuts)[table], parts(h[j], cuts)[table], scale)
                if group[i] != group[j]:
                    values.append(max(0.0, 2 - distance))
                elif subgroup[i] != subgroup[j]:
                    values.append(max(0.0, 1 - distance))
                else:
                    values.append(distance)
    return mean(values)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, tuple[int, ...], float, float]:
    """Relaxed codes, who is similar, cuts, margin, scale."""
    cuts = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    n = draw(st.integers(0, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    h = torch.tanh(2 * torch.randn(n, sum(cuts), generator=generator, dtype=torch.float64))
    if n and draw(st.booleans()):  # corners, many of them equal
        h = torch.sign(h)[torch.randint(0, max(1, n // 2), (n,), generator=generator)]
    labels = torch.randint(0, 3, (n,), generator=generator)
    margin = draw(st.sampled_from([0.0, 0.7, sum(cuts) / 2]))
    return h, labels[:, None] == labels[None, :], cuts, margin, draw(st.sampled_from([0.25, 1.0]))


@given(batch=batches())
def test_triplet(batch: tuple[Tensor, Tensor, tuple[int, ...], float, float]) -> None:
    h, similar, _, margin, scale = batch
    got = triplet_loss(h, similar, margin, scale=scale)
    assert float(got) == pytest.approx(triplets(h, similar, margin, scale), abs=1e-9)


@given(batch=batches())
def test_pairwise(batch: tuple[Tensor, Tensor, tuple[int, ...], float, float]) -> None:
    h, similar, _, margin, scale = batch
    got = pairwise_loss(h, similar, margin, scale=scale)
    assert float(got) == pytest.approx(pair_wise(h, similar, margin, scale), abs=1e-9)


@given(batch=batches())
def test_adjacency(batch: tuple[Tensor, Tensor, tuple[int, ...], float, float]) -> None:
    h, similar, _, _, scale = batch
    n = len(h)
    values = [d(h[i], h[j], scale) for i in range(n) for j in range(i) if similar[i, j]]
    assert float(adjacency_loss(h, similar, scale=scale)) == pytest.approx(mean(values), abs=1e-9)
    # The same, as a trace: half the sum over all pairs of s_ij ||h_i - h_j||^2.
    s = similar.double() - torch.eye(n, dtype=torch.float64)
    laplacian = torch.diag(s.sum(1)) - s
    trace = float((h.T @ laplacian @ h).trace()) * scale
    assert sum(values) == pytest.approx(trace, abs=1e-9)


@given(batch=batches())
def test_quantisation(batch: tuple[Tensor, Tensor, tuple[int, ...], float, float]) -> None:
    h = 3 * batch[0]
    expected = mean([sum(abs(abs(float(v)) - 1) for v in row) for row in h])
    assert float(quantisation_loss(h)) == pytest.approx(expected, abs=1e-9)


@given(batch=batches(), seed=st.integers(0, 1000))
def test_codes(batch: tuple[Tensor, Tensor, tuple[int, ...], float, float], seed: int) -> None:
    h = 0.99 * batch[0]
    wanted = torch.rand(h.shape, generator=torch.Generator().manual_seed(seed)) > 0.5
    values = [
        -math.log((1 + float(v)) / 2 if bit else (1 - float(v)) / 2)
        for row, bits in zip(h, wanted, strict=True)
        for v, bit in zip(row, bits, strict=True)
    ]
    assert float(codes_loss(h, wanted)) == pytest.approx(mean(values), rel=1e-5, abs=1e-6)


@given(batch=batches(), seed=st.integers(0, 1000), margin=st.sampled_from([0.0, 0.2]))
def test_orthogonal(
    batch: tuple[Tensor, Tensor, tuple[int, ...], float, float], seed: int, margin: float
) -> None:
    h, scale = batch[0], 8.0
    belongs = torch.rand((len(h), 4), generator=torch.Generator().manual_seed(seed)) > 0.6
    codes = targets(4, h.shape[1])
    values = []
    for row, mine in zip(h, belongs, strict=True):
        if not mine.any():
            continue
        norm = math.sqrt(sum(float(v) ** 2 for v in row)) * math.sqrt(len(row))
        cosines = [
            sum(float(a) * float(b) for a, b in zip(row, code, strict=True)) / norm
            for code in codes
        ]
        powers = [
            math.exp(scale * (cosine - margin * bool(is_of)))
            for cosine, is_of in zip(cosines, mine, strict=True)
        ]
        logs = [math.log(power / sum(powers)) for power in powers]
        values.append(-mean([log for log, is_of in zip(logs, mine, strict=True) if is_of]))
    got = orthogonal_loss(h, belongs, margin=margin, scale=scale)
    assert float(got) == pytest.approx(mean(values), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("classes", "bits"), [(10, 64), (64, 64), (1, 8), (10, 8), (5, 96)])
def test_targets(classes: int, bits: int) -> None:
    found = targets(classes, bits)
    assert found.shape == (classes, bits)
    assert set(found.flatten().tolist()) <= {-1.0, 1.0}
    if classes <= bits == 64:
        assert torch.equal(found @ found.T, bits * torch.eye(classes))
    assert len({tuple(row.tolist()) for row in found}) == classes


@given(batch=batches())
def test_feature_level(batch: tuple[Tensor, Tensor, tuple[int, ...], float, float]) -> None:
    h, _, cuts, _, scale = batch
    got = feature_level_loss(h, cuts, scale=scale)
    assert float(got) == pytest.approx(psi(h, cuts, scale), abs=1e-9)


def crowds(n: int, m: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    bucket = torch.randint(-1, 3, (n, m), generator=generator)
    return (
        bucket,
        torch.randint(0, 3, (n,), generator=generator),
        torch.randint(0, 2, (n,), generator=generator),
    )


@given(batch=batches(), seed=st.integers(0, 1000))
def test_instance_level(
    batch: tuple[Tensor, Tensor, tuple[int, ...], float, float], seed: int
) -> None:
    h, _, cuts, _, scale = batch
    crowd = crowds(len(h), len(cuts), seed)
    got = instance_level_loss(h, cuts, *crowd, scale=scale)
    assert float(got) == pytest.approx(phi(h, cuts, *crowd, scale), abs=1e-9)


LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 2])
SIMILAR = LABELS[:, None] == LABELS[None, :]
CUTS = (3, 2, 4)
LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "triplet": lambda h: triplet_loss(h, SIMILAR, 1.3),
    "pairwise": lambda h: pairwise_loss(h, SIMILAR, 2.1),
    "adjacency": lambda h: adjacency_loss(h, SIMILAR),
    "quantisation": lambda h: quantisation_loss(h),
    "codes": lambda h: codes_loss(h, SIMILAR[:, :1].expand(7, 9)),
    "orthogonal": lambda h: orthogonal_loss(h, SIMILAR[:, :3]),
    "psi": lambda h: feature_level_loss(h, CUTS),
    "phi": lambda h: instance_level_loss(h, CUTS, *crowds(7, 3, 1)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name: str) -> None:
    generator = torch.Generator().manual_seed(4)
    h = torch.tanh(torch.randn(7, 9, generator=generator, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(LOSSES[name], (h,))
    assert float(LOSSES[name](h).detach()) > 0


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_compare_is_no_loss(n: int) -> None:
    """And its gradient is zero, not missing."""
    similar = torch.ones(n, n, dtype=torch.bool)
    for loss in (
        lambda h: triplet_loss(h, similar, 1.0),
        lambda h: pairwise_loss(h, similar, 1.0),
        lambda h: adjacency_loss(h, similar),
        lambda h: codes_loss(h.new_ones(h.shape) + 0 * h, torch.ones_like(h).bool()),
        lambda h: feature_level_loss(h, CUTS),
        lambda h: instance_level_loss(h, CUTS, *crowds(n, 3, 0)),
    ):
        h = torch.zeros(n, 9, requires_grad=True)
        value = loss(h)
        value.backward()
        assert float(value.detach()) == 0
        assert h.grad is not None
        assert not h.grad.any()


def test_phi_does_not_part_what_is_identical() -> None:
    """The gradient of ||h - g||^2 vanishes at h = g, whatever phi wants."""
    h = torch.full((4, 9), 0.5, requires_grad=True)
    together = torch.zeros(4, 3, dtype=torch.long)
    loss = instance_level_loss(h, CUTS, together, torch.zeros(4), torch.arange(4))
    loss.backward()
    assert float(loss.detach()) == 1
    assert h.grad is not None
    assert float(h.grad.abs().max()) < 1e-6


def test_the_margin_is_an_eighth_of_the_bits() -> None:
    h = torch.tanh(torch.randn(12, 16, generator=torch.Generator().manual_seed(0)))
    labels = torch.arange(12) % 3
    similar = labels[:, None] == labels[None, :]
    terms = Objective().terms(h, labels, (16,), None)
    assert float(terms["triplet"]) == float(triplet_loss(h, similar, 2.0))
    assert float(terms["triplet"]) != float(triplet_loss(h, similar, 8.0))

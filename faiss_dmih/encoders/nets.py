"""What an encoder is made of: one frozen trunk, and heads that turn its features into bits."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from faiss_dmih.encoders.backbones import Backbone, Preprocessing
from faiss_dmih.encoders.devices import is_unchanged, state_of


class Net(nn.Module):  # type: ignore[misc]
    """Weights that stay where they are, and a copy of them where they are needed."""

    def on(self, device: torch.device) -> Any:
        """This net on the device: itself on a processor, elsewhere a copy, which is kept and made
        anew when weights have changed.

        A copy, because who moves the net itself takes it away from whoever searches beside, and
        from files and other processes, which want it in main memory.
        """
        if device.type == "cpu":
            return self
        kept, now = getattr(self, "_elsewhere", None), state_of(self)
        if kept is None or kept[0] != device or not is_unchanged(kept[1], now):
            kept = device, now, deepcopy(self).to(device)
            self._elsewhere = kept
        return kept[2]

    def __getstate__(self) -> dict[str, Any]:
        """Without the copy, for pickle and deepcopy."""
        return {name: value for name, value in self.__dict__.items() if name != "_elsewhere"}


class Trunk(Net):
    """The frozen part, shared by all heads: from images uint8 (n, height, width, 3) or vectors
    (n, dim) to what the heads take. Without stages it only makes floats of images, and vectors of
    mean 0 and variance 1 in each dimension.
    """

    def __init__(
        self,
        stages: nn.Sequential,
        preprocessing: Preprocessing | None,
        input_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.stages = stages
        if input_dim is not None:
            self.register_buffer("mean", torch.zeros(input_dim))
            self.register_buffer("deviation", torch.ones(input_dim))
        self.requires_grad_(False)
        super().train(False)  # `eval` would ask the method below

    def train(self, mode: bool = True) -> Trunk:
        """Nothing: batch norms do not learn here, and nothing is dropped."""
        return self

    def on(self, device: torch.device) -> Any:
        """As `Net.on`; what is made of images first is no weight, and may have been changed."""
        net = super().on(device)
        net.preprocessing = self.preprocessing
        return net

    def standardise(self, batches: Iterable[Tensor]) -> None:
        """Learns mean and standard deviation of vectors; a constant dimension is only shifted."""
        n, total, squares = 0, torch.zeros((), dtype=torch.float64), 0.0
        for batch in batches:
            x = batch.double()
            n, total, squares = n + len(x), total + x.sum(0), squares + (x * x).sum(0)
        mean = total / n
        variance = (squares / n - mean * mean).clamp(min=0)
        # Less than rounding makes of a constant is no spread.
        flat = variance <= 1e-12 * mean * mean
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(flat, 1.0, variance.sqrt()))

    def forward(self, x: Tensor) -> Tensor:
        """Features of any shape, one row per item."""
        with torch.no_grad():
            if self.preprocessing is not None:
                x = self.preprocessing(x)
            else:
                x = (x.float() - self.mean) / self.deviation
            features: Tensor = self.stages(x)
        return features


class Divided(nn.Module):  # type: ignore[misc]
    """A hash layer in which each bit has features of its own: the divide-and-encode module of Lai
    et al. 2015. A linear layer of bits * SLICE rectified units is cut into slices, one per bit, and
    each slice is mapped to one number.
    """

    SLICE = 50

    def __init__(self, width: int, bits: int) -> None:
        super().__init__()
        self.out_features = bits
        self.features = nn.Linear(width, bits * self.SLICE)
        bound = self.SLICE**-0.5  # as nn.Linear's
        self.weight = nn.Parameter(torch.empty(bits, self.SLICE).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(bits).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """(n, bits)."""
        slices = torch.relu(self.features(x)).view(len(x), self.out_features, self.SLICE)
        return (slices * self.weight).sum(2) + self.bias


EPSILON = 0.25
"""Of `thresholded`. Lai et al. call it small and give no value."""


def thresholded(z: Tensor) -> Tensor:
    """2 g(sigmoid(z)) - 1, with the piece-wise threshold of Lai et al. 2015: g(s) is 0 below
    0.5 - EPSILON, 1 above 0.5 + EPSILON, and s between.

    >>> thresholded(torch.tensor([-9.0, 0.0, 0.1, 9.0]))
    tensor([-1.0000,  0.0000,  0.0500,  1.0000])
    """
    h = 2 * torch.sigmoid(z) - 1
    return torch.where(h.abs() > 2 * EPSILON, h.sign(), h)


HEADS = {"tanh": torch.tanh, "linear": lambda z: z, "weighted": torch.tanh, "divided": thresholded}
"""What becomes of a hash layer's numbers, by the kind of the head."""


class Head(Net):
    """The part that is trained: the other stages of a backbone, a hash layer, an activation.

    `kind` is "tanh", a linear layer and tanh; "linear", without activation; "weighted", tanh times
    a learnt weight for each bit; or "divided", `Divided` and `thresholded`.
    """

    def __init__(self, stages: nn.Sequential, width: int, bits: int, kind: str = "tanh") -> None:
        super().__init__()
        if kind not in HEADS:
            raise ValueError(f"unknown head {kind!r}: expected one of {', '.join(HEADS)}")
        self.stages = stages
        self.hash = Divided(width, bits) if kind == "divided" else nn.Linear(width, bits)
        self.kind = kind
        if kind == "weighted":
            self.weights = nn.Parameter(torch.ones(bits))

    @property
    def bits(self) -> int:
        """Length of its codes."""
        return int(self.hash.out_features)

    def forward(self, features: Tensor) -> Tensor:
        """Relaxed codes (n, bits), in [-1, 1] but for the kinds "linear" and "weighted"."""
        codes: Tensor = HEADS[self.kind](self.hash(self.stages(features)))
        return codes * self.weights if self.kind == "weighted" else codes


def trunk_and_head(
    backbone: Backbone, bits: int, freeze: str | None, kind: str = "tanh"
) -> tuple[Trunk, Head]:
    """A backbone cut after the stage `freeze`, with a hash layer of that kind."""
    first, second = backbone.cut(freeze)
    trunk = Trunk(first, backbone.preprocessing, backbone.input_dim)
    return trunk, Head(second, backbone.width, bits, kind)

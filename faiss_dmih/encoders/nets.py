"""What an encoder is made of: one frozen trunk, and heads that turn its features into bits."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from faiss_dmih.encoders.backbones import Backbone, Preprocessing


class Trunk(nn.Module):  # type: ignore[misc]
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
        self.eval()

    def train(self, mode: bool = True) -> Trunk:
        """Nothing: batch norms do not learn here, and nothing is dropped."""
        return self

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


class Head(nn.Module):  # type: ignore[misc]
    """The part that is trained: the other stages of a backbone, a linear layer, tanh."""

    def __init__(self, stages: nn.Sequential, width: int, bits: int) -> None:
        super().__init__()
        self.stages = stages
        self.hash = nn.Linear(width, bits)

    @property
    def bits(self) -> int:
        """Length of its codes."""
        return int(self.hash.out_features)

    def forward(self, features: Tensor) -> Tensor:
        """Relaxed codes (n, bits) in [-1, 1]."""
        codes: Tensor = torch.tanh(self.hash(self.stages(features)))
        return codes


def trunk_and_head(backbone: Backbone, bits: int, freeze: str | None) -> tuple[Trunk, Head]:
    """A backbone cut after the stage `freeze`, with a hash layer."""
    first, second = backbone.cut(freeze)
    trunk = Trunk(first, backbone.preprocessing, backbone.input_dim)
    return trunk, Head(second, backbone.width, bits)

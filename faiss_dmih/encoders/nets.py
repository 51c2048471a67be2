"""What an encoder is made of: one frozen trunk, and heads that turn its features into bits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from faiss_dmih.encoders.backbones import Backbone, Preprocessing


class Trunk(nn.Module):  # type: ignore[misc]
    """The frozen part, shared by all heads: from images uint8 (n, height, width, 3) or vectors
    (n, dim) to what the heads take. Without stages it only makes floats of them.
    """

    def __init__(self, stages: nn.Sequential, preprocessing: Preprocessing | None) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.stages = stages
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Trunk:
        """Nothing: batch norms do not learn here, and nothing is dropped."""
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Features of any shape, one row per item."""
        with torch.no_grad():
            x = self.preprocessing(x) if self.preprocessing is not None else x.float()
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
    return Trunk(first, backbone.preprocessing), Head(second, backbone.width, bits)

"""Where nets run, and whether their weights have changed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

State = list[tuple[Tensor, int]]


def device_of(accelerator: str) -> torch.device:
    """The device for what was trained with Lightning's `accelerator`: a GPU if it names one, or
    leaves it open, and there is one; otherwise the processor, so that an encoder is of use wherever
    it is taken.

    >>> device_of("cpu")
    device(type='cpu')
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        # Of several the one that this process has chosen, by its number: it may choose again.
        return torch.device("cuda", torch.cuda.current_device())
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def state_of(net: nn.Module) -> State:
    """Its weights and buffers, by their names, and how often torch has seen each changed."""
    state = sorted(net.state_dict(keep_vars=True).items())
    return [(value, value._version) for _, value in state]


def is_unchanged(before: State, now: State) -> bool:
    """Whether these are the same tensors, and nothing was written into them."""
    return len(before) == len(now) and all(
        a is b and v == w for (a, v), (b, w) in zip(before, now, strict=True)
    )

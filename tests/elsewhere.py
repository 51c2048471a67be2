"""A device that is not the processor's memory, on machines that have no other.

Tensors that are moved to `THERE` say that they are there, and refuse to be computed with others
that are not, as those on a GPU would; the values are the processor's own. Within `Elsewhere`, that
is: torch's dispatcher hands it every operation.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

THERE = torch.device("xla", 0)
"""Of a kind that torch knows by its name and that nobody has."""
_LAYERS = ("aten.addmm", "aten.mm", "aten.convolution")


class Distant(torch.Tensor):
    """A tensor on `THERE`."""

    value: torch.Tensor

    @staticmethod
    def __new__(cls, value: torch.Tensor) -> Distant:
        made: Distant = torch.Tensor._make_wrapper_subclass(
            cls, value.shape, strides=value.stride(), dtype=value.dtype, device=THERE
        )
        made.value = value
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of Elsewhere")


class Elsewhere(TorchDispatchMode):
    """Counts the layers of nets that are computed `here` and `there`, and tensors that are
    `sent`."""

    def __init__(self) -> None:
        super().__init__()
        self.here: Counter[str] = Counter()
        self.there: Counter[str] = Counter()
        self.sent: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = str(func).rsplit(".", 1)[0]
        given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        far = [x for x in given if isinstance(x, Distant)]
        target = kwargs.pop("device", None)
        if name == "aten._to_copy":
            is_far = bool(far) if target is None else target.type == THERE.type
            if is_far and not far:
                self.sent.append(tuple(given[0].shape))
        else:
            is_far = bool(far) or (target is not None and target.type == THERE.type)
            # Numbers may come from anywhere, as on a GPU.
            near = [x for x in given if not isinstance(x, Distant) and x.ndim > 0]
            assert not (far and near), f"{func}: of tensors here and there"
        if name in _LAYERS:
            (self.there if is_far else self.here)[name] += 1
        if target is not None and target.type != THERE.type:
            kwargs["device"] = target
        found = func(*tree_map(_near, args), **tree_map(_near, kwargs))
        return tree_map(_far, found) if is_far else found


def _near(x: Any) -> Any:
    return x.value if isinstance(x, Distant) else x


def _far(x: Any) -> Any:
    return Distant(x) if isinstance(x, torch.Tensor) else x

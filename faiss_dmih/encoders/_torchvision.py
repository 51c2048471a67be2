"""Imports torchvision, also beside a build of torch that it was not made for.

torchvision from PyPI is compiled against torch's CUDA builds. Beside a CPU-only torch its compiled
operators cannot be loaded, and the import fails because two of them have no schema; its models and
transforms need neither.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

_SCHEMAS = tuple(
    f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms")
)
_library: list[object] = []  # the schemas live as long as what holds them


@cache
def torchvision() -> ModuleType:
    """The module. To be called before anything that imports it by itself, as Lightning does."""
    import torch

    try:
        import torchvision as module
    except RuntimeError as error:
        if torch.version.cuda is not None or "torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        _library.append(library)
        import torchvision as module
    return module

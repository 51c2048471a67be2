"""torchvision, imported also where it does not fit torch.

PyPI's torchvision is built for CUDA. Beside a torch for CPUs alone its operators (of detection, not
used here) do not load, and then it trips over their missing declarations while it is imported.
Declaring them is all that its models and transforms need.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from faiss_dmih.data.errors import DataUnavailable

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

# The declarations are withdrawn when this object dies.
_declared: Any = None


def import_torchvision() -> ModuleType:
    """The module `torchvision`, whole. Raises `DataUnavailable` where it cannot be imported."""
    global _declared
    try:
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:
            import torch

            missing = "operator torchvision::" in str(error) and "does not exist" in str(error)
            if not missing or torch.version.cuda is not None or _declared is not None:
                raise
            _declared = torch.library.Library("torchvision", "DEF")
            for schema in _SCHEMAS:
                _declared.define(schema)
            return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise DataUnavailable(
            f"torchvision cannot be imported ({error}): pip install 'faiss-dmih[train]', torch and "
            "torchvision of the same build"
        ) from error

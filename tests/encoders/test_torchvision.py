from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from faiss_dmih.data import DataUnavailable
from faiss_dmih.encoders import _torchvision

# In a process of its own, as an import that failed half-way leaves modules behind.
SCRIPT = """
from faiss_dmih.encoders._torchvision import import_torchvision
torchvision = import_torchvision()
assert import_torchvision() is torchvision
import numpy, torch
from torchvision.transforms import v2
image = v2.ToImage()(numpy.zeros((64, 64, 3), numpy.uint8))
assert torchvision.models.squeezenet1_0()(v2.ToDtype(torch.float32)(image)[None]).shape == (1, 1000)
"""


@pytest.mark.skipif(
    find_spec("torch") is None or find_spec("torchvision") is None, reason="needs [train]"
)
def test_models_and_transforms_work():
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(DataUnavailable, match=r"torchvision cannot be imported .*\[train\]"):
        _torchvision.import_torchvision()

"""Commands run in this process, and small data for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from faiss_dmih.cli.app import app

CLASSES = ("blue", "green", "red")
EACH = 12
QUICK = ["--bits", 16, "--epochs", 1, "--batch-size", 16]


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)))


def done(*arguments: Any) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def refused(*arguments: Any) -> str:
    """The one line that is said on standard error."""
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    return str(result.stderr)


def make_photos(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for c, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(EACH):
            pixels = rng.integers(0, 120, (20 + i, 24, 3), dtype=np.uint8)
            pixels[:, :, 2 - c] += 120
            Image.fromarray(pixels).save(folder / name / f"{i:02}.png")
    return folder

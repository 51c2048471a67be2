"""What the commands that use an encoder share. Nothing here imports torch before it is needed."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from faiss_dmih.cli.sources import Source, encoder_input
from faiss_dmih.data import DataUnavailable, InputError

_NEEDED = ("torch", "torchvision", "lightning", "safetensors", "tqdm")


def require_torch() -> None:
    """Raises `DataUnavailable` naming the extra where something of it is missing."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise DataUnavailable(
            f"encoders need {', '.join(missing)}, not installed here: "
            "pip install 'faiss-dmih[train]'"
        )


def open_encoder(folder: Path) -> Any:
    """What `train` has written. Raises `InputError` for anything else."""
    require_torch()
    if not (folder / "encoder.json").is_file():
        raise InputError(
            f"{folder} holds no encoder (there is no encoder.json): `faiss-dmih train` makes one"
        )
    from safetensors import SafetensorError

    from faiss_dmih.encoders import load_encoder

    try:
        return load_encoder(folder)
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{folder} is damaged, train or copy it anew ({error!r})") from error


def encode(encoder: Any, items: Any, who: object, *, progress: bool) -> Any:
    """Codes uint8 (n, bits / 8) of a set."""
    vectors = encoder.trunk.preprocessing is None
    x = encoder_input(items, vectors=vectors, who=f"the encoder {who}")
    return encoder.encode(x, progress=progress)


def labels_of(source: Source, rows: Any) -> list[list[str]]:
    """Names of the classes of each of these items; none where they are not known."""
    return [source.label(int(row)) for row in rows]

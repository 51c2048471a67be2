"""Where the items of a set come from: arrays, packed JPEGs, files; pixels only when asked for.

An image is given out as uint8 (height, width, 3), RGB, C-contiguous: what torchvision's transforms
take. Decoding goes by Pillow, with these choices:

- EXIF orientation is applied, so that a photo stands as it was seen.
- Transparent pixels show white. What a file holds behind them is arbitrary, often black.
- Grey and integer images of 16 bits are brought to 8 by their upper byte. Pixels of 32 bits or
  floats have no known range: an error.
- Of several frames, the first.

Damage that Pillow does not notice (a JPEG's grey blocks) passes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from faiss_dmih.data.errors import InputError, require

Pixels = npt.NDArray[np.uint8]

_SIXTEEN_BITS = 1 << 16


class Source(Protocol):
    """What a set is made of. Picklable, so that a DataLoader's workers can have it."""

    def __len__(self) -> int: ...

    def item(self, i: int) -> npt.NDArray[Any]:
        """Item i as an array of its own; raises anything at all when it is damaged."""
        ...

    def content(self, i: int) -> bytes:
        """Item i as stored: equal for exact copies, cheap, nothing decoded."""
        ...

    def name(self, i: int) -> str:
        """What error messages call item i."""
        ...


@dataclass(frozen=True)
class ImageArray:
    """`pixels` uint8 (n, height, width[, 1 or 3])."""

    pixels: Pixels
    title: str

    def __post_init__(self) -> None:
        x = self.pixels
        fits = x.ndim == 3 or (x.ndim == 4 and x.shape[3] in (1, 3))
        if x.dtype != np.uint8 or not fits:
            raise InputError(
                f"{self.title}: got {x.dtype} {x.shape}, expected uint8 (n, height, width), "
                "(n, height, width, 1) or (n, height, width, 3)"
                + ("; for torch's layout pass x.transpose(0, 2, 3, 1)" if x.ndim == 4 else "")
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def item(self, i: int) -> Pixels:
        image: Pixels = self.pixels[i]
        if image.ndim == 2:
            image = image[:, :, None]
        return np.array(np.broadcast_to(image, (*image.shape[:2], 3)), order="C")

    def content(self, i: int) -> bytes:
        image: Pixels = self.pixels[i]
        return image.tobytes()

    def name(self, i: int) -> str:
        return f"{self.title}[{i}]"


@dataclass(frozen=True)
class PackedJpegs:
    """JPEGs in one array, those parts that many share stored once.

    Image i is `headers[which[i]] + payload[offsets[i] : offsets[i + 1]] + tail`; `payload` uint8,
    `offsets` integer (n + 1,), `which` integer (n,).
    """

    headers: tuple[bytes, ...]
    which: npt.NDArray[np.integer[Any]]
    payload: Pixels
    offsets: npt.NDArray[np.integer[Any]]
    tail: bytes
    title: str

    def __post_init__(self) -> None:
        offsets = self.offsets
        if len(offsets) != len(self.which) + 1 or int(offsets[-1]) > len(self.payload):
            raise InputError(
                f"{self.title}: {len(offsets):,} offsets up to {int(offsets[-1]):,}, expected "
                f"{len(self.which) + 1:,} within the payload of {len(self.payload):,} bytes; "
                "get the file anew"
            )

    def __len__(self) -> int:
        return len(self.which)

    def item(self, i: int) -> Pixels:
        return decode(io.BytesIO(self.content(i)))

    def content(self, i: int) -> bytes:
        body: Pixels = self.payload[int(self.offsets[i]) : int(self.offsets[i + 1])]
        return self.headers[int(self.which[i])] + body.tobytes() + self.tail

    def name(self, i: int) -> str:
        return f"{self.title}[{i}]"


@dataclass(frozen=True)
class ImageFiles:
    """Image files `folder / paths[i]`."""

    folder: Path
    paths: Sequence[str]

    def __len__(self) -> int:
        return len(self.paths)

    def item(self, i: int) -> Pixels:
        return decode(self.folder / self.paths[i])

    def content(self, i: int) -> bytes:
        return (self.folder / self.paths[i]).read_bytes()

    def name(self, i: int) -> str:
        return str(self.folder / self.paths[i])


@dataclass(frozen=True)
class Vectors:
    """`vectors` float32 (n, dim), all finite."""

    vectors: npt.NDArray[np.float32]
    title: str

    def __post_init__(self) -> None:
        x = self.vectors
        if x.dtype != np.float32 or x.ndim != 2:
            raise InputError(
                f"{self.title}: got {x.dtype} {x.shape}, expected float32 (n, dim): one row for "
                "each item"
            )
        bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
        if len(bad):
            raise InputError(
                f"{self.title}: {len(bad):,} of {len(x):,} vectors have values that are not "
                f"finite, the first is vector {bad[0]}; leave these out"
            )

    def __len__(self) -> int:
        return len(self.vectors)

    def item(self, i: int) -> npt.NDArray[np.float32]:
        vector: npt.NDArray[np.float32] = self.vectors[i]
        return vector.copy()

    def content(self, i: int) -> bytes:
        return self.item(i).tobytes()

    def name(self, i: int) -> str:
        return f"{self.title}[{i}]"


def decode(file: Path | io.BytesIO) -> Pixels:
    """The image in `file` as uint8 (height, width, 3). Raises whatever Pillow stumbles over."""
    image_module = require("PIL.Image", "decoding images")
    ops = require("PIL.ImageOps", "decoding images")
    with image_module.open(file) as opened:
        image = ops.exif_transpose(opened)
        if image.mode.startswith(("I", "F")):
            return _upper_byte(np.asarray(image), image.mode)
        if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
            image = image.convert("RGBA")
            white = image_module.new("RGBA", image.size, "white")
            image = image_module.alpha_composite(white, image)
        return np.array(image.convert("RGB"))


def _upper_byte(grey: npt.NDArray[Any], mode: str) -> Pixels:
    """A grey image of 16 bits, in whatever type Pillow has put it, as uint8 (height, width, 3)."""
    if mode == "F" or grey.min() < 0 or grey.max() >= _SIXTEEN_BITS:
        raise ValueError(
            f"pixels of mode {mode} from {grey.min()} to {grey.max()}, expected 0 to 65,535; "
            "save it with 8 or 16 bits"
        )
    return np.repeat((grey.astype(np.int64) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)

"""What encoders take, as batches of tensors: images, or vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from faiss_dmih.data.items import Images

IN_MEMORY_BYTES = 1 << 30
"""Of resized images, up to which training decodes them once instead of once in each epoch."""


class Items:
    """n images or vectors.

    Args:
        x: images, uint8 (n, height, width[, 3]), or vectors (n, dim); numpy or torch; or a sequence
            of images, uint8 (height, width[, 3]) arrays or PIL images, of any sizes. Those of
            ``faiss_dmih.data.Images`` are decoded in threads.
        size: images of a sequence are resized to size x size pixels; None: these are vectors.

    Raises:
        TypeError, ValueError: naming what was got and what was expected.
    """

    def __init__(self, x: Any, size: int | None) -> None:
        self._size = size
        self._x: Any = x
        self._is_array = isinstance(x, (np.ndarray, Tensor))
        if self._is_array:
            self._x = self._checked(torch.as_tensor(x))
        elif size is None:
            self._x, self._is_array = self._checked(torch.as_tensor(np.asarray(x))), True

    def __len__(self) -> int:
        return len(self._x)

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """Images uint8 (len(indices), height, width, 3), or vectors float32."""
        if self._is_array:
            chosen: Tensor = self._x[torch.as_tensor(np.asarray(indices, np.int64))]
            return chosen
        numbers = [int(i) for i in indices]
        if isinstance(self._x, Images):  # others may not be made for several threads
            with ThreadPoolExecutor() as pool:
                images = list(pool.map(self._image, numbers))
        else:
            images = [self._image(i) for i in numbers]
        return self._resized(images)

    def batches(self, batch_size: int) -> Iterator[tuple[range, Tensor]]:
        """All items in order, with their numbers. One batch is made while the caller is busy with
        the one before."""
        spans = [
            range(at, min(at + batch_size, len(self))) for at in range(0, len(self), batch_size)
        ]
        with ThreadPoolExecutor(1) as ahead:
            coming = [ahead.submit(self.batch, span) for span in spans[:1]]
            for number, span in enumerate(spans):
                batch = coming.pop().result()
                coming += [ahead.submit(self.batch, after) for after in spans[number + 1 :][:1]]
                yield span, batch

    def in_memory(self) -> Items:
        """The same, decoded and resized once and for all, if that takes no more than
        IN_MEMORY_BYTES; otherwise these."""
        size = self._size or 0
        if self._is_array or len(self) * size * size * 3 > IN_MEMORY_BYTES:
            return self
        pixels = torch.empty((len(self), size, size, 3), dtype=torch.uint8)
        for span, batch in self.batches(1024):
            pixels[span.start : span.stop] = batch
        return Items(pixels, size)

    def _checked(self, x: Tensor) -> Tensor:
        if self._size is None:
            if x.ndim != 2:
                raise ValueError(f"got an array of shape {tuple(x.shape)}, expected (n, dim)")
            return x.float()
        if x.dtype != torch.uint8:
            raise TypeError(f"got images of {x.dtype}, expected uint8, 0 to 255")
        if x.ndim == 3:
            x = x[..., None].expand(*x.shape, 3)
        if x.ndim != 4 or x.shape[3] != 3:
            raise ValueError(
                f"got images of shape {tuple(x.shape)}, expected (n, height, width) or "
                "(n, height, width, 3)"
            )
        return x

    def _image(self, i: int) -> Tensor:
        """One of a sequence, uint8 (height, width, 3)."""
        try:
            return self._checked(torch.as_tensor(np.array(self._x[i]))[None])[0]
        except (TypeError, ValueError, OSError) as error:
            raise type(error)(f"image {i}: {error}") from error

    def _resized(self, images: list[Tensor]) -> Tensor:
        """Of one size: those that have a size in common together, which is the faster way."""
        size = self._size or 0
        out = torch.empty((len(images), size, size, 3), dtype=torch.uint8)
        alike: dict[torch.Size, list[int]] = {}
        for i, image in enumerate(images):
            alike.setdefault(image.shape, []).append(i)
        for shape, numbers in alike.items():
            stacked = torch.stack([images[i] for i in numbers])
            if shape[:2] != (size, size):
                pixels = stacked.permute(0, 3, 1, 2).float()
                resized = nn.functional.interpolate(
                    pixels, (size, size), mode="bilinear", antialias=True, align_corners=False
                )
                stacked = resized.round().clamp(0, 255).byte().permute(0, 2, 3, 1)
            out[numbers] = stacked
        return out

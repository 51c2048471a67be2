"""What encoders take, as batches of tensors: images, or vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Items:
    """n images or vectors.

    Args:
        x: images, uint8 (n, height, width[, 3]), or vectors (n, dim); numpy or torch; or a sequence
            of images, uint8 (height, width[, 3]) arrays or PIL images, of any sizes.
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
        return torch.stack([self._image(int(i)) for i in indices])

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
        """One of a sequence, resized."""
        try:
            image = torch.as_tensor(np.array(self._x[i]))
            checked = self._checked(image[None])
        except (TypeError, ValueError, OSError) as error:
            raise type(error)(f"image {i}: {error}") from error
        pixels = checked.permute(0, 3, 1, 2).float()
        resized = nn.functional.interpolate(
            pixels, (self._size, self._size), mode="bilinear", antialias=True, align_corners=False
        )
        return resized.round().clamp(0, 255).byte().permute(0, 2, 3, 1)[0]

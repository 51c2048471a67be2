"""Seeded variants of data items, to reach a million items from some ten thousands.

A view of an image is the image mirrored or not, cropped to a part and enlarged again, and shifted;
pixels are taken from the nearest source pixel, and from the border where the source ends. A view
of a feature vector is the vector plus Gaussian noise of `JITTER` times the standard deviation of
each feature. Views of one item are near duplicates of each other: sets made of them say so.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

JITTER = 0.3
_CROPS = (1.0, 0.9, 0.8)


def image_views(images: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One random view of each image: (n, height, width[, channels]) to the same shape."""
    height, width = images.shape[1:3]
    # Shifts reach a fourteenth of the width, 2 pixels of 28 or 32, and at least 1 pixel.
    reach = max(1, width // 14)
    shifts = range(-reach, reach + 1)
    combinations = list(itertools.product(shifts, shifts, _CROPS, (False, True)))
    # Images that share a combination are gathered together: one take along each axis.
    drawn = rng.integers(0, len(combinations), len(images))
    order = np.argsort(drawn, kind="stable")
    starts = np.searchsorted(drawn[order], np.arange(len(combinations) + 1))
    out = np.empty_like(images)
    for (down, right, crop, mirror), start, stop in zip(
        combinations, starts[:-1], starts[1:], strict=True
    ):
        if start == stop:
            continue
        rows = _source(height, crop, down)
        columns = _source(width, crop, right)
        if mirror:
            columns = columns[::-1]
        members = order[start:stop]
        out[members] = images[members][:, rows][:, :, columns]
    return out


def _source(size: int, crop: float, shift: int) -> npt.NDArray[np.intp]:
    """For each output pixel along one axis, the source pixel it is taken from."""
    centred = (np.arange(size) + 0.5 - size / 2) * crop + size / 2 + shift
    source: npt.NDArray[np.intp] = np.clip(np.floor(centred), 0, size - 1).astype(np.intp)
    return source


def feature_views(
    features: npt.NDArray[np.float32],
    deviation: npt.NDArray[np.float32],
    rng: np.random.Generator,
) -> npt.NDArray[np.float32]:
    """`features` (n, dim) plus noise of `JITTER * deviation`, deviation being (dim,)."""
    noise = rng.standard_normal(features.shape, dtype=np.float32)
    noise *= np.float32(JITTER) * deviation
    noise += features
    return noise

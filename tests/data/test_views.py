from __future__ import annotations

import numpy as np
import pytest

from faiss_dmih.data.views import JITTER, feature_views, image_views


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (32, 32, 3), (20, 30)])
def test_views_are_made_of_pixels_of_their_image(shape):
    # Every image has a grey level of its own, so that a mix-up of images would show.
    images = np.broadcast_to(
        np.arange(200, dtype=np.uint8).reshape(-1, *([1] * len(shape))), (200, *shape)
    )
    out = image_views(np.ascontiguousarray(images), np.random.default_rng(0))
    np.testing.assert_array_equal(out, images)


def test_views_shift_crop_and_mirror():
    column = np.arange(28, dtype=np.uint8)
    images = np.broadcast_to(column, (3000, 28, 28)).copy()
    rows = image_views(images, np.random.default_rng(0))[:, 0].astype(int)
    mirrored = rows[:, 0] > rows[:, -1]
    assert 0.4 < mirrored.mean() < 0.6
    upright = rows[~mirrored]
    assert (np.diff(upright, axis=1) >= 0).all()
    # Shifts of -2 .. 2 pixels and three crops make fifteen different views of a row.
    assert len(np.unique(upright, axis=0)) == 15
    assert (upright == column).all(axis=1).any()


def test_seeds_decide():
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8), dtype=np.uint8)
    one, same, other = (image_views(images, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_feature_views_jitter_each_feature_by_its_deviation():
    deviation = np.array([0.0, 1.0, 10.0], np.float32)
    x = np.ones((20_000, 3), np.float32)
    noise = feature_views(x, deviation, np.random.default_rng(0)) - x
    assert noise.dtype == np.float32
    np.testing.assert_allclose(noise.std(axis=0), JITTER * deviation, rtol=0.03)
    np.testing.assert_array_equal(x, 1)

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from faiss_dmih.data import InputError
from faiss_dmih.data.sources import ImageArray, PackedJpegs, Vectors, decode

RED = (255, 0, 0)
ORIENTATION = 0x0112


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return io.BytesIO(buffer.getvalue())


def constant(image):
    """The one colour of `image`, which is uint8 RGB."""
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.flags.c_contiguous
    assert image.flags.writeable
    (colour,) = np.unique(image.reshape(-1, 3), axis=0)
    return tuple(colour.tolist())


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "TIFF", "PPM", "WEBP", "JPEG"])
def test_formats(format):
    options = {"lossless": True} if format == "WEBP" else {}
    got = constant(decode(encoded(Image.new("RGB", (5, 3), RED), format, **options)))
    assert np.abs(np.subtract(got, RED)).max() <= (2 if format == "JPEG" else 0)


@pytest.mark.parametrize(
    ("mode", "colour", "format", "expected"),
    [
        ("1", 1, "PNG", (255, 255, 255)),
        ("L", 77, "PNG", (77, 77, 77)),
        ("LA", (77, 255), "PNG", (77, 77, 77)),
        ("LA", (77, 0), "PNG", (255, 255, 255)),
        ("RGBA", (*RED, 255), "PNG", RED),
        ("RGBA", (*RED, 0), "PNG", (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), "TIFF", RED),
        ("I;16", 0x7FFF, "PNG", (127, 127, 127)),
        ("I;16", 0xFFFF, "TIFF", (255, 255, 255)),
        ("I", 0x0180, "TIFF", (1, 1, 1)),
    ],
)
def test_modes(mode, colour, format, expected):
    image = Image.new(mode, (4, 4), colour)
    assert constant(decode(encoded(image, format))) == expected


def test_a_palette():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([9, 9, 9, *RED])
    assert constant(decode(encoded(image))) == RED


def test_half_transparent_pixels_mix_with_white():
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert constant(decode(encoded(image))) == (127, 127, 127)


def test_a_transparent_colour_of_a_palette_shows_white():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([9, 9, 9, *RED])
    assert constant(decode(encoded(image, transparency=0))) == (255, 255, 255)


@pytest.mark.parametrize(("mode", "colour"), [("F", 0.5), ("I", 70_000), ("I", -1)])
def test_pixels_of_unknown_range_are_refused(mode, colour):
    with pytest.raises(ValueError, match=f"pixels of mode {mode} from .*8 or 16 bits"):
        decode(encoded(Image.new(mode, (4, 4), colour), "TIFF"))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_photos_stand_as_they_were_seen(format):
    # The upper half is white; the camera was turned, so the file holds it on one side.
    pixels = np.zeros((16, 8, 3), np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # turn by 90 degrees, clockwise, to see it upright
    stored = Image.fromarray(np.rot90(pixels).copy())
    seen = decode(encoded(stored, format, exif=exif))
    assert seen.shape == (16, 8, 3)
    assert np.abs(seen.astype(int) - pixels).max() <= 8


def test_the_first_frame_counts():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, (0, 0, 255))]
    animation = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert constant(decode(animation)) == RED


def test_half_a_file_is_an_error():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), "JPEG").getvalue()
    with pytest.raises(OSError, match="truncated"):
        decode(io.BytesIO(whole[: len(whole) // 2]))


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 4, 5, 1), (2, 4, 5, 3)])
def test_arrays_of_images(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    source = ImageArray(pixels, "x")
    image = source.item(1)
    assert image.shape == (4, 5, 3)
    np.testing.assert_array_equal(image, np.broadcast_to(pixels[1].reshape(4, 5, -1), (4, 5, 3)))
    image[:] = 0
    assert pixels[1].any()  # an image given out is a copy


def test_an_array_that_holds_no_images_is_described():
    with pytest.raises(InputError, match=r"got float32 \(2, 4, 5\), expected uint8"):
        ImageArray(np.zeros((2, 4, 5), np.float32), "x")
    with pytest.raises(InputError, match=r"got uint8 \(2, 3, 8, 8\).*x\.transpose"):
        ImageArray(np.zeros((2, 3, 8, 8), np.uint8), "x")


def test_packed_jpegs_that_do_not_fit_are_refused():
    payload = np.zeros(10, np.uint8)
    which = np.zeros(2, np.uint8)
    for offsets in ([0, 5], [0, 5, 11]):
        with pytest.raises(InputError, match=r"x: .* offsets up to .* get the file anew"):
            PackedJpegs((b"",), which, payload, np.array(offsets), b"", "x")


def test_vectors_that_are_not_finite_are_named():
    x = np.zeros((5, 3), np.float32)
    x[[2, 4], 1] = np.nan, np.inf
    with pytest.raises(InputError, match=r"x: 2 of 5 vectors .* the first is vector 2"):
        Vectors(x, "x")

"""A picture of what a search has found: each query at the left, its neighbours beside it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faiss_dmih.data.files import atomic_write

RIGHT, WRONG, UNKNOWN = "#009E73", "#D55E00", "#BBBBBB"
"""Frames of neighbours that share a class with the query, that share none, and where that is not
known. Told apart by those who see no red or green, too."""
LINE = "#DDDDDD"
COLUMNS = 10
DPI = 120
IMAGE, GAP, ASIDE = 1.2, 0.14, 0.3
"""Sides of an image, what is between two, and what more there is beside a query, in inches."""
ABOVE, BELOW, MARGIN, TITLE = 0.2, 0.34, 0.15, 0.3
"""Room for the text above and below an image, around everything, and for the legend."""
_LETTERS = 17
_PIXELS = int(IMAGE * DPI)


@dataclass(frozen=True)
class Tile:
    """An image uint8 (height, width, 3), what is written above and below it, and its frame."""

    pixels: npt.NDArray[np.uint8]
    above: str
    below: str
    frame: str | None = None


@dataclass(frozen=True)
class Row:
    """A query and its neighbours, nearest first."""

    query: Tile
    neighbours: Sequence[Tile]


def size(rows: Sequence[Row]) -> tuple[int, int]:
    """Width and height of the picture in pixels."""
    columns = max(1, min(COLUMNS, max((len(row.neighbours) for row in rows), default=1)))
    width = 2 * MARGIN + (1 + columns) * (IMAGE + GAP) + ASIDE
    height = 2 * MARGIN + TITLE + sum(map(_lines, rows)) * (ABOVE + IMAGE + BELOW)
    return round(width * DPI), round(height * DPI)


def write_picture(rows: Sequence[Row], path: Path) -> None:
    """Write it as PNG."""
    # Without pyplot: nothing global, and no display.
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    width, height = (pixels / DPI for pixels in size(rows))
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    top = MARGIN + TITLE
    for i, row in enumerate(rows):
        if i:
            y = 1 - (top - ABOVE / 4) / height
            x = (MARGIN / width, 1 - MARGIN / width)
            figure.add_artist(Line2D(x, (y, y), color=LINE, linewidth=1))
        _draw(figure, row.query, MARGIN, top, bold=True)
        for i, tile in enumerate(row.neighbours):
            line, column = divmod(i, COLUMNS)
            left = MARGIN + ASIDE + (1 + column) * (IMAGE + GAP)
            _draw(figure, tile, left, top + line * (ABOVE + IMAGE + BELOW))
        top += _lines(row) * (ABOVE + IMAGE + BELOW)
    left = (MARGIN + IMAGE + (GAP + ASIDE) / 2) / width
    ends = (MARGIN / height, 1 - (MARGIN + TITLE) / height)
    figure.add_artist(Line2D((left, left), ends, color=LINE, linewidth=1))
    frames = [tile.frame for row in rows for tile in row.neighbours]
    meanings = {RIGHT: "same class", WRONG: "another class", UNKNOWN: "class not known"}
    handles = [
        Line2D([], [], color=frame, linewidth=4, label=meaning)
        for frame, meaning in meanings.items()
        if frame in frames
    ]
    if handles:
        figure.legend(
            handles=handles,
            loc="upper right",
            ncols=len(handles),
            fontsize=8,
            frameon=False,
            bbox_to_anchor=(1, 1),
            borderaxespad=0.1,
        )
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=DPI)


def _lines(row: Row) -> int:
    return max(1, -(-len(row.neighbours) // COLUMNS))


def _draw(figure: Any, tile: Tile, left: float, top: float, *, bold: bool = False) -> None:
    width, height = figure.get_size_inches()
    bottom = height - top - ABOVE - IMAGE
    axis = figure.add_axes((left / width, bottom / height, IMAGE / width, IMAGE / height))
    axis.set_xticks([])
    axis.set_yticks([])
    pixels = _reduced(tile.pixels)
    axis.imshow(pixels, interpolation="nearest", aspect="equal")
    # A square place for an image of any shape, so that frames stand in line.
    h, w = pixels.shape[:2]
    half = max(h, w) / 2
    axis.set_xlim(w / 2 - half - 0.5, w / 2 + half - 0.5)
    axis.set_ylim(h / 2 + half - 0.5, h / 2 - half - 0.5)
    for spine in axis.spines.values():
        spine.set(visible=tile.frame is not None, color=tile.frame or "none", linewidth=3.5)
    weight = "bold" if bold else "normal"
    centre = (left + IMAGE / 2) / width
    above, below = bottom + IMAGE + 0.055, bottom - 0.06
    text = {"ha": "center", "fontsize": 8}
    title = tile.above if len(tile.above) <= _LETTERS else "…" + tile.above[1 - _LETTERS :]
    figure.text(centre, above / height, title, va="bottom", weight=weight, **text)
    lines = textwrap.wrap(tile.below, _LETTERS, max_lines=2, placeholder="…")
    figure.text(centre, below / height, "\n".join(lines), va="top", linespacing=1.05, **text)


def _reduced(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """No larger than it is shown: photos would take gigabytes."""
    if max(pixels.shape[:2]) <= _PIXELS:
        return pixels
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((_PIXELS, _PIXELS))
    return np.asarray(image)

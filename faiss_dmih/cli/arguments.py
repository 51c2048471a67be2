"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SourceName = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A data set such as cifar10 or digits; a folder of images, a subfolder for each "
        "class; .npz with images or features and labels, classes; .npy with images or features.",
        show_default=False,
    ),
]
EncoderFolder = Annotated[
    Path,
    typer.Argument(metavar="ENCODER", help="A folder of `train`.", show_default=False),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="Labels instead of the source's: .npy, int (n,), or 0/1 (n, classes); in the order of "
        "the items, which is that of the paths in a folder."
    ),
]
SkipCorrupt = Annotated[
    bool,
    typer.Option(
        "--skip-corrupt",
        help="Leave out images that cannot be decoded, count and list them, instead of stopping.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace what an earlier run has written there, in one step when all is done.",
    ),
]

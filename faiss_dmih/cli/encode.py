"""`faiss-dmih encode`: codes of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from faiss_dmih.cli.arguments import EncoderFolder, Overwrite, SkipCorrupt, SourceName
from faiss_dmih.cli.encoding import encode as codes_of
from faiss_dmih.cli.encoding import labels_of, open_encoder
from faiss_dmih.cli.outputs import check_file
from faiss_dmih.cli.sources import open_source
from faiss_dmih.cli.terminal import note, progress_bar, reported
from faiss_dmih.data import listed
from faiss_dmih.data.files import atomic_write


def encode(
    encoder: EncoderFolder,
    source: SourceName,
    out: Annotated[
        Path, typer.Option(help=".npy for packed codes uint8 (n, bits / 8).", show_default=False)
    ],
    names: Annotated[
        Path | None,
        typer.Option(
            help=".txt with the path or place of the item of each row; or .json, which has numbers "
            "and labels, too."
        ),
    ] = None,
    skip_corrupt: SkipCorrupt = False,
    overwrite: Overwrite = False,
) -> None:
    """Write the codes of all items, in their order.

    In a folder that is the order of the paths; --names says which row is which item.
    """
    console, errors = Console(), Console(stderr=True)
    with reported():
        check_file("--out", out, (".npy",), overwrite)
        if names is not None:
            check_file("--names", names, (".txt", ".json"), overwrite)
        model = open_encoder(encoder)
        with progress_bar(console) as progress:
            data = open_source(source, skip_corrupt=skip_corrupt, progress=progress)
        if data.items.skipped:
            note(errors, listed(data.items.skipped))
        codes = codes_of(model, data.items, encoder, progress=console.is_terminal)
        rows = data.items.rows.tolist()
        paths = [data.name(row) for row in rows]
        with atomic_write(out) as file:
            np.save(file, codes)
        if names is not None:
            if names.suffix == ".txt":
                text = "".join(f"{path}\n" for path in paths)
            else:
                entries = [
                    json.dumps({"id": row, "name": path, "label": label})
                    for row, path, label in zip(rows, paths, labels_of(data, rows), strict=True)
                ]
                text = "[\n" + ",\n".join(entries) + "\n]\n"
            with atomic_write(names) as file:
                file.write(text.encode())
        also = f", names to {names}" if names is not None else ""
        console.print(
            f"{len(codes):,} codes of {model.bits} bits to {out}{also}",
            highlight=False,
            soft_wrap=True,
        )

"""`faiss-dmih build`: an index over images."""

from __future__ import annotations

import json
import time
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from faiss_dmih.cli.arguments import EncoderFolder, Labels, Overwrite, SkipCorrupt, SourceName
from faiss_dmih.cli.encoding import labels_of, open_encoder
from faiss_dmih.cli.outputs import check_folder
from faiss_dmih.cli.sources import Source, encoder_input, open_source
from faiss_dmih.cli.splits import FILE, Drawn
from faiss_dmih.cli.terminal import note, progress_bar, reported, show_facts
from faiss_dmih.data import InputError, listed
from faiss_dmih.encoded import EncodedIndex
from faiss_dmih.folders import atomic_folder
from faiss_dmih.metrics import distinct_codes

MARK = "index.json"
ITEMS = "items.json"
"""Beside the index: the source and the labels of its items."""


class Part(str, Enum):
    """Which items an index holds."""

    all = "all"
    database = "database"


def build(
    encoder: EncoderFolder,
    source: SourceName,
    out: Annotated[Path, typer.Option(help="Folder for the index.", show_default=False)],
    part: Annotated[
        Part,
        typer.Option(
            help="all items, or the database of the split the encoder was trained with: all but "
            "its queries."
        ),
    ] = Part.all,
    labels: Labels = None,
    skip_corrupt: SkipCorrupt = False,
    overwrite: Overwrite = False,
) -> None:
    """Encode images and put their codes into an index that knows their paths.

    Ids are the numbers of the items in the source; for folders, in the order of the paths.
    In Python the folder is opened by faiss_dmih.encoded.EncodedIndex.load.
    """
    console, errors = Console(), Console(stderr=True)
    with reported():
        target = check_folder(out, MARK, overwrite)
        model = open_encoder(encoder)
        with progress_bar(console) as progress:
            data = open_source(source, labels=labels, skip_corrupt=skip_corrupt, progress=progress)
        if data.items.skipped:
            note(errors, listed(data.items.skipped))
        rows = data.items.rows if part is Part.all else _database(data, encoder)
        started = time.perf_counter()
        items = data.whole[rows]
        vectors = model.trunk.preprocessing is None
        index = EncodedIndex(model)
        index.add(
            encoder_input(items, vectors=vectors, who=f"the encoder {encoder}"),
            rows,
            names=[data.name(int(row)) for row in rows],
            progress=console.is_terminal,
        )
        seconds = time.perf_counter() - started
        said = {"source": data.spec, "labels": labels_of(data, rows)}
        said["skipped"] = [list(pair) for pair in data.items.skipped]
        with atomic_folder(target) as scratch:
            index.save(scratch)
            (scratch / ITEMS).write_text(json.dumps(said) + "\n")
        facts = {
            "index": f"{index.ntotal:,} items, {distinct_codes(index.codes):,} "
            f"distinct codes of {model.bits} bits",
            "data": data.spec,
            "built": f"{seconds:.1f} s",
            "written": str(out),
        }
        show_facts(console, facts)


def _database(data: Source, encoder: Path) -> Any:
    path = encoder / FILE
    if not path.is_file():
        raise InputError(f"--part database: there is no split in {encoder}, as `train` writes one")
    drawn = Drawn.load(path)
    if not drawn.is_of(data, encoder):
        raise InputError(
            f"--part database: {encoder} was trained on {drawn.source}, not on {data.spec}, of "
            "which it knows no database"
        )
    return drawn.split.database[np.isin(drawn.split.database, data.items.rows)]

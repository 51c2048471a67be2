"""The command line application: one module per command, registered here."""

from __future__ import annotations

import typer

from faiss_dmih.cli.bench import bench
from faiss_dmih.cli.build import build
from faiss_dmih.cli.encode import encode
from faiss_dmih.cli.evaluate import evaluate
from faiss_dmih.cli.info import info, verify
from faiss_dmih.cli.search import search
from faiss_dmih.cli.tables import tables
from faiss_dmih.cli.train import train

# Markup would take "[default: 64]" in a help text for a style, and not show it.
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
for command in (train, encode, build, search, evaluate, info, verify, bench, tables):
    app.command()(command)


@app.callback()
def _about() -> None:
    """Exact Hamming k-NN for FAISS, and encoders whose codes are made for it."""

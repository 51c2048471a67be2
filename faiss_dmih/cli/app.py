"""The command line application: one module per command, registered here."""

from __future__ import annotations

import typer

from faiss_dmih.cli.bench import bench
from faiss_dmih.cli.info import info, verify

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
app.command()(bench)
app.command()(info)
app.command()(verify)


# Without a callback typer drops the name of a command that is the only one.
@app.callback()
def _about() -> None:
    """Exact Hamming k-NN for FAISS."""

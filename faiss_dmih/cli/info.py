"""`faiss-dmih info` and `faiss-dmih verify`: what is in an index file, and whether it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from faiss_dmih.cli.terminal import show_error
from faiss_dmih.inspection import Node, inspect

File = Annotated[Path, typer.Argument(help="Written by faiss_dmih.write_index.")]


def info(file: File) -> None:
    """Show what is in an index file: its header, its sections, their sizes."""
    console = Console()
    for node in _inspect(file, verify=False):
        _show(console, node)


def verify(file: File) -> None:
    """Read an index file and compare all checksums. Exit code 1: something is damaged."""
    console = Console()
    nodes = _inspect(file, verify=True)
    damaged = 0
    for node in nodes:
        if node.sections:
            for s in node.sections:
                if not s.sound:
                    damaged += 1
                    console.print(
                        f"damaged: section {s.tag} (segment {s.segment}, table {s.table}), "
                        f"{s.size:,} bytes at {s.offset:,}",
                        highlight=False,
                    )
        elif not node.sound:
            damaged += 1
            console.print(f"damaged: {node.kind}, {node.size:,} bytes", highlight=False)
    if damaged:
        refused = any(not n.sound and not n.sections for n in nodes) or any(
            s.tag == "codes" and not s.sound for n in nodes for s in n.sections
        )
        console.print(
            "It cannot be read: codes or ids are among it."
            if refused
            else "It can be repaired: read_index builds anew what is damaged, write_index keeps it."
        )
        raise typer.Exit(1)
    console.print(
        f"{file}: {file.stat().st_size:,} bytes, all checksums are right", highlight=False
    )


def _inspect(file: Path, *, verify: bool) -> list[Node]:
    try:
        return inspect(file, verify=verify)
    except (OSError, ValueError) as error:
        show_error(Console(stderr=True), str(error))
        raise typer.Exit(1) from None


def _show(console: Console, node: Node) -> None:
    indent = "  " * node.depth
    if not node.sections:
        console.print(f"{indent}{node.kind}: {node.d} bits, {node.size:,} bytes", highlight=False)
        return
    options = [f"version {node.version}", f"mode {node.mode}"]
    if node.cuts:
        options.append(f"cuts {', '.join(map(str, node.cuts))}")
    if node.memory_budget is not None:
        options.append(f"memory budget {node.memory_budget:,} bytes")
    console.print(
        f"{indent}IndexDMIH: {node.ntotal:,} codes of {node.d} bits, {node.size:,} bytes; "
        + "; ".join(options),
        highlight=False,
    )
    if node.partition is not None:
        console.print(f"{indent}learned, which bits go into which table:", highlight=False)
        for number, bits in enumerate(node.partition.substrings):
            listed = ", ".join(map(str, bits))
            console.print(f"{indent}  table {number}, {len(bits)} bits: {listed}", highlight=False)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("section")
    for heading in ("segment", "table", "at", "bytes", "bytes/code"):
        table.add_column(heading, justify="right")
    of_tables = {"offsets", "slots", "signs"}
    for s in node.sections:
        whole = s.tag in ("codes", "bits", "parts")
        table.add_row(
            Text(s.tag),
            "" if whole else str(s.segment),
            str(s.table) if s.tag in of_tables else "",
            f"{s.offset:,}",
            f"{s.size:,}",
            f"{s.size / node.ntotal:.2f}" if node.ntotal else "",
        )
    console.print(table)

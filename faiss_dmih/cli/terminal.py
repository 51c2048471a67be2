"""What all commands show: progress, errors in one line, a table of what was done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from faiss_dmih.data.errors import DataUnavailable
from faiss_dmih.data.files import Progress

INTERRUPTED = 130
"""Exit status after Ctrl-C, as of shells."""


@contextmanager
def progress_bar(console: Console) -> Iterator[Progress]:
    """A bar on a terminal, which shows the step at hand; nothing elsewhere.

    It is drawn at each step only: a drawing thread would disturb what is being measured.
    """
    bar = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        auto_refresh=False,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("starting", total=None)

        drawn = ("", 0.0)

        def show(what: str, done: int, total: int) -> None:
            nonlocal drawn
            bar.update(task, description=what, completed=done, total=total or None)
            now = time.monotonic()
            if what != drawn[0] or now - drawn[1] > 0.1:
                bar.refresh()
                drawn = (what, now)

        yield show


def show_error(console: Console, message: str) -> None:
    """One line."""
    line = " ".join(message.split())
    console.print(Text("error: ", style="bold red") + Text(line), soft_wrap=True)


def note(console: Console, message: str) -> None:
    """One line about something that is no error."""
    console.print(Text("note: ", style="bold yellow") + Text(message), soft_wrap=True)


@contextmanager
def reported() -> Iterator[None]:
    """What a user can do something about ends the command with one line on standard error."""
    errors = Console(stderr=True)
    try:
        yield
    except (ValueError, OSError, DataUnavailable, FloatingPointError) as error:
        show_error(errors, str(error))
        raise typer.Exit(2) from error
    except KeyboardInterrupt as error:
        show_error(errors, str(error) or "stopped")
        raise typer.Exit(INTERRUPTED) from error


def show_facts(console: Console, facts: Mapping[str, str]) -> None:
    """Two columns, what and how; without those that are empty."""
    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    table.add_column(style="italic")
    table.add_column(overflow="fold")
    for what, how in facts.items():
        if how:
            table.add_row(what, Text(how))
    console.print(table)

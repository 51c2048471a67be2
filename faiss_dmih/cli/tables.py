"""`faiss-dmih tables`: the papers' tables, from trainings that are kept."""

from __future__ import annotations

import logging
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from faiss_dmih.cli.encoding import require_torch
from faiss_dmih.cli.outputs import check_folder
from faiss_dmih.cli.terminal import note, progress_bar, reported
from faiss_dmih.data import LABELLED, InputError
from faiss_dmih.data.errors import require
from faiss_dmih.data.files import cache_dir, no_downloads

if TYPE_CHECKING:
    from faiss_dmih.tables.work import Work, Workshop


_MOST_PIECES = 200


class Schedule(str, Enum):
    """How much is trained."""

    quick = "quick"
    full = "full"


def tables(
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("report"),
    schedule: Annotated[
        Schedule,
        typer.Option(
            help="quick: features of CIFAR-10, 64 bits, one seed, about half an hour on 2 cores; "
            "full: all sets and lengths, three seeds, AlexNet: for a GPU, or a night; it downloads."
        ),
    ] = Schedule.quick,
    paper: Annotated[
        list[str] | None, typer.Option(help="dmih, edsh or beyond: its tables. May be repeated.")
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(help="One table, such as dmih-1 or edsh-f4. May be repeated. [default: all]"),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="A named set, instead of the schedule's. May be repeated."),
    ] = None,
    bits: Annotated[
        list[int] | None,
        typer.Option(help="A length of codes, instead of the schedule's. May be repeated."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Trainings of each kind. [default: the schedule's]")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Of nets on vectors. [default: the schedule's]")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Of SqueezeNet 1.0, .npz, instead of a download.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Where trainings, codes and figures are kept. [default: tables in the cache]"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is to be done, and about how long it takes.")
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Write the report from what is there.")
    ] = False,
) -> None:
    """Reproduce the papers' tables and figures: train what is missing, write a report.

    Published figures stand beside ours. What is done once is kept, and a run that was stopped goes
    on where it was when the same command is given again. Writes Markdown, HTML, JSON and pictures
    into --out, in the place of an earlier report.
    """
    console, errors = Console(), Console(stderr=True)
    with reported():
        require_torch()
        require("jinja2", "the report as HTML")
        from faiss_dmih.bench.machine import describe
        from faiss_dmih.tables import PAPERS, SCHEDULES, Order, Workshop, chosen
        from faiss_dmih.tables.report import MARK, write_report
        from faiss_dmih.tables.sets import DERIVED, Sets

        target = check_folder(out, MARK, overwrite=True)
        plan = SCHEDULES[schedule.value]
        for name in data or ():
            if name not in LABELLED and name not in DERIVED:
                known = ", ".join([*LABELLED, *DERIVED])
                raise InputError(f"--data {name}: expected one of {known}")
        for length in bits or ():
            if length < 8 or length % 8:
                raise InputError(f"--bits {length}: expected a multiple of 8, at least 8")
        for option, value in (("seeds", seeds), ("epochs", epochs)):
            if value is not None and value < 1:
                raise InputError(f"--{option} {value}: expected at least 1")
        plan = replace(
            plan,
            data=tuple(data or plan.data),
            bits=tuple(sorted(set(bits or plan.bits))),
            seeds=seeds or plan.seeds,
            epochs=epochs or plan.epochs,
        )
        order = Order(plan, chosen(paper or (), table or ()))
        with progress_bar(console) as progress:
            shop = Workshop(cache or cache_dir() / "tables", Sets(weights, progress), progress)
            needed = order.needed()
            if dry_run:
                with no_downloads():
                    _show(console, shop.missing(needed))
                _say_failures(errors, shop)
                return
            missing = shop.missing(needed)
            stopped = not report_only and not _all_done(shop, needed, len(missing), console)
        sections = order.written(shop)
        left = len(shop.missing(needed))
        write_report(target, sections, PAPERS, plan, describe(), left)
        _say_failures(errors, shop)
        console.print(f"{MARK}, tables.html, tables.json in {out}", highlight=False, soft_wrap=True)
        if stopped:
            raise KeyboardInterrupt(
                f"stopped, {left} pieces of work are left: the same command goes on"
            )
        if any(why.startswith("failed: ") for why in shop.failures.values()):
            raise typer.Exit(1)


def _all_done(shop: Workshop, needed: Sequence[Work], count: int, console: Console) -> bool:
    """Does what is missing, and says so; False if it was interrupted."""
    import torch

    torch.set_num_threads(1)  # the same codes on any number of cores
    # Lightning's advice on devices and workers.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    began = before = time.monotonic()
    number = 0

    def done(work: Work, share: float) -> None:
        nonlocal before, number
        now, number = time.monotonic(), number + 1
        left = (now - began) * (1 - share) / share / 60
        shop.progress(f"about {left:.0f} min left", number, count)
        outcome = shop.failures.get(work) or f"{now - before:.0f} s"
        line = f"{number}/{count} {work.title}: {outcome}; about {left:.0f} min left"
        console.print(line, highlight=False, soft_wrap=True)
        before = now

    try:
        shop.run(needed, done)
    except (KeyboardInterrupt, SystemExit):  # Lightning exits on Ctrl-C
        return False
    return True


def _show(console: Console, missing: Sequence[Work]) -> None:
    """What is to be done, with estimates: piece by piece, or, where these are too many to be read,
    by kind and set."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("to be done")
    table.add_column("estimate", justify="right")
    if len(missing) <= _MOST_PIECES:
        for work in missing:
            table.add_row(work.title, f"{work.seconds:,.0f} s")
    else:
        groups: dict[tuple[str, str], list[float]] = {}
        for work in missing:
            groups.setdefault((work.kind, work.data), []).append(work.seconds)
        for (kind, data), seconds in groups.items():
            table.add_row(f"{kind}, {data}: {len(seconds):,}", _lasting(sum(seconds)))
    total = sum(work.seconds for work in missing)
    console.print(table)
    console.print(f"{len(missing):,} pieces of work, about {_lasting(total)} on one core")


def _lasting(seconds: float) -> str:
    """In minutes, or in hours where these are many."""
    return f"{seconds / 60:,.0f} min" if seconds < 36_000 else f"{seconds / 3600:,.0f} h"


def _say_failures(errors: Console, shop: Workshop) -> None:
    for why, count in Counter(shop.failures.values()).items():
        note(errors, f"not run, {count} pieces of work: {why}")

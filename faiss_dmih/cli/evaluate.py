"""`faiss-dmih evaluate`: what the codes of encoders are worth."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from faiss_dmih.cli.arguments import Labels, Overwrite, SkipCorrupt, SourceName
from faiss_dmih.cli.encoding import encode, open_encoder
from faiss_dmih.cli.outputs import check_folder
from faiss_dmih.cli.sources import Source, open_source, read_array
from faiss_dmih.cli.splits import FILE, Drawn, draw
from faiss_dmih.cli.terminal import note, progress_bar, reported
from faiss_dmih.codes import check_codes
from faiss_dmih.data import InputError, listed
from faiss_dmih.folders import atomic_folder
from faiss_dmih.metrics import evaluation as evaluation_
from faiss_dmih.metrics.evaluation import Evaluation
from faiss_dmih.metrics.plots import write_plots
from faiss_dmih.metrics.report import markdown, terminal_table
from faiss_dmih.options import paper_cuts

MARK = "evaluation.md"
OWN_NAMES = re.compile(r"(?P<name>[^=/]+)=(?P<path>.+)")


@dataclass(frozen=True)
class _Subject:
    """An encoder, or codes: how it is called, if it was said, and where it is."""

    name: str | None
    path: Path

    @property
    def is_codes(self) -> bool:
        return self.path.suffix == ".npy"

    @property
    def split(self) -> Path:
        return self.path / FILE


def evaluate(
    subjects: Annotated[
        list[str],
        typer.Argument(
            metavar="ENCODER...",
            help="Folders of `train`; or .npy files of packed codes, a row for each item of "
            "SOURCE. NAME=FOLDER names a series; those of one name and length are runs of it. "
            "[default name: the method]",
            show_default=False,
        ),
    ],
    source: SourceName,
    out: Annotated[
        Path, typer.Option(help="Folder for JSON, Markdown and plots.", show_default=False)
    ],
    cutoff: Annotated[
        list[int] | None, typer.Option(help="N of mAP@N besides mAP; may be repeated.")
    ] = None,
    queries_per_class: Annotated[
        int | None,
        typer.Option(
            help="Queries of each class, where no encoder was trained on this source: then the "
            "split is drawn now. [default: as for `train`]"
        ),
    ] = None,
    split_seed: Annotated[int, typer.Option(help="Of that split.")] = 0,
    labels: Labels = None,
    skip_corrupt: SkipCorrupt = False,
    overwrite: Overwrite = False,
) -> None:
    """Measure encoders: mAP, precision and recall, hash tables, correlation of bits.

    Queries and database are those of the split that an encoder was trained with; encoders whose
    splits differ are not compared. Prints a table and writes JSON, Markdown and plots into --out.
    """
    console, errors = Console(), Console(stderr=True)
    with reported():
        target = check_folder(out, MARK, overwrite)
        asked = [_subject(text) for text in subjects]
        for at in cutoff or ():
            if at < 1:
                raise InputError(f"--cutoff {at}: expected at least 1")
        with progress_bar(console) as progress:
            data = open_source(source, labels=labels, skip_corrupt=skip_corrupt, progress=progress)
        if data.items.skipped:
            note(errors, listed(data.items.skipped))
        _ = data.known_labels
        drawn = _split(asked, data, queries_per_class, split_seed)
        found = []
        for subject, name in zip(asked, _names(asked), strict=True):
            xb, xq, cuts = _codes(subject, data, drawn, progress=console.is_terminal)
            parts = drawn.split
            yb, yq = (data.whole[rows].known_labels for rows in (parts.database, parts.queries))
            found.append(
                evaluation_.evaluate(xb, xq, yb, yq, cuts, name=name, cutoffs=cutoff or ())
            )
        _write(target, found, asked, data, drawn)
        console.print(terminal_table(found))
        console.print(f"JSON, {MARK} and plots in {out}", highlight=False, soft_wrap=True)


def _subject(text: str) -> _Subject:
    named = None if Path(text).exists() else OWN_NAMES.fullmatch(text)
    name, path = (named["name"], Path(named["path"])) if named else (None, Path(text))
    if path.suffix == ".npy":
        if not path.is_file():
            raise InputError(f"{path}: there is no such file of codes")
    elif not (path / "encoder.json").is_file():
        raise InputError(
            f"{path} holds no encoder (there is no encoder.json), and is no .npy file of codes"
        )
    return _Subject(name, path)


def _names(subjects: Sequence[_Subject]) -> list[str]:
    """As given; otherwise the method, or the folder's or file's name where that is not unique."""
    kinds = []
    for subject in subjects:
        if subject.is_codes:
            kinds.append((subject.path.stem, 0))
            continue
        try:
            said = json.loads((subject.path / "encoder.json").read_text())
            kinds.append((str(said["kind"]), sum(head["bits"] for head in said["heads"])))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{subject.path}/encoder.json is damaged ({error!r})") from error
    counts = Counter(kinds)
    return [
        subject.name or (kind[0] if counts[kind] == 1 else subject.path.resolve().name)
        for subject, kind in zip(subjects, kinds, strict=True)
    ]


def _split(
    subjects: Sequence[_Subject], data: Source, queries_per_class: int | None, seed: int
) -> Drawn:
    """That of the encoders, all of which have to agree; a new one where none knows this source."""
    agreed: tuple[_Subject, Drawn] | None = None
    for subject in subjects:
        if subject.is_codes or not subject.split.is_file():
            continue
        drawn = Drawn.load(subject.split)
        if not drawn.is_of(data, subject.path):
            continue
        if agreed is None:
            agreed = subject, drawn
        for part in ("queries", "database"):
            mine, theirs = (getattr(each.split, part) for each in (drawn, agreed[1]))
            if not np.array_equal(mine, theirs):
                raise InputError(
                    f"{subject.path} and {agreed[0].path} were trained with other {part} of "
                    f"{data.spec}: evaluate them apart, or train with the same --split-seed"
                )
    if agreed is None:
        return draw(data, seed=seed, queries_per_class=queries_per_class)
    if queries_per_class is not None:
        raise InputError(
            f"--queries-per-class: {agreed[0].path} was trained with queries of its own, which it "
            "is evaluated by; leave the option out"
        )
    return agreed[1]


def _codes(
    subject: _Subject, data: Source, drawn: Drawn, *, progress: bool
) -> tuple[Any, Any, Sequence[int]]:
    """Codes of database and queries, and the cuts of their tables."""
    parts = drawn.split
    if subject.is_codes:
        try:
            codes = check_codes(read_array(subject.path), None, "codes")
        except (TypeError, ValueError) as error:
            raise InputError(f"{subject.path}: {error}") from error
        if len(codes) != len(data.whole):
            raise InputError(
                f"{subject.path} holds {len(codes):,} codes, expected {len(data.whole):,}, one for "
                f"each item of {data.spec}"
            )
        cuts = paper_cuts(8 * codes.shape[1], len(parts.database))
        return codes[parts.database], codes[parts.queries], cuts
    encoder = open_encoder(subject.path)
    xb, xq = (
        encode(encoder, data.whole[rows], subject.path, progress=progress)
        for rows in (parts.database, parts.queries)
    )
    return xb, xq, encoder.cuts


def _write(
    target: Path,
    found: Sequence[Evaluation],
    subjects: Sequence[_Subject],
    data: Source,
    drawn: Drawn,
) -> None:
    with atomic_folder(target) as scratch:
        files = []
        for e in found:
            stem = re.sub(r"[^\w.-]+", "_", f"{e.name}-{e.bits}")
            path, run = scratch / f"{stem}.json", 1
            while path.exists():
                run += 1
                path = scratch / f"{stem}_{run}.json"
            e.save(path)
            files.append(path.name)
        drawn.save(scratch / FILE)
        plots = write_plots(found, scratch)
        parts = drawn.split
        lines = [
            f"# {data.spec}",
            "",
            f"Database {len(parts.database):,}, queries {len(parts.queries):,} ({FILE}).",
            "",
            markdown(found),
            *(f"- {file}: {s.path}" for file, s in zip(files, subjects, strict=True)),
            "",
            *(f"![{plot.stem}]({plot.name})" for plot in plots),
        ]
        (scratch / MARK).write_text("\n".join(lines) + "\n", encoding="utf-8")

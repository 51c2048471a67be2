"""`faiss-dmih search`: the neighbours of images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from faiss_dmih.cli.arguments import Overwrite
from faiss_dmih.cli.build import ITEMS
from faiss_dmih.cli.encoding import require_torch
from faiss_dmih.cli.outputs import check_file
from faiss_dmih.cli.picture import RIGHT, UNKNOWN, WRONG, Row, Tile, write_picture
from faiss_dmih.cli.sources import Source, encoder_input, open_source, place
from faiss_dmih.cli.terminal import note, reported
from faiss_dmih.data import Images, InputError, Items, image_folder
from faiss_dmih.data.folder import EXTENSIONS
from faiss_dmih.data.sources import ImageFiles
from faiss_dmih.encoded import EncodedIndex, StaleCodes

MOST_QUERIES, MOST_NEIGHBOURS = 40, 50
"""In one picture."""


@dataclass(frozen=True)
class Neighbour:
    """One item that was found; `label` are the names of its classes, if they are known."""

    rank: int
    distance: int
    id: int
    name: str
    label: list[str]


@dataclass(frozen=True)
class Found:
    """A query and what was found, nearest first."""

    query: str
    label: list[str]
    neighbours: list[Neighbour]

    def frame(self, neighbour: Neighbour) -> str:
        """The colour that says whether they share a class."""
        if not self.label or not neighbour.label:
            return UNKNOWN
        return RIGHT if set(self.label) & set(neighbour.label) else WRONG


@dataclass(frozen=True)
class _Queries:
    """Some queries of one kind."""

    items: Items
    names: list[str]
    labels: list[list[str]]


def search(
    index: Annotated[
        Path, typer.Argument(metavar="INDEX", help="A folder of `build`.", show_default=False)
    ],
    query: Annotated[
        list[str],
        typer.Argument(
            metavar="QUERY...",
            help="Image files; folders of them; .npy or .npz of images or features; an item of a "
            "named set, such as digits[17].",
            show_default=False,
        ),
    ],
    k: Annotated[
        int | None, typer.Option("-k", "--k", help="Neighbours of each query. [default: 10]")
    ] = None,
    radius: Annotated[
        int | None,
        typer.Option("--radius", "-r", help="Instead: all items at a Hamming distance below this."),
    ] = None,
    show: Annotated[
        Path | None,
        typer.Option(help=".png for a picture of the queries and their neighbours."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Find the nearest images of an index, by the Hamming distance of their codes, exactly.

    Of equal distances those come first that were added first, in both the table and the picture.
    """
    console, errors = Console(), Console(stderr=True)
    with reported():
        if k is not None and radius is not None:
            raise InputError("-k and --radius exclude each other; leave one out")
        for option, value in (("-k", k), ("--radius", radius)):
            if value is not None and value < 1:
                raise InputError(f"{option} {value}: expected at least 1")
        if show is not None:
            check_file("--show", show, (".png",), overwrite)
        require_torch()
        stored = _load(index)
        of_items = _labels(index, stored)
        queries = list(_queries(query, stored, of_items))
        found = [
            each
            for some in queries
            for each in _search(index, stored, some, of_items, 10 if k is None else k, radius)
        ]
        if show is not None:
            _show(found, queries, show)
            if len(found) > MOST_QUERIES or any(
                len(each.neighbours) > MOST_NEIGHBOURS for each in found
            ):
                note(
                    errors,
                    f"{show} has the first {MOST_QUERIES} queries and {MOST_NEIGHBOURS} neighbours "
                    "of each",
                )
        if as_json:
            # Not by rich, which would break lines.
            print(json.dumps({"queries": [asdict(each) for each in found]}, indent=1))
        else:
            console.print(_table(found))


def _load(folder: Path) -> EncodedIndex:
    from safetensors import SafetensorError

    try:
        return EncodedIndex.load(folder)
    except FileNotFoundError as error:
        raise InputError(f"{error}: `faiss-dmih build` makes one") from error
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{folder} is damaged, build it anew ({error!r})") from error


def _labels(folder: Path, stored: EncodedIndex) -> list[list[str]]:
    """Classes of each item of the index."""
    if not (folder / ITEMS).is_file():  # made in Python
        return [[] for _ in range(stored.ntotal)]
    labels: list[list[str]] = json.loads((folder / ITEMS).read_text())["labels"]
    if len(labels) != stored.ntotal:
        raise InputError(
            f"{folder}/{ITEMS} has labels of {len(labels)} items, expected {stored.ntotal}: build "
            "the index anew"
        )
    return labels


def _queries(
    arguments: Sequence[str], stored: EncodedIndex, of_items: list[list[str]]
) -> Iterator[_Queries]:
    """In the order in which they are given."""
    known = dict(zip(stored.names or [], of_items, strict=False))
    classes = {name for label in of_items for name in label}

    def files(paths: Sequence[Path]) -> _Queries:
        names = [str(path.resolve()) for path in paths]
        labels = [
            known.get(name)
            or [folder for folder in [path.resolve().parent.name] if folder in classes]
            for name, path in zip(names, paths, strict=True)
        ]
        # Absolute paths: whatever they are joined to.
        items = Images.of("queries", ImageFiles(Path("/"), names))
        return _Queries(items, list(map(str, paths)), labels)

    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            images = image_folder(path, labels=False)
            yield files([Path(images.item_name(i)) for i in range(len(images))])
        elif path.suffix.lower() in EXTENSIONS:
            if not path.is_file():
                raise InputError(f"{argument}: there is no such image")
            yield files([path])
        else:
            spec, row = place(argument) or (argument, None)
            data = _opened(spec)
            if row is not None and row >= len(data.whole):
                raise InputError(f"{argument}: {spec} has the items 0 to {len(data.whole) - 1}")
            rows = list(range(len(data.whole))) if row is None else [row]
            labels = [data.label(row) for row in rows]
            yield _Queries(data.whole[rows], [data.name(row) for row in rows], labels)


@cache
def _opened(spec: str) -> Source:
    return open_source(spec)


def _search(
    folder: Path,
    stored: EncodedIndex,
    queries: _Queries,
    of_items: list[list[str]],
    k: int,
    radius: int | None,
) -> Iterator[Found]:
    vectors = stored.encoder.trunk.preprocessing is None
    x = encoder_input(queries.items, vectors=vectors, who=f"the index {folder}")
    try:
        if radius is None:
            D, I = stored.search(x, k)
            answers = [(d[i >= 0], i[i >= 0]) for d, i in zip(D, I, strict=True)]
        else:
            lims, D_all, I_all = stored.range_search(x, radius)
            answers = []
            for start, end in zip(lims[:-1].tolist(), lims[1:].tolist(), strict=True):
                order = np.argsort(D_all[start:end], kind="stable")
                answers.append((D_all[start:end][order], I_all[start:end][order]))
    except StaleCodes as error:
        raise InputError(f"{folder}: {error}; or build the index anew") from error
    names = stored.names
    at = {int(id): position for position, id in enumerate(stored.ids.tolist())}
    for (d, ids), query, label in zip(answers, queries.names, queries.labels, strict=True):
        places = [at[int(id)] for id in ids]
        neighbours = [
            Neighbour(rank, int(d[rank - 1]), int(id), names[p] if names else str(id), of_items[p])
            for rank, (id, p) in enumerate(zip(ids, places, strict=True), start=1)
        ]
        yield Found(query, label, neighbours)


_STYLES = {RIGHT: "green", WRONG: "red", UNKNOWN: ""}


def _table(found: Sequence[Found]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("query", overflow="fold", ratio=2)
    for heading in ("rank", "distance", "id"):
        table.add_column(heading, justify="right")
    with_labels = any(neighbour.label for each in found for neighbour in each.neighbours)
    if with_labels:
        table.add_column("label", overflow="fold")
    table.add_column("item", overflow="fold", ratio=3)
    for each in found:
        title = Text(each.query + (f" ({', '.join(each.label)})" if each.label else ""))
        if not each.neighbours:
            table.add_row(title, "", "", "", *([""] * with_labels), Text("nothing", style="dim"))
        for neighbour in each.neighbours:
            label = Text(", ".join(neighbour.label), style=_STYLES[each.frame(neighbour)])
            table.add_row(
                title if neighbour.rank == 1 else "",
                *map(str, (neighbour.rank, neighbour.distance, neighbour.id)),
                *([label] if with_labels else []),
                Text(_short(neighbour.name)),
                end_section=neighbour is each.neighbours[-1],
            )
    return table


def _short(name: str) -> str:
    """A path below the working directory as seen from there."""
    path = Path(name)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else name


def _show(found: Sequence[Found], queries: Sequence[_Queries], path: Path) -> None:
    every = [(some.items, i) for some in queries for i in range(len(some.names))]
    rows = []
    for each, (items, i) in list(zip(found, every, strict=True))[:MOST_QUERIES]:
        query = Tile(_pixels(items, i), Path(each.query).name, ", ".join(each.label))
        tiles = [
            Tile(
                _pixels(*_item(neighbour.name)),
                f"distance {neighbour.distance}",
                ", ".join(neighbour.label) or Path(neighbour.name).name,
                each.frame(neighbour),
            )
            for neighbour in each.neighbours[:MOST_NEIGHBOURS]
        ]
        rows.append(Row(query, tiles))
    write_picture(rows, path)


def _item(name: str) -> tuple[Items, int]:
    """Where an item of the index is, by its name."""
    if (where := place(name)) is not None:
        data = _opened(where[0])
        if where[1] >= len(data.whole):
            raise InputError(f"{name} is not there any more: build the index anew")
        return data.whole, where[1]
    return Images.of("neighbours", ImageFiles(Path("/"), [name])), 0


def _pixels(items: Items, i: int) -> Any:
    if not isinstance(items, Images):
        raise InputError(f"--show: {items.name} holds vectors, which cannot be shown")
    return items[i]

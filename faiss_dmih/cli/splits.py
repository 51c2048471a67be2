"""Which items an encoder was trained on, kept with it, so that no evaluation asks for these."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faiss_dmih.cli.sources import Source
from faiss_dmih.data import PROTOCOLS, InputError, Split, paper_split, share_of_classes, split

FILE = "split.json"
FORMAT, VERSION = "faiss_dmih split", 1
QUERY_SHARE = 0.1
PARTS = ("database", "queries", "train", "validation")


@dataclass(frozen=True)
class Drawn:
    """A split of a source, in the numbers of all its items, readable or not."""

    source: str
    identity: str
    split: Split

    def save(self, path: Path) -> None:
        """As JSON."""
        rows = {part: getattr(self.split, part).tolist() for part in PARTS}
        said = {"format": FORMAT, "version": VERSION, "source": self.source}
        path.write_text(json.dumps({**said, "identity": self.identity, **rows}) + "\n")

    @classmethod
    def load(cls, path: Path) -> Drawn:
        """Raises `InputError`, naming the file, for what save() has not written."""
        try:
            said = json.loads(path.read_text())
            if (said["format"], said["version"]) != (FORMAT, VERSION):
                raise ValueError(f"format {said['format']!r} version {said['version']!r}")
            parts = Split(*(said[part] for part in PARTS))
            return cls(said["source"], said["identity"], parts)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is no split of this version ({error!r})") from error

    def is_of(self, source: Source, where: Path) -> bool:
        """Whether `source` is what was split. Raises `InputError` where it was, but has changed."""
        if self.identity == source.identity:
            return True
        if self.source != source.spec:
            return False
        raise InputError(
            f"{source.spec} has other items or labels than when {where} was trained on it, so it "
            "is not known which of them are queries: train again"
        )


def draw(
    source: Source,
    *,
    seed: int,
    queries_per_class: int | None = None,
    train_per_class: int | None = None,
    validation: float = 0.0,
) -> Drawn:
    """The papers' protocol for named sets; otherwise a tenth of each class are queries, and all
    else is database and trained on. Numbers per class override both. `validation` is the share of
    the training items that is held back. Raises `InputError`."""
    if not 0 <= validation < 1:
        raise InputError(f"--validation {validation:g}: expected a share, 0 to below 1")
    items, labels = source.items, source.known_labels

    def drawn(count: int) -> Split:
        options: dict[str, Any] = {"seed": seed, "validation": count}
        if items.name in PROTOCOLS and queries_per_class is None and train_per_class is None:
            return paper_split(items, **options)
        options |= {"classes": items.classes, "train_per_class": train_per_class}
        if queries_per_class is not None:
            return split(labels, queries_per_class=queries_per_class, **options)
        queries = share_of_classes(labels, QUERY_SHARE, seed=seed)
        return split(labels, queries=queries, **options)

    parts = drawn(0)
    if not len(parts.queries) or not len(parts.train):
        raise InputError(
            f"{source.spec}: of {len(items):,} items {len(parts.queries):,} would be queries and "
            f"{len(parts.train):,} trained on, expected some of each: there have to be classes of "
            "two images and more"
        )
    if validation:
        # Drawn from the same items: the draw for validation is the last one.
        parts = drawn(max(1, int(validation * len(parts.train))))
    numbers = (items.rows[getattr(parts, part)] for part in PARTS)
    return Drawn(source.spec, source.identity, Split(*numbers))

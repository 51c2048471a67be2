"""What goes wrong when an index lies on several machines."""

from __future__ import annotations

from collections.abc import Mapping


class LostChanges(RuntimeError):
    """Changes since the last ``commit`` are gone with the process that had them.

    Every call raises it until ``rollback`` makes the last commit the state of all shards.

    Attributes:
        shard: its number.
        added: ranges (first, last) of ids whose codes are lost; both ends are in them.
        removed: how many ids' removal is lost.
    """

    def __init__(self, shard: int, added: tuple[tuple[int, int], ...], removed: int) -> None:
        super().__init__(shard, added, removed)
        self.shard, self.added, self.removed = shard, added, removed

    def __str__(self) -> str:
        ranges = ", ".join(f"{first} to {last}" for first, last in self.added)
        what = [f"codes added with ids {ranges}"] if ranges else []
        what += [f"the removal of {self.removed} ids"] if self.removed else []
        return (
            f"shard {self.shard} was restarted and has lost what was not committed: "
            f"{' and '.join(what) or 'changes'}; call rollback(), then make the changes since the "
            "last commit again"
        )


class ShardsMissing(RuntimeError):
    """Shards that did not answer in time, or cannot be restarted.

    Attributes:
        shards: by number, why.
    """

    def __init__(self, shards: Mapping[int, str]) -> None:
        super().__init__(dict(shards))
        self.shards = dict(shards)

    def __str__(self) -> str:
        why = "; ".join(f"shard {number}: {reason}" for number, reason in self.shards.items())
        return f"no answer from {why} (allow_partial=True answers without them)"


class CommitConflict(RuntimeError):
    """Somebody else has committed to the same folder since it was opened."""

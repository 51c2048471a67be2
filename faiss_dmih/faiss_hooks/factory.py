"""`index_binary_factory` and `downcast_IndexBinary`, for ours.

`"BDMIH"` is an IndexDMIH, `"BDMIH4"` one whose four tables cut the code evenly; `"IDMap,BDMIH"`,
`"IDMap2,BDMIH"` and the same with the map behind are maps of ids over it, which own it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from faiss_dmih import composites
from faiss_dmih.codes import check_d
from faiss_dmih.index import IndexDMIH
from faiss_dmih.options import MAX_SUBSTRING_BITS, even_cuts

_MAPS = {"IDMap": composites.IDMAP, "IDMap2": composites.IDMAP2}


def _factory(original: Callable[..., Any], faiss: Any) -> Callable[..., Any]:
    def index_binary_factory(d: int, description: str, own_invlists: bool = True) -> Any:
        found = re.fullmatch(
            r"(?:(IDMap2?),)?BDMIH([0-9]*)(?:,(IDMap2?))?",
            description if isinstance(description, str) else "",
        )
        if found is None or (found[1] and found[3]):
            return original(d, description, own_invlists)
        index = IndexDMIH(d, cuts=_cuts(d, int(found[2])) if found[2] else None)
        kind = _MAPS.get(found[1] or found[3])
        if kind is None:
            return index
        return composites.put_together(composites.Node(kind, index.d), [index])

    return index_binary_factory


def _cuts(d: int, tables: int) -> tuple[int, ...]:
    d = check_d(d)
    if not -(-d // MAX_SUBSTRING_BITS) <= tables <= d:
        raise ValueError(
            f"BDMIH{tables} of {d} bits: tables of 1 to {MAX_SUBSTRING_BITS} bits are "
            f"{-(-d // MAX_SUBSTRING_BITS)} to {d}; BDMIH alone chooses their number"
        )
    return even_cuts(d, tables)


def _downcast(original: Callable[..., Any], faiss: Any) -> Callable[..., Any]:
    def downcast_IndexBinary(index: Any) -> Any:
        if isinstance(index, IndexDMIH):
            return index
        ours = composites.as_dmih(index)
        return original(index) if ours is None else ours

    return downcast_IndexBinary


HOOKS = {"index_binary_factory": _factory, "downcast_IndexBinary": _downcast}

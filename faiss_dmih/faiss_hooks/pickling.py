"""Pickling and copying FAISS's composites that hold one of ours.

FAISS's binary indexes cannot be pickled ("cannot pickle SwigPyObject"), and those without ours in
them still cannot: whoever unpickles them needs no faiss_dmih, and gets none by surprise. Ours
reduce to a function of this package, so that unpickling imports it.
"""

from __future__ import annotations

import copyreg
from typing import Any

import faiss

from faiss_dmih import composites, storage


def install() -> None:
    """Register the composites' classes with copyreg."""
    for kind in (*composites.CLASSES, faiss.IndexBinary):
        copyreg.pickle(kind, _reduce)


def _reduce(index: Any) -> Any:
    if composites.holds_dmih(index):
        return storage.deserialize, (storage.serialize(index),)
    return index.__reduce_ex__(2)  # as if nothing were registered

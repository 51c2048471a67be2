"""FAISS's composites of binary indexes, taken apart and put together again.

Composites that come back own what is in them, as those that FAISS reads do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import faiss
import numpy as np

from faiss_dmih import _engine
from faiss_dmih.index import IndexDMIH

T = TypeVar("T")
DMIH, FAISS = "dmih", "faiss"
IDMAP, IDMAP2, SHARDS, REPLICAS, IVF = "idmap", "idmap2", "shards", "replicas", "ivf"
SUCCESSIVE_IDS = 2
MAX_DEPTH = 16

# The first that fits is it: an IDMap2 is an IDMap, too.
CLASSES = {
    faiss.IndexBinaryIDMap2: IDMAP2,
    faiss.IndexBinaryIDMap: IDMAP,
    faiss.IndexBinaryShards: SHARDS,
    faiss.IndexBinaryReplicas: REPLICAS,
    faiss.IndexBinaryIVF: IVF,
}
_original_downcast = getattr(faiss.downcast_IndexBinary, "__wrapped__", faiss.downcast_IndexBinary)


@dataclass(frozen=True)
class Node:
    """An index without those in it.

    ``payload``: the IndexDMIH of a `dmih`; otherwise bytes as a NumPy array or None.
    """

    kind: str
    d: int
    flags: int = 0
    payload: Any = None


def as_dmih(index: Any) -> IndexDMIH | None:
    """The index as an IndexDMIH, if that is what it is, however FAISS has wrapped it."""
    if isinstance(index, IndexDMIH):
        return index
    if isinstance(index, faiss.IndexBinary) and _engine.is_dmih(index):
        return IndexDMIH._of(index.this)
    return None


def kind_of(index: Any) -> str:
    """`dmih`, the kind of a composite, or `faiss` for all else."""
    if as_dmih(index) is not None:
        return DMIH
    return next((kind for cls, kind in CLASSES.items() if isinstance(index, cls)), FAISS)


def children_of(index: Any) -> list[Any]:
    """The indexes in a composite, as the classes they are of."""
    kind = kind_of(index)
    if kind in (IDMAP, IDMAP2):
        inner = [index.index]
    elif kind == IVF:
        inner = [index.quantizer]
    elif kind in (SHARDS, REPLICAS):
        inner = [index.at(i) for i in range(index.count())]
    else:
        inner = []
    return [as_dmih(child) or _original_downcast(child) for child in inner if child is not None]


def holds_dmih(index: Any, depth: int = 0) -> bool:
    """Whether it is an IndexDMIH, or a composite with one somewhere in it."""
    if not isinstance(index, faiss.IndexBinary):
        return False
    check_depth(depth)
    return as_dmih(index) is not None or any(
        holds_dmih(child, depth + 1) for child in children_of(index)
    )


def held(index: Any, work: Callable[[], T]) -> T:
    """Calls ``work()`` while nobody can change the indexes of ours that are in ``index``. Nobody
    guards what FAISS's composites keep beside them."""
    return _engine.hold(tuple(_dmihs_of(index)), work)


def _dmihs_of(index: Any, depth: int = 0) -> Iterator[IndexDMIH]:
    check_depth(depth)
    ours = as_dmih(index)
    if ours is not None:
        yield ours
    for child in children_of(index):
        yield from _dmihs_of(child, depth + 1)


def check_depth(depth: int) -> None:
    """ValueError where indexes are nested deeper than anybody nests them."""
    if depth >= MAX_DEPTH:
        raise ValueError(f"indexes are nested more than {MAX_DEPTH} deep")


def take_apart(index: Any) -> tuple[Node, list[Any]]:
    """A node and what is in it. Composites without ours are FAISS's, as a whole."""
    kind = kind_of(index)
    ours = as_dmih(index)
    if ours is not None:
        return Node(DMIH, index.d, 0, ours), []
    if kind == FAISS or not holds_dmih(index):
        return Node(FAISS, index.d, 0, faiss.serialize_index_binary(index)), []
    children = children_of(index)
    if kind in (IDMAP, IDMAP2):
        ids = faiss.vector_to_array(index.id_map)
        return Node(kind, index.d, 0, ids.view(np.uint8)), children
    if kind == IVF:
        return Node(kind, index.d, 0, faiss.serialize_index_binary(_without_quantizer(index))), (
            children
        )
    successive = kind == SHARDS and index.successive_ids
    return Node(kind, index.d, SUCCESSIVE_IDS if successive else 0), children


def put_together(node: Node, children: Sequence[Any]) -> Any:
    """What take_apart() has taken apart. The composite owns its children.

    Raises:
        ValueError: they do not go together.
    """
    if node.kind == DMIH:
        return node.payload
    if node.kind == FAISS:
        index = faiss.deserialize_index_binary(node.payload)
        return _check_d(index, node)
    if node.kind not in CLASSES.values():
        raise ValueError(f"unknown kind of index {node.kind!r}")
    for child in children:
        _check_d(child, node)
    if node.kind in (SHARDS, REPLICAS):
        return _threaded(node, children)
    if len(children) != 1:
        raise ValueError(f"an {node.kind} of {len(children)} indexes, expected one")
    return _inverted_file(node, children[0]) if node.kind == IVF else _id_map(node, children[0])


def clone(index: Any) -> Any:
    """A copy of everything, in memory."""
    return held(index, lambda: _clone(index))


def _clone(index: Any) -> Any:
    node, children = take_apart(index)
    if node.kind == DMIH:
        return node.payload.copy()
    return put_together(node, [_clone(child) for child in children])


def _check_d(index: Any, node: Node) -> Any:
    if index.d != node.d:
        raise ValueError(f"an index of {index.d} bits in a composite ({node.kind}) of {node.d}")
    return index


def _give(child: Any) -> Any:
    """The child, which no longer belongs to Python."""
    child.this.disown()
    return child


def _id_map(node: Node, child: Any) -> Any:
    payload = node.payload if node.payload is not None else np.empty(0, np.uint8)
    if payload.size != 8 * child.ntotal:
        raise ValueError(
            f"an {node.kind} of {payload.size} bytes of ids, expected {8 * child.ntotal} for "
            f"{child.ntotal} codes"
        )
    cls = faiss.IndexBinaryIDMap2 if node.kind == IDMAP2 else faiss.IndexBinaryIDMap
    index = cls(faiss.IndexBinaryFlat(node.d))  # FAISS makes maps over empty indexes only
    faiss.copy_array_to_vector(payload.view(np.int64), index.id_map)
    index.index = child
    _give(child)
    index.own_fields = True
    index.referenced_objects = []
    index.ntotal = child.ntotal
    index.is_trained = child.is_trained
    if node.kind == IDMAP2:
        index.construct_rev_map()
    return index


def _threaded(node: Node, children: Sequence[Any]) -> Any:
    if node.kind == REPLICAS:
        if len({child.ntotal for child in children}) > 1:
            raise ValueError(f"replicas of {[child.ntotal for child in children]} codes")
        index = faiss.IndexBinaryReplicas(node.d)
    else:
        index = faiss.IndexBinaryShards(node.d, False, bool(node.flags & SUCCESSIVE_IDS))
    index.own_indices = True
    for child in children:
        index.addIndex(_give(child))
    index.referenced_objects = []
    return index


def _without_quantizer(index: Any) -> Any:
    """The same inverted file for FAISS to write, with an empty quantizer of its own kind."""
    shell = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(index.d), index.d, index.nlist)
    shell.replace_invlists(index.invlists, False)
    shell.direct_map = index.direct_map
    shell.ntotal, shell.is_trained, shell.nprobe = index.ntotal, index.is_trained, index.nprobe
    return shell


def _inverted_file(node: Node, quantizer: Any) -> Any:
    index = faiss.deserialize_index_binary(node.payload)
    if not isinstance(index, faiss.IndexBinaryIVF):
        raise ValueError(f"an inverted file is a {type(index).__name__}")
    _check_d(index, node)
    if quantizer.ntotal != index.nlist and index.is_trained:
        raise ValueError(f"{quantizer.ntotal} centroids for {index.nlist} inverted lists")
    placeholder = index.quantizer
    index.quantizer = quantizer
    _give(quantizer)
    # Not by acquire(): SWIG would then count an owner of its module less than there are.
    faiss.IndexBinary.__swig_destroy__(placeholder)
    return index

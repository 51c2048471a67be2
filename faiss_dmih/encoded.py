"""An encoder and an index as one thing: images or vectors in, neighbours out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from faiss_dmih import codes
from faiss_dmih.folders import atomic_folder
from faiss_dmih.index import IndexDMIH
from faiss_dmih.storage import read_index, write_index

if TYPE_CHECKING:
    from faiss_dmih.encoders import Encoder

FORMAT, VERSION = "faiss_dmih encoded index", 2


class StaleCodes(ValueError):
    """The encoder has learnt since the codes were made: `EncodedIndex.upgrade` makes them anew."""


class EncodedIndex:
    """Search by images (or whatever the encoder takes) instead of codes.

    Args:
        encoder: a fitted encoder of ``faiss_dmih.encoders``.
        index: an empty index of as many bits; by default ``IndexDMIH`` with the encoder's cuts, for
            which its codes were trained.

    Raises:
        ValueError: the index holds codes, or is for codes of another length.
    """

    def __init__(self, encoder: Encoder, index: Any = None) -> None:
        if index is None:
            index = IndexDMIH(encoder.bits, cuts=encoder.cuts)
        if index.d != encoder.bits:
            raise ValueError(
                f"the index is for codes of {index.d} bits, the encoder makes {encoder.bits}"
            )
        if index.ntotal > 0:
            raise ValueError(f"got an index of {index.ntotal} codes, expected an empty one")
        self.encoder, self.index = encoder, index
        self._ids: NDArray[np.int64] = np.empty(0, np.int64)
        self._codes: NDArray[np.uint8] = np.empty((0, encoder.bits // 8), np.uint8)
        self._names: list[str] | None = None
        self._fingerprints = encoder.fingerprints

    @property
    def ntotal(self) -> int:
        """Number of items."""
        return len(self._ids)

    @property
    def ids(self) -> NDArray[np.int64]:
        """Of all items, in the order in which they were added."""
        return self._ids.copy()

    @property
    def codes(self) -> NDArray[np.uint8]:
        """Of all items, packed uint8 (ntotal, bits / 8), in the order in which they were added."""
        return self._codes.copy()

    @property
    def names(self) -> list[str] | None:
        """Of all items, in the order in which they were added; None if they were given none."""
        return None if self._names is None else self._names.copy()

    def add(
        self,
        x: Any,
        ids: Any = None,
        *,
        names: Sequence[str] | None = None,
        progress: bool = False,
    ) -> None:
        """Encodes and adds items, all or none of them.

        Args:
            x: as ``encoder.encode`` takes it.
            ids: int (n,); by default they count on from ntotal.
            names: n of them, such as the paths of files: for all items or for none.
            progress: whether to show a bar.

        Raises:
            StaleCodes: the encoder has changed since the last add.
            ValueError: there are not as many ids or names as items, or names for some items only.
        """
        self._check_fresh()
        if self.ntotal and (names is None) != (self._names is None):
            have, got = ("no ", "with") if self._names is None else ("", "without")
            raise ValueError(f"the {self.ntotal} items have {have}names, got items {got} names")
        packed = self.encoder.encode(x, progress=progress)
        if names is not None and len(names) != len(packed):
            raise ValueError(f"names: got {len(names)}, expected {len(packed)}: one each")
        new = np.arange(self.ntotal, self.ntotal + len(packed)) if ids is None else np.asarray(ids)
        if new.shape != (len(packed),) or new.dtype.kind not in "iu":
            raise ValueError(
                f"ids: got {new.dtype} {new.shape}, expected integers ({len(packed)},): one each"
            )
        all_codes = np.concatenate([self._codes, packed])
        all_ids = np.concatenate([self._ids, new.astype(np.int64)])
        all_names = None if names is None else [*(self._names or ()), *map(str, names)]
        self.index.add(packed)
        self._codes, self._ids, self._names = all_codes, all_ids, all_names

    def search(self, x: Any, k: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The k nearest items: Hamming distances D (nq, k) int32 and ids I (nq, k) int64, as
        ``IndexDMIH.search`` has them; of ties those added first. Raises StaleCodes."""
        self._check_fresh()
        D, at = self.index.search(self.encoder.encode(x), k)
        return D, np.append(self._ids, -1)[at]

    def range_search(
        self, x: Any, radius: int
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32], NDArray[np.int64]]:
        """All items at a Hamming distance below ``radius``: lims, D and I, in the order in which
        they were added. Raises StaleCodes."""
        self._check_fresh()
        lims, D, at = self.index.range_search(self.encoder.encode(x), radius)
        return lims, D, self._ids[at]

    def rerank(
        self, x: Any, k: int, *, candidates: int, features: Any = None, queries: Any = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k best of the nearest ``candidates`` by a finer distance.

        Without features that is ||h - b||^2 / 4 of the query's relaxed code h and the item's code
        b, which tells codes apart that are as many bits away. With them it is ||f - g||^2.

        Args:
            x: queries, as for ``search``.
            k: items to return, at most candidates. candidates: to look at.
            features: float (ntotal, dim) of the items, in the order in which they were added.
            queries: float (nq, dim) of the queries.

        Returns:
            distances float32 (nq, k) and ids (nq, k), by (distance, order of adding).
        """
        self._check_fresh()
        if not 1 <= k <= candidates:
            raise ValueError(f"got k = {k} of {candidates} candidates, expected 1 to as many")
        if (features is None) != (queries is None):
            raise ValueError("features and queries go together: of the items, and of the queries")
        relaxed = self.encoder.relaxed(x)
        _, at = self.index.search(codes.pack(relaxed > 0), candidates)
        at = np.sort(at, axis=1)  # of equal distances, what was added first
        if features is None:
            theirs = 2.0 * codes.unpack(self._codes[at].reshape(-1, self._codes.shape[1])) - 1
            theirs = theirs.reshape(*at.shape, -1)
            ours, scale = relaxed, 0.25
        else:
            stored, ours, scale = np.asarray(features), np.asarray(queries), 1.0
            if len(stored) != self.ntotal or len(ours) != len(relaxed):
                raise ValueError(
                    f"got features of {len(stored)} items and {len(ours)} queries, expected "
                    f"{self.ntotal} and {len(relaxed)}"
                )
            theirs = stored[at]
        finer = scale * ((theirs - ours[:, None, :]) ** 2).sum(-1)
        finer = np.where(at < 0, np.inf, finer).astype(np.float32)
        best = np.argsort(finer, axis=1, kind="stable")[:, :k]
        return (
            np.take_along_axis(finer, best, 1),
            np.append(self._ids, -1)[np.take_along_axis(at, best, 1)],
        )

    def upgrade(self, x: Any, *, progress: bool = False) -> int:
        """Makes codes anew after the encoder's ``update`` or ``extend``: only the bits of the
        sub-models that have changed, or are new. The index is a new one, of the default kind.

        Args:
            x: all items, in the order in which they were added.

        Returns:
            how many bits of each code were made.
        """
        now = self.encoder.fingerprints
        changed = [n for n, mark in enumerate(now) if self._fingerprints[n : n + 1] != (mark,)]
        if not changed and len(now) == len(self._fingerprints):
            return 0
        fresh = codes.unpack(self.encoder.encode(x, progress=progress, parts=changed))
        if len(fresh) != self.ntotal:
            raise ValueError(f"got {len(fresh)} items, expected the {self.ntotal} that were added")
        bits = np.zeros((self.ntotal, self.encoder.bits), np.bool_)
        kept = codes.unpack(self._codes)
        bits[:, : kept.shape[1]] = kept
        at = made = 0
        for number, (length, _) in enumerate(now):
            if number in changed:
                bits[:, at : at + length] = fresh[:, made : made + length]
                made += length
            at += length
        index = IndexDMIH(self.encoder.bits, cuts=self.encoder.cuts)
        packed = codes.pack(bits)
        index.add(packed)
        self.index, self._codes, self._fingerprints = index, packed, now
        return made

    def save(self, folder: str | Path) -> None:
        """Encoder, index, codes, ids and names into one folder, all of it or nothing. An index on a
        GPU is saved as its copy in host memory."""
        index = self.index.to_cpu() if hasattr(self.index, "to_cpu") else self.index
        with atomic_folder(Path(folder)) as scratch:
            self.encoder.save(scratch / "encoder")
            write_index(index, scratch / "index.ibdm")
            np.save(scratch / "codes.npy", self._codes)
            np.save(scratch / "ids.npy", self._ids)
            if self._names is not None:
                (scratch / "names.json").write_text(json.dumps(self._names, indent=0) + "\n")
            said = {"format": FORMAT, "version": VERSION, "fingerprints": self._fingerprints}
            (scratch / "index.json").write_text(json.dumps(said, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> EncodedIndex:
        """From the folder that save() has made. Raises FileNotFoundError or ValueError, as
        ``load_encoder`` and ``read_index`` do, and ValueError where index, codes and ids do not
        belong together. Of a folder of version 1, which has no index in it, the index is a new one
        of the default kind."""
        from faiss_dmih.encoders import load_encoder

        source = Path(folder)
        if not (source / "index.json").is_file():
            raise FileNotFoundError(f"{source} holds no encoded index: there is no index.json")
        said = json.loads((source / "index.json").read_text())
        if said.get("format") != FORMAT or said.get("version") not in (1, VERSION):
            raise ValueError(
                f"{source}/index.json is of format {said.get('format')!r} version "
                f"{said.get('version')!r}, expected {FORMAT!r} version {VERSION}"
            )
        loaded = cls(load_encoder(source / "encoder"))
        packed = np.load(source / "codes.npy", allow_pickle=False)
        ids = np.load(source / "ids.npy", allow_pickle=False)
        marks = tuple((int(bits), str(mark)) for bits, mark in said["fingerprints"])
        width = sum(bits for bits, _ in marks) // 8
        if packed.dtype != np.uint8 or packed.shape != (len(ids), width):
            raise ValueError(
                f"{source}/codes.npy holds {packed.dtype} {packed.shape}, expected uint8 "
                f"({len(ids)}, {width}), as ids.npy and index.json say"
            )
        if said["version"] == VERSION:
            loaded.index = read_index(source / "index.ibdm")
            if (loaded.index.ntotal, loaded.index.d) != (len(ids), 8 * width):
                raise ValueError(
                    f"{source}/index.ibdm holds {loaded.index.ntotal} codes of {loaded.index.d} "
                    f"bits, expected {len(ids)} of {8 * width}, as codes.npy has them"
                )
        elif packed.shape[1] == loaded.encoder.bits // 8:
            loaded.index.add(packed)
        loaded._codes, loaded._ids, loaded._fingerprints = packed, ids.astype(np.int64), marks
        if (source / "names.json").is_file():
            names = json.loads((source / "names.json").read_text())
            if len(names) != len(ids):
                raise ValueError(
                    f"{source}/names.json holds {len(names)} names, expected {len(ids)}, as "
                    "ids.npy says"
                )
            loaded._names = names
        return loaded

    def _check_fresh(self) -> None:
        now = self.encoder.fingerprints
        if now != self._fingerprints:
            changed = [
                number
                for number in range(max(len(now), len(self._fingerprints)))
                if now[number : number + 1] != self._fingerprints[number : number + 1]
            ]
            raise StaleCodes(
                f"sub-models {changed} of the encoder are not those that the {self.ntotal} codes "
                "were made by: call upgrade with all items"
            )

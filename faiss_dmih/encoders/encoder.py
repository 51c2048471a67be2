"""What every encoder is: a frozen trunk, heads, and the cuts that its codes were trained for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from faiss_dmih import codes
from faiss_dmih.encoders.backbones import Preprocessing, make_backbone
from faiss_dmih.encoders.devices import State, device_of, is_unchanged, state_of
from faiss_dmih.encoders.items import Items
from faiss_dmih.encoders.nets import Head, Trunk, trunk_and_head
from faiss_dmih.encoders.objective import Objective
from faiss_dmih.folders import atomic_folder

if TYPE_CHECKING:
    from faiss_dmih.encoders.training import Training

FORMAT, VERSION = "faiss_dmih encoder", 1

KINDS: dict[str, type[Encoder]] = {}
"""Encoders by the name that their folder gives."""


def register(cls: type[Encoder]) -> type[Encoder]:
    """Makes `load_encoder` know the class."""
    KINDS[cls.__name__] = cls
    return cls


@dataclass(frozen=True)
class Inputs:
    """What a head is trained on: n of them, by their numbers."""

    n: int
    batch: Callable[[Sequence[int] | NDArray[np.int64]], torch.Tensor]


@dataclass(frozen=True)
class Architecture:
    """Backbone of all heads, the stage up to which it is frozen and shared, where its weights came
    from (`pretrained` as for make_backbone; nothing is fetched to load an encoder), and the kind of
    the heads."""

    backbone: str = "small"
    freeze: str | None = None
    pretrained: bool | str = False
    input_dim: int | None = None
    head: str = "tanh"

    def build(self, bits: int, *, halved: bool = False, pretrained: bool = True) -> Any:
        """Trunk and head, initialised by torch's generator."""
        weights = self.pretrained if pretrained else False
        backbone = make_backbone(
            self.backbone, input_dim=self.input_dim, pretrained=weights, halved=halved
        )
        return trunk_and_head(backbone, bits, self.freeze, self.head)


@dataclass
class Part:
    """One head and what its folder says of it."""

    head: Head
    halved: bool = False
    cuts: tuple[int, ...] = field(default=())

    _hashed: tuple[State, str] | None = field(default=None, repr=False)

    @property
    def fingerprint(self) -> str:
        """Of its weights: another one where a single bit differs. Hashed again only after they have
        changed, which torch counts: an index asks before every search."""
        now = state_of(self.head)
        if self._hashed is not None and is_unchanged(self._hashed[0], now):
            return self._hashed[1]
        digest = hashlib.sha256()
        for name, value in sorted(self.head.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        self._hashed = now, digest.hexdigest()[:16]
        return self._hashed[1]


class Encoder:
    """Images or vectors to packed codes. Made by fit() of a subclass, or by load_encoder()."""

    trunk: Trunk
    parts: list[Part]
    architecture: Architecture
    training: Training
    """Of heads; that of a loaded encoder is the usual one."""

    @property
    def is_fitted(self) -> bool:
        """Whether there are heads to encode with."""
        return hasattr(self, "parts") and len(self.parts) > 0

    @property
    def bits(self) -> int:
        """Length of the codes."""
        return sum(part.head.bits for part in self._fitted())

    @property
    def cuts(self) -> tuple[int, ...]:
        """Lengths of the substrings that the codes were trained for: ``IndexDMIH(cuts=...)``."""
        return tuple(cut for part in self._fitted() for cut in part.cuts)

    @property
    def fingerprints(self) -> tuple[tuple[int, str], ...]:
        """Of each head, in the order of their bits: how many, and a hash of its weights."""
        return tuple((part.head.bits, part.fingerprint) for part in self._fitted())

    def encode(
        self,
        x: Any,
        *,
        batch_size: int = 256,
        progress: bool = False,
        parts: Sequence[int] | None = None,
        device: str | torch.device | None = None,
    ) -> NDArray[np.uint8]:
        """Packed codes uint8 (n, bits / 8); bit b is the sign of output b.

        Args:
            x: images or vectors, as `Items` takes them.
            batch_size: items at a time.
            progress: whether to show a bar.
            parts: numbers of the heads to encode with; None: all.
            device: where, by torch's name. None: where it was trained, by its training's
                `accelerator`; after loading on a GPU if there is one. Last digits differ between
                kinds of devices, and with them, rarely, a bit: codes that are compared are better
                made on one kind.

        Raises:
            ValueError: the encoder was not fitted, its bits are not whole bytes, or ``x`` is of
                another kind than it was trained on.
        """
        relaxed = self.relaxed(
            x, batch_size=batch_size, progress=progress, parts=parts, device=device
        )
        return codes.pack(relaxed > 0)

    def transform(self, x: Any) -> NDArray[np.uint8]:
        """As `encode`: what `faiss_dmih.baselines` calls it."""
        return self.encode(x)

    def relaxed(
        self,
        x: Any,
        *,
        batch_size: int = 256,
        progress: bool = False,
        parts: Sequence[int] | None = None,
        device: str | torch.device | None = None,
    ) -> NDArray[np.float32]:
        """Relaxed codes float32 (n, bits) in [-1, 1]; those of `DeSH` and `DRSCH` are not within
        bounds. Arguments as for `encode`."""
        every = self._fitted()
        chosen = every if parts is None else [every[number] for number in parts]
        there = self._device() if device is None else torch.device(device)
        trunk, heads = self.trunk.on(there), [part.head.on(there).eval() for part in chosen]
        items = self.items(x)
        out = np.empty((len(items), sum(head.bits for head in heads)), np.float32)
        with torch.no_grad():
            for here, batch in _bar(items, batch_size, "encode", progress):
                features = trunk(batch.to(there))
                relaxed = torch.cat([head(features) for head in heads], 1)
                out[here.start : here.stop] = relaxed.cpu().numpy()
        return out

    def items(self, x: Any) -> Items:
        """`x` as this encoder's trunk takes it."""
        self._fitted()
        preprocessing = self.trunk.preprocessing
        items = Items(x, None if preprocessing is None else preprocessing.size)
        dim = self.architecture.input_dim
        if preprocessing is None and len(items) and items.batch([0]).shape[1] != dim:
            raise ValueError(
                f"got vectors of {items.batch([0]).shape[1]} dimensions, expected {dim}, which the "
                "encoder was trained on"
            )
        return items

    def inputs(self, items: Items, *, batch_size: int = 256, progress: bool = False) -> Inputs:
        """What heads are trained on: the trunk's features, computed once and kept in main memory;
        without a frozen part the items themselves, made into floats when they are asked for. Either
        is computed where the heads are trained."""
        there = self._device()
        trunk = self.trunk.on(there)
        if len(self.trunk.stages) == 0:
            near = items.in_memory()
            return Inputs(len(items), lambda at: trunk(near.batch(at).to(there)))
        batches = _bar(items, batch_size, "shared layers", progress)
        features = torch.cat([trunk(batch.to(there)).cpu() for _, batch in batches])
        return Inputs(len(items), lambda at: features[torch.as_tensor(np.asarray(at, np.int64))])

    def _device(self) -> torch.device:
        """Where heads are trained, and items encoded."""
        return device_of(self.training.accelerator)

    def _standardise(self, items: Items, *, batch_size: int = 4096) -> None:
        if self.trunk.preprocessing is None:
            starts = range(0, len(items), batch_size)
            self.trunk.standardise(
                items.batch(range(at, min(at + batch_size, len(items)))) for at in starts
            )

    def save(self, folder: str | Path) -> None:
        """Into a folder: encoder.json and weights as safetensors. All of it or nothing: what was
        there is replaced in one step at the end."""
        from safetensors.torch import save_file

        with atomic_folder(Path(folder)) as scratch:
            save_file(self.trunk.state_dict(), scratch / "trunk.safetensors")
            for number, part in enumerate(self._fitted()):
                weights = {k: v.contiguous() for k, v in part.head.state_dict().items()}
                save_file(weights, scratch / f"head-{number}.safetensors")
            (scratch / "encoder.json").write_text(json.dumps(self._description(), indent=2) + "\n")

    def _description(self) -> dict[str, Any]:
        preprocessing = self.trunk.preprocessing
        return {
            "format": FORMAT,
            "version": VERSION,
            "kind": type(self).__name__,
            "arguments": self._arguments(),
            "architecture": asdict(self.architecture),
            "preprocessing": None if preprocessing is None else asdict(preprocessing),
            "heads": [
                {
                    "bits": part.head.bits,
                    "cuts": part.cuts,
                    "halved": part.halved,
                    "fingerprint": part.fingerprint,
                }
                for part in self.parts
            ],
        }

    def _arguments(self) -> dict[str, Any]:
        """For JSON: what the constructor takes, but for the architecture and the training."""
        raise NotImplementedError

    def _fitted(self) -> list[Part]:
        if not self.is_fitted:
            raise ValueError(f"this {type(self).__name__} was not fitted: call fit or load_encoder")
        return self.parts


def load_encoder(folder: str | Path) -> Any:
    """An encoder from the folder that save() has made.

    Raises:
        FileNotFoundError: there is no encoder in the folder.
        ValueError: it is of another format or version, or its weights are not those it names.
    """
    from safetensors.torch import load_file

    source = Path(folder)
    if not (source / "encoder.json").is_file():
        raise FileNotFoundError(f"{source} holds no encoder: there is no encoder.json")
    said = json.loads((source / "encoder.json").read_text())
    if said.get("format") != FORMAT or said.get("version") != VERSION:
        raise ValueError(
            f"{source}/encoder.json is of format {said.get('format')!r} version "
            f"{said.get('version')!r}, expected {FORMAT!r} version {VERSION}"
        )
    if said["kind"] not in KINDS:
        raise ValueError(f"{source} holds a {said['kind']!r}, expected one of {sorted(KINDS)}")
    arguments = dict(said["arguments"])
    arguments["objective"] = Objective(**arguments["objective"])
    encoder = KINDS[said["kind"]](**arguments)
    encoder.architecture = Architecture(**said["architecture"])
    encoder.parts = []
    for number, description in enumerate(said["heads"]):
        trunk, head = encoder.architecture.build(
            description["bits"], halved=description["halved"], pretrained=False
        )
        _restore(head, load_file(source / f"head-{number}.safetensors"), source)
        part = Part(head.eval(), description["halved"], tuple(description["cuts"]))
        if part.fingerprint != description["fingerprint"]:
            raise ValueError(f"{source}/head-{number}.safetensors is not what encoder.json names")
        encoder.parts.append(part)
        if number == 0:
            encoder.trunk = trunk
    _restore(encoder.trunk, load_file(source / "trunk.safetensors"), source)
    if said["preprocessing"] is not None:
        values: Any = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in said["preprocessing"].items()
        }
        encoder.trunk.preprocessing = Preprocessing(**values)
    return encoder


def _restore(module: Any, state: dict[str, torch.Tensor], source: Path) -> None:
    expected = module.state_dict()
    differs = [
        key
        for key in sorted({*expected, *state})
        if key not in expected or key not in state or expected[key].shape != state[key].shape
    ]
    if differs:
        raise ValueError(
            f"{source} holds weights of another architecture than encoder.json names: "
            f"{len(differs)} are missing, unknown or of another shape, the first is {differs[0]!r}"
        )
    module.load_state_dict(state)


def _bar(
    items: Items, batch_size: int, what: str, progress: bool
) -> Iterator[tuple[range, torch.Tensor]]:
    """`items.batches`, with a bar if it is asked for."""
    batches = items.batches(batch_size)
    if not progress:
        return batches
    from tqdm.auto import tqdm

    shown: Callable[..., Any] = tqdm
    return iter(shown(batches, total=-(-len(items) // batch_size), desc=what, unit="batch"))

"""Backbones: nets up to their last features, as named stages.

A backbone is cut after any stage: what comes before can be frozen, and shared by several nets.

===============  ===========================================================  =========  ========
name             stages                                                       features   input
===============  ===========================================================  =========  ========
alexnet          conv1 .. conv5, fc6, fc7                                     4,096      224 px
resnet18, 50     conv1, layer1 .. layer4                                      512, 2048  224 px
squeezenet1_0    conv1, fire2 .. fire9                                        512        96 px
small            conv1, conv2, conv3, fc                                      256        32 px
features         fc                                                           512        a vector
===============  ===========================================================  =========  ========

The first four know ImageNet if asked to (`pretrained`). `small` is a net for images of 28 to 64
pixels; `features` takes embeddings that are there already.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from faiss_dmih.data.errors import DataUnavailable
from faiss_dmih.encoders._torchvision import import_torchvision

Stages = "OrderedDict[str, nn.Module]"


@dataclass(frozen=True)
class Preprocessing:
    """How images uint8 (n, height, width, 3) become a net's input: resized, scaled, normalised."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Float (n, 3, size, size)."""
        x = images.permute(0, 3, 1, 2).float()
        if x.shape[2:] != (self.size, self.size):
            x = nn.functional.interpolate(
                x, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False
            )
        if self.bgr:
            x = x.flip(1)
        mean, std = (
            torch.tensor(values).view(3, 1, 1).to(x.device) for values in (self.mean, self.std)
        )
        return (x - mean) / std


@dataclass(frozen=True)
class Backbone:
    """`stages` by name, in order, `width` features, and how images become input, or of how many
    dimensions vectors are."""

    stages: Any
    width: int
    preprocessing: Preprocessing | None
    input_dim: int | None = None

    def cut(self, after: str | None) -> tuple[nn.Sequential, nn.Sequential]:
        """The stages up to and including `after` (none for None), and those that follow."""
        names = list(self.stages)
        if after is not None and after not in names:
            raise ValueError(f"there is no stage {after!r} to cut after: the stages are {names}")
        at = 0 if after is None else names.index(after) + 1
        first = OrderedDict((name, self.stages[name]) for name in names[:at])
        second = OrderedDict((name, self.stages[name]) for name in names[at:])
        return nn.Sequential(first), nn.Sequential(second)


_IMAGENET = Preprocessing(224, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
# The original weights, of Caffe, take BGR in 0 to 255 minus the channel means.
_CAFFE = Preprocessing(96, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0), bgr=True)
_HALF = Preprocessing(32, (127.5, 127.5, 127.5), (63.75, 63.75, 63.75))


def make_backbone(
    name: str,
    *,
    input_dim: int | None = None,
    pretrained: bool | str | Path = False,
    halved: bool = False,
) -> Backbone:
    """A backbone by its name.

    Args:
        name: of the table above.
        input_dim: of the vectors, for `features`.
        pretrained: True downloads torchvision's ImageNet weights; a path names a file that holds
            them: `.npz` or `.safetensors`, by torchvision's keys. An `.npz` of squeezenet1_0 is
            taken to hold Caffe's original weights, whose input differs.
        halved: the last fully connected layer, or convolution, with half as many units: one of the
            ways in which the ensemble paper makes its nets differ.
    """
    if name not in _BACKBONES:
        raise ValueError(f"unknown backbone {name!r}: expected one of {', '.join(_BACKBONES)}")
    if name == "features":
        if input_dim is None:
            raise ValueError("the backbone 'features' needs input_dim, the length of the vectors")
        if pretrained:
            raise ValueError("the backbone 'features' has no pre-trained weights")
        width = 256 if halved else 512
        fc = nn.Sequential(nn.Linear(input_dim, width), nn.ReLU(), nn.Dropout(0.2))
        return Backbone(OrderedDict(fc=fc), width, None, input_dim)
    if name == "small":
        if pretrained:
            raise ValueError("the backbone 'small' has no pre-trained weights")
        return _small(halved)
    backbone: Backbone = _BACKBONES[name](pretrained, halved)
    return backbone


def _small(halved: bool) -> Backbone:
    def conv(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )

    width = 128 if halved else 256
    stages = OrderedDict(
        conv1=conv(3, 32),
        conv2=conv(32, 64),
        conv3=conv(64, 128),
        fc=nn.Sequential(nn.Flatten(), nn.Linear(128 * 4 * 4, width), nn.ReLU(), nn.Dropout(0.2)),
    )
    return Backbone(stages, width, _HALF)


def _alexnet(pretrained: bool | str | Path, halved: bool) -> Backbone:
    net = import_torchvision().models.alexnet()
    _load(net, "AlexNet", pretrained)
    f, c = net.features, net.classifier
    fc7, width = nn.Sequential(*c[3:6]), 4096
    if halved:
        fc7, width = nn.Sequential(nn.Dropout(), nn.Linear(4096, 2048), nn.ReLU()), 2048
    stages = OrderedDict(
        conv1=f[0:3],
        conv2=f[3:6],
        conv3=f[6:8],
        conv4=f[8:10],
        conv5=nn.Sequential(*f[10:13], net.avgpool, nn.Flatten()),
        fc6=nn.Sequential(*c[0:3]),
        fc7=fc7,
    )
    return Backbone(stages, width, _IMAGENET)


def _resnet(name: str, width: int) -> Callable[[bool | str | Path, bool], Backbone]:
    def make(pretrained: bool | str | Path, halved: bool) -> Backbone:
        net = getattr(import_torchvision().models, name)()
        _load(net, "ResNet" + name[6:], pretrained)
        last, out = [net.layer4, net.avgpool, nn.Flatten()], width
        if halved:
            last, out = [*last, nn.Linear(width, width // 2), nn.ReLU()], width // 2
        stages = OrderedDict(
            conv1=nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool),
            layer1=net.layer1,
            layer2=net.layer2,
            layer3=net.layer3,
            layer4=nn.Sequential(*last),
        )
        return Backbone(stages, out, _IMAGENET)

    return make


def _squeezenet(pretrained: bool | str | Path, halved: bool) -> Backbone:
    net = import_torchvision().models.squeezenet1_0()
    _load(net, "SqueezeNet1_0", pretrained)
    # conv1 relu pool | fire2 fire3 fire4 pool | fire5 fire6 fire7 fire8 pool | fire9
    f, width = net.features, 512
    last: list[nn.Module] = [f[12], nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if halved:
        last, width = [*last, nn.Linear(512, 256), nn.ReLU()], 256
    stages = OrderedDict(
        conv1=f[0:3],
        fire2=f[3],
        fire3=f[4],
        fire4=f[5:7],
        fire5=f[7],
        fire6=f[8],
        fire7=f[9],
        fire8=f[10:12],
        fire9=nn.Sequential(*last),
    )
    is_caffe = not isinstance(pretrained, bool) and str(pretrained).endswith(".npz")
    preprocessing = _CAFFE if is_caffe else Preprocessing(96, _IMAGENET.mean, _IMAGENET.std)
    return Backbone(stages, width, preprocessing)


_BACKBONES: dict[str, Any] = {
    "alexnet": _alexnet,
    "resnet18": _resnet("resnet18", 512),
    "resnet50": _resnet("resnet50", 2048),
    "squeezenet1_0": _squeezenet,
    "small": None,
    "features": None,
}
BACKBONES: Sequence[str] = tuple(_BACKBONES)


def _load(net: nn.Module, weights: str, pretrained: bool | str | Path) -> None:
    """Weights into a net of torchvision's; raises ValueError where they are of another one."""
    if pretrained is False:
        return
    if pretrained is True:
        enum = getattr(import_torchvision().models, f"{weights}_Weights").IMAGENET1K_V1
        try:
            state = enum.get_state_dict(progress=True, check_hash=True)
        except OSError as error:  # urllib's URLError is one
            raise DataUnavailable(
                f"ImageNet's weights of {weights}: not in torch's cache, and downloading "
                f"{enum.url} failed ({getattr(error, 'reason', error)}); a file of them may be "
                "given instead"
            ) from error
    else:
        state = _read_weights(Path(pretrained))
    expected = net.state_dict()
    # Counts of batches that batch norms have seen: older files lack them, and nobody uses them.
    missing = [key for key in expected if key not in state and "num_batches" not in key]
    other = [
        key
        for key, value in state.items()
        if key not in expected or expected[key].shape != value.shape
    ]
    if missing or other:
        raise ValueError(
            f"{pretrained} does not hold weights of {weights}: "
            f"missing {missing[:3]}, of another shape or unknown {other[:3]}"
        )
    net.load_state_dict(state, strict=False)


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of weights {path}")
    if path.suffix == ".npz":
        import numpy as np

        with np.load(path, allow_pickle=False) as z:
            return {key: torch.from_numpy(z[key].astype(np.float32)) for key in z.files}
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state: dict[str, Tensor] = load_file(path)
        return state
    raise ValueError(f"got weights {path}, expected .npz or .safetensors: nothing is unpickled")

"""Backbones: any timm model, small-image stems for its ResNet family, and a slim ResNet for CPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from ..configs import InputError
from ..configs.errors import in_one_line, unknown_name
from ..frontend import ConvFrontend, ConvSettings
from ..frontend.base import HandsOn
from . import quick_resnet as _quick_resnet  # noqa: F401 - registers it with timm
from .wide_resnet import WideResNet

default_cfgs = generate_default_cfgs(
    {
        "resnet10_slim.untrained": {
            "input_size": (3, 32, 32),
            "pool_size": (2, 2),
            "num_classes": 10,
            "mean": (0.0, 0.0, 0.0),
            "std": (1.0, 1.0, 1.0),
            "first_conv": "conv1",
            "classifier": "fc",
        }
    }
)


@register_model
def resnet10_slim(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """One basic block per stage, 24 to 192 channels: about 10 million MACs on a 16 x 16 map."""
    options = {"block": BasicBlock, "layers": (1, 1, 1, 1), "channels": (24, 48, 96, 192), "stem_width": 24}
    return build_model_with_cfg(ResNet, "resnet10_slim", pretrained, **{**options, **kwargs})


@dataclass(frozen=True, kw_only=True)
class Stem:
    """First layers of a backbone.

    Attributes:
        kind: "small" replaces a ResNet's stem by a 3x3 convolution without max-pool, for 32x32 images;
            "wide" puts the strided convolution of the front-end "conv" (with batch norm and ReLU) before that one;
            "original" keeps it; "auto" takes "small" for the ResNet family unless weights are pretrained.
        stride: Stride of the small or the wide stem before images; None takes 2.
        features: Channels of the wide stem's convolution; None takes 64.
        kernel: Side of its kernel; None takes 9.
    """

    kind: str = "auto"
    stride: int | None = None
    features: int | None = None
    kernel: int | None = None

    def channels(self, in_channels: int) -> int:
        """Channels that the backbone's own first convolution receives."""
        return (self.features or 64) if self.kind == "wide" else in_channels


def create_backbone(
    name: str,
    *,
    in_channels: int,
    num_classes: int,
    stem: Stem = Stem(),
    sees: HandsOn = "images",
    pretrained: bool = False,
    load_weights: bool = True,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Create a timm model for the front-end's output.

    Args:
        name: A timm model name.
        in_channels: Channels of its input.
        num_classes: Size of its logits.
        stem: First layers of the backbone.
        sees: Whether its input is images or features, which are small already: then the stem's stride is 1.
        pretrained: Whether it is a model with pretrained weights.
        load_weights: Whether timm loads them.
        options: Further keyword arguments for ``timm.create_model``.

    Raises:
        InputError: On an unknown model, one without ``in_chans``, a small or wide stem outside the ResNet family, or
            a stem's stride that would be ignored.
    """
    if not timm.is_model(name):
        raise unknown_name("backbone", name, timm.list_models())
    if stem.kind == "wide" and sees == "features":
        raise InputError(
            'stem is "wide" behind features, which have their channels already; take stem: auto.'
        )
    if stem.kind == "wide" and pretrained:
        raise InputError(
            'stem is "wide" with pretrained weights, which belong to another stem; take stem: original.'
        )
    backbone = _timm_model(
        name,
        load=pretrained and load_weights,
        in_chans=stem.channels(in_channels),
        num_classes=num_classes,
        options=options or {},
    )
    _put_stem(backbone, name, stem, in_channels, sees=sees, pretrained=pretrained)
    return backbone


def _timm_model(
    name: str, *, load: bool, in_chans: int, num_classes: int, options: Mapping[str, Any]
) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=load, in_chans=in_chans, num_classes=num_classes, **options)
    except InputError:
        raise
    except Exception as error:  # timm's models raise whatever an option or a failed download leads them to
        reason = in_one_line(error, 300)
        if load and not isinstance(error, TypeError):
            raise InputError(
                f"the pretrained weights of {name!r} cannot be had ({reason}); check the network, give a file of "
                "weights (`warplca harden --timm NAME:FILE.safetensors`), or leave "
                "model.pretrained out."
            ) from error
        raise InputError(
            f"the backbone {name!r} does not take these options ({reason}); "
            "choose a timm model that takes in_chans, and options that it knows."
        ) from error


def _put_stem(
    backbone: nn.Module, name: str, stem: Stem, in_channels: int, *, sees: HandsOn, pretrained: bool
) -> None:
    """Replace or widen a backbone's stem, or set its stride.

    Raises:
        InputError: The backbone has no such stem, or a stride would be ignored.
    """
    wide = stem.kind == "wide"
    known = (ResNet, WideResNet) if wide else ResNet
    if stem.kind in ("small", "wide") and not isinstance(backbone, known):
        raise InputError(
            f'stem is "{stem.kind}", but {name!r} is not of timm\'s ResNet family; take stem: original.'
        )
    small = isinstance(backbone, ResNet) and (
        stem.kind in ("small", "wide") or (stem.kind == "auto" and not pretrained)
    )
    if stem.stride is not None and (sees == "features" or not (small or isinstance(backbone, WideResNet))):
        why = "the backbone sees features" if sees == "features" else f"{name!r} keeps its own stem"
        raise InputError(f"stem_stride is {stem.stride}, and {why}: it would be ignored; leave it out.")
    seen = stem.channels(in_channels)
    own_stride = 1 if wide or sees == "features" else stem.stride or 2
    if small:
        _small_stem(cast(ResNet, backbone), seen, own_stride)
    if isinstance(backbone, WideResNet):
        backbone.set_stem_stride(own_stride)
    if wide:
        settings = ConvSettings(in_channels, seen, stem.kernel or 9, stem.stride or 2)
        _widen_stem(backbone, ConvFrontend(settings))


def _widen_stem(backbone: nn.Module, front: ConvFrontend) -> None:
    """Put a strided convolution before the stem's: the arm "conv" as a part of the backbone."""
    stemmed = cast(Any, backbone)
    stemmed.conv1 = nn.Sequential(front, stemmed.conv1)
    for level in stemmed.feature_info:
        level["reduction"] *= front.stride


def _small_stem(backbone: ResNet, in_channels: int, stride: int) -> None:
    """Replace a ResNet's 7x7 stride-2 convolution and max-pool by one 3x3 convolution (He et al. 2016, 4.2)."""
    width = len(cast(Tensor, backbone.bn1.weight))  # of any kind of norm
    backbone.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(backbone.conv1.weight, mode="fan_out", nonlinearity="relu")
    backbone.maxpool = nn.Identity()
    for level in backbone.feature_info:  # the stem and max-pool that are gone each halved the image
        level["reduction"] = stride * max(int(level["reduction"]) // 4, 1)

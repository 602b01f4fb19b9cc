"""Backbones: any timm model, small-image stems for its ResNet family, and a slim ResNet for CPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from ..configs.errors import InputError, unknown_name
from ..frontend.conv import ConvFrontend
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


def create_backbone(
    name: str,
    *,
    in_channels: int,
    num_classes: int,
    stem: str = "auto",
    stem_stride: int = 1,
    pretrained: bool = False,
    options: Mapping[str, Any] | None = None,
    stem_features: int = 64,
    stem_kernel: int = 9,
) -> nn.Module:
    """Create a timm model for the front-end's output.

    Args:
        name: A timm model name.
        in_channels: Channels of its input.
        num_classes: Size of its logits.
        stem: "small" replaces a ResNet's stem by a 3x3 convolution without max-pool, for 32x32 images;
            "wide" puts the strided convolution of the front-end "conv" (with batch norm and ReLU) before that one;
            "original" keeps it; "auto" takes "small" for the ResNet family unless weights are pretrained.
        stem_stride: Stride of the small or the wide stem.
        pretrained: Whether timm loads pretrained weights.
        options: Further keyword arguments for ``timm.create_model``.
        stem_features: Channels of the wide stem's convolution.
        stem_kernel: Side of its kernel.

    Raises:
        InputError: On an unknown model, one without ``in_chans``, or a small or wide stem outside the ResNet family.
    """
    if not timm.is_model(name):
        raise unknown_name("backbone", name, timm.list_models())
    wide = stem == "wide"
    if wide and pretrained:
        raise InputError(
            'stem is "wide" with pretrained weights, which belong to another stem; take stem: original.'
        )
    seen = stem_features if wide else in_channels
    try:
        backbone = timm.create_model(
            name, pretrained=pretrained, in_chans=seen, num_classes=num_classes, **(options or {})
        )
    except TypeError as error:
        raise InputError(
            f"the backbone {name!r} does not take these options ({error}); "
            "choose a timm model that takes in_chans, and options that it knows."
        ) from error
    known = (ResNet, WideResNet) if wide else ResNet
    if stem in ("small", "wide") and not isinstance(backbone, known):
        raise InputError(
            f'stem is "{stem}", but {name!r} is not of timm\'s ResNet family; take stem: original.'
        )
    own_stride = 1 if wide else stem_stride
    if isinstance(backbone, ResNet) and (stem in ("small", "wide") or (stem == "auto" and not pretrained)):
        _small_stem(backbone, seen, own_stride)
    if isinstance(backbone, WideResNet):
        backbone.set_stem_stride(own_stride)
    if wide:
        _widen_stem(backbone, ConvFrontend(in_channels, stem_features, stem_kernel, stem_stride), stem_stride)
    return backbone


def _widen_stem(backbone: nn.Module, front: ConvFrontend, stride: int) -> None:
    """Put a strided convolution before the stem's: the arm "conv" as a part of the backbone."""
    stemmed = cast(Any, backbone)
    stemmed.conv1 = nn.Sequential(front, stemmed.conv1)
    for level in stemmed.feature_info:
        level["reduction"] *= stride


def _small_stem(backbone: ResNet, in_channels: int, stride: int) -> None:
    """Replace a ResNet's 7x7 stride-2 convolution and max-pool by one 3x3 convolution (He et al. 2016, 4.2)."""
    width = len(cast(Tensor, backbone.bn1.weight))  # of any kind of norm
    backbone.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(backbone.conv1.weight, mode="fan_out", nonlinearity="relu")
    backbone.maxpool = nn.Identity()
    for level in backbone.feature_info:  # the stem and max-pool that are gone each halved the image
        level["reduction"] = stride * max(int(level["reduction"]) // 4, 1)

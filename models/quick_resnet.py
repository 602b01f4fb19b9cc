"""A small residual network that trains fast on 32 x 32 images, timm's way.

Its habits are those of the speed records for CIFAR-10 (Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024;
Page, "How to train your ResNet", 2018): a frozen first layer that whitens patches, identity-like starts, batch norms
without scale, GELU, pooling early and wide, and a head on the maximum over space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.classifier import create_classifier as create_head
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from .wide_resnet import HeadedNetwork

_CFG = {
    "input_size": (3, 32, 32),
    "pool_size": (3, 3),
    "num_classes": 10,
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
    "first_conv": "whitening",
    "classifier": "fc",
}
default_cfgs = generate_default_cfgs({"quick_resnet.untrained": _CFG, "quick_resnet_wide.untrained": _CFG})
MOMENTUM = 0.4  # of the batch norms' statistics: runs are short
LEAST_VARIANCE = 5e-4  # added to the variances of patches, so that directions of noise are not blown up
PATCHES = 100_000  # that the whitening is computed from
MOST_WHITENED = 4  # channels of an input that is an image; a code's channels are not whitened


class _Norm(nn.BatchNorm2d):
    """Batch norm without a scale, which the next layer's weights have anyway."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=MOMENTUM)
        self.weight.requires_grad_(False)


class _Convolution(nn.Conv2d):
    """3 x 3, starting as the identity on its first channels."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels, channels, 3, padding=1, bias=False)
        nn.init.dirac_(self.weight.data[:in_channels])


class _Head(nn.Linear):
    """A linear layer whose answers are scaled, which keeps the first ones small."""

    def __init__(self, in_features: int, out_features: int, scale: float) -> None:
        super().__init__(in_features, out_features)
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, in_features) to logits."""
        return self.scale * super().forward(input)

    def extra_repr(self) -> str:
        """Name the scale, too."""
        return f"{super().extra_repr()}, scale={self.scale:g}"


class QuickGroup(nn.Module):
    """A convolution, pooling, norm and GELU, then more convolutions; the last one is added to what came before it.

    Args:
        in_channels: Channels in.
        channels: Channels out.
        depth: Convolutions, at least 1.
        pools: Whether height and width are halved.
    """

    def __init__(self, in_channels: int, channels: int, depth: int, pools: bool) -> None:
        super().__init__()
        self.pools = pools
        self.convs = nn.ModuleList(
            _Convolution(channels if i else in_channels, channels) for i in range(depth)
        )
        self.norms = nn.ModuleList(_Norm(channels) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, H / 2, W / 2)."""
        x = self.convs[0](x)
        if self.pools:
            x = F.max_pool2d(x, 2)
        x = F.gelu(self.norms[0](x))
        for conv, norm in zip(self.convs[1:-1], self.norms[1:-1], strict=True):
            x = F.gelu(norm(conv(x)))
        return F.gelu(x + self.norms[-1](self.convs[-1](x))) if len(self.convs) > 1 else x


def whitening_of(images: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return what makes patches uncorrelated, from at most ``PATCHES`` of them.

    Args:
        images: (N, C, H, W).
        size: Side of a patch.

    Returns:
        The directions, each divided by the standard deviation along it, (C size^2, C size^2), and the mean patch;
        both float64.
    """
    patches = F.unfold(images.double(), size).transpose(1, 2).flatten(0, 1)
    patches = patches[:: -(-len(patches) // PATCHES)]
    mean = patches.mean(0)
    variances, directions = torch.linalg.eigh(torch.cov((patches - mean).T))
    return directions.T / (variances[:, None] + LEAST_VARIANCE).sqrt(), mean


class QuickResNet(HeadedNetwork):
    """Whitened 2 x 2 patches, three groups, the maximum over space, a linear layer.

    Args:
        widths: Channels of the groups.
        depth: Convolutions of each.
        num_classes: Size of the logits; 0 for none.
        in_chans: Input channels. More than four are a code: they are not whitened, and the first group does not pool.
        global_pool: timm's name of the pooling.
        scale: Factor on the logits.
    """

    def __init__(
        self,
        widths: Sequence[int],
        depth: int,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "max",
        scale: float = 1.0 / 9.0,
    ) -> None:
        super().__init__()
        self.scale, self.num_classes = scale, num_classes
        self.num_features = self.head_hidden_size = widths[-1]
        self.whitens = in_chans <= MOST_WHITENED
        channels = 8 * in_chans if self.whitens else widths[0]
        self.whitening = nn.Conv2d(in_chans, channels, 2)
        self.whitening.weight.requires_grad_(not self.whitens)  # set from images or loaded, never learned
        self.feature_info: list[dict[str, Any]] = []
        groups, reduction = [], 1
        for number, width in enumerate(widths):
            pools = self.whitens or number > 0
            groups.append(QuickGroup(channels, width, depth, pools))
            channels, reduction = width, reduction * (2 if pools else 1)
            self.feature_info.append({"num_chs": width, "reduction": reduction, "module": f"groups.{number}"})
        self.groups = nn.Sequential(*groups)
        self.reset_classifier(num_classes, global_pool)

    @torch.no_grad()
    def start_from_images(self, images: Tensor) -> None:
        """Set the first layer so that it whitens patches: half of its channels, and the same ones negated.

        Args:
            images: Preprocessed images, (N, in_chans, H, W), on any device.
        """
        if not self.whitens:
            return
        rows, mean = whitening_of(images, 2)
        both = torch.cat([rows, -rows])
        self.whitening.weight.copy_(both.reshape(self.whitening.weight.shape))
        assert self.whitening.bias is not None
        self.whitening.bias.copy_(-both @ mean)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return the layers' grouping for layer-wise learning rates."""
        return {"stem": r"^whitening", "blocks": r"^groups\.(\d+)"}

    def reset_classifier(self, num_classes: int, global_pool: str = "max") -> None:
        """Replace the last linear layer and the pooling."""
        self.num_classes = num_classes
        self.global_pool, fc, *_ = create_head(self.num_features, num_classes, pool_type=global_pool)
        self.fc = _Head(self.num_features, num_classes, self.scale) if num_classes else fc

    def forward_features(self, x: Tensor) -> Tensor:
        """Map (N, in_chans, H, W) to (N, num_features, h, w)."""
        return self.groups(F.gelu(self.whitening(x)))


@register_model
def quick_resnet(pretrained: bool = False, **kwargs: Any) -> QuickResNet:
    """64, 256 and 256 channels, two convolutions a group: 2.0 million parameters, 118 million MACs."""
    return _quick_resnet("quick_resnet", pretrained, {"widths": (64, 256, 256), "depth": 2, **kwargs})


@register_model
def quick_resnet_wide(pretrained: bool = False, **kwargs: Any) -> QuickResNet:
    """128, 384 and 384 channels, three convolutions a group."""
    return _quick_resnet("quick_resnet_wide", pretrained, {"widths": (128, 384, 384), "depth": 3, **kwargs})


def _quick_resnet(name: str, pretrained: bool, options: dict[str, Any]) -> QuickResNet:
    return build_model_with_cfg(
        QuickResNet,
        name,
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2), "flatten_sequential": True},
        **options,
    )

"""Wide residual networks in their form for 32 x 32 images (Zagoruyko and Komodakis, BMVC 2016), timm's way.

timm has the wide networks for ImageNet only (``wide_resnet50_2``). These are the architectures of most published
figures on CIFAR-10 and CIFAR-10-C: WRN-28-10 has 36.5 million parameters, WRN-16-4 2.7 million.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch.nn.functional as F
from timm.layers.classifier import create_classifier as create_head
from timm.layers.create_norm import get_norm_layer
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_CFG = {
    "input_size": (3, 32, 32),
    "pool_size": (8, 8),
    "num_classes": 10,
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
    "first_conv": "conv1",
    "classifier": "fc",
}
default_cfgs = generate_default_cfgs({"wrn_16_4.untrained": _CFG, "wrn_28_10.untrained": _CFG})
STEM_WIDTH = 16


class WideBlock(nn.Module):
    """Norm, ReLU, convolution, twice; where the shape changes the shortcut is a pointwise convolution.

    Args:
        in_channels: Channels in.
        channels: Channels out.
        stride: Stride of the first convolution.
        drop_rate: Dropout between the convolutions.
        norm: Makes a norm layer for so many channels.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        drop_rate: float,
        norm: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.bn1 = norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = norm(channels)
        self.drop = nn.Dropout(drop_rate)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        same = in_channels == channels and stride == 1
        self.shortcut = None if same else nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, ceil(H / stride), ceil(W / stride))."""
        active = F.relu(self.bn1(x))
        # A changed shape takes its shortcut from the normalised input, as in the authors' code.
        kept = x if self.shortcut is None else self.shortcut(active)
        return kept + self.conv2(self.drop(F.relu(self.bn2(self.conv1(active)))))


class HeadedNetwork(nn.Module):
    """Methods that timm expects of a network with ``forward_features``, a ``global_pool`` and a last layer ``fc``."""

    global_pool: nn.Module
    fc: nn.Module

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer."""
        return self.fc

    def forward_features(self, x: Tensor) -> Tensor:
        """Map (N, in_chans, H, W) to (N, num_features, h, w)."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool and, unless ``pre_logits``, classify."""
        pooled = self.global_pool(x)
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes)."""
        return self.forward_head(self.forward_features(x))


class WideResNet(HeadedNetwork):
    """Three groups of pre-activation blocks with 16, 32 and 64 times ``width`` channels.

    Args:
        depth: Number of layers, 6 n + 4.
        width: Widening factor.
        num_classes: Size of the logits; 0 for none.
        in_chans: Input channels.
        global_pool: timm's name of the pooling.
        drop_rate: Dropout inside the blocks, 0.3 in the paper without other augmentation.
        norm_layer: timm's name of a norm, or a class.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        norm_layer: str | Callable[[int], nn.Module] = "batchnorm2d",
    ) -> None:
        super().__init__()
        norm: Callable[[int], nn.Module] = get_norm_layer(norm_layer)  # type: ignore[assignment]
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = 64 * width
        self.grad_checkpointing = False
        self.conv1 = nn.Conv2d(in_chans, STEM_WIDTH, 3, padding=1, bias=False)
        self.feature_info: list[dict[str, Any]] = []
        channels = STEM_WIDTH
        for group, wide in enumerate((16 * width, 32 * width, 64 * width), start=1):
            strides = [1 if group == 1 else 2] + [1] * ((depth - 4) // 6 - 1)
            blocks = []
            for stride in strides:
                blocks.append(WideBlock(channels, wide, stride, drop_rate, norm))
                channels = wide
            name = f"layer{group}"
            self.add_module(name, nn.Sequential(*blocks))
            reduction = 2 ** (group - 1)
            self.feature_info.append({"num_chs": wide, "reduction": reduction, "module": name})
        self.bn = norm(channels)
        self.reset_classifier(num_classes, global_pool)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def set_stem_stride(self, stride: int) -> None:
        """Change the first convolution's stride, for early downsampling without a front-end."""
        self.conv1.stride = (stride, stride)
        for group, level in enumerate(self.feature_info):
            level["reduction"] = stride * 2**group

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only each group's input for the backward pass, and compute the rest again."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return the layers' grouping for layer-wise learning rates."""
        return {"stem": r"^conv1", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}

    def reset_classifier(self, num_classes: int, global_pool: str = "avg") -> None:
        """Replace the last linear layer and the pooling."""
        self.num_classes = num_classes
        pool, self.fc, *_ = create_head(self.num_features, num_classes, pool_type=global_pool)
        self.global_pool = pool

    def forward_features(self, x: Tensor) -> Tensor:
        """Map (N, in_chans, H, W) to (N, num_features, H / 4, W / 4)."""
        x = self.conv1(x)
        for group in (self.get_submodule(level["module"]) for level in self.feature_info):
            again = self.grad_checkpointing and self.training
            x = cast(Tensor, checkpoint(group, x, use_reentrant=False) if again else group(x))
        return F.relu(self.bn(x))


@register_model
def wrn_16_4(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-16-4: 2.7 million parameters."""
    return _wide_resnet("wrn_16_4", 16, 4, pretrained, kwargs)


@register_model
def wrn_28_10(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-28-10: 36.5 million parameters."""
    return _wide_resnet("wrn_28_10", 28, 10, pretrained, kwargs)


def _wide_resnet(name: str, depth: int, width: int, pretrained: bool, kwargs: dict[str, Any]) -> WideResNet:
    return build_model_with_cfg(
        WideResNet,
        name,
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2)},
        **{"depth": depth, "width": width, **kwargs},
    )

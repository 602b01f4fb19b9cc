"""The interface that timm and its users expect of a model: name, arguments, data configuration and methods."""

from __future__ import annotations

from typing import Any, cast

import timm
from torch import Tensor, nn

from ..configs import InputError, ModelConfig
from ..configs.load import to_plain
from ..frontend import Frontend

# Every name here is a model of timm's (or of backbones.py) that takes ``in_chans``; add one and it is registered.
BACKBONES = (
    "resnet10_slim",
    "resnet18",
    "resnet26",
    "resnet34",
    "resnet50",
    "wide_resnet50_2",
    "wrn_16_4",
    "quick_resnet",
    "wrn_28_10",
    "resnext50_32x4d",
    "convnext_atto",
    "convnext_nano",
    "efficientnet_b0",
    "mobilenetv3_small_100",
)

GENERIC = "warplca_classifier"


class TimmAPI(nn.Module):
    """What ``timm.create_model`` and timm's scripts expect, passed on to the backbone behind the front-end."""

    backbone: nn.Module
    frontend: Frontend
    num_classes: int
    about: dict[str, Any]

    @property
    def config(self) -> ModelConfig:
        """Configuration that rebuilds the model."""
        raise NotImplementedError

    def backbone_input(self, images: Tensor) -> Tensor:
        """Return what the backbone sees of pixels in [0, 1]."""
        raise NotImplementedError

    @property
    def _timm(self) -> Any:
        """The backbone with the methods that every timm model has and ``nn.Module`` does not declare."""
        return cast(Any, self.backbone)

    @property
    def in_chans(self) -> int:
        """Image channels."""
        return self.frontend.in_channels

    @property
    def num_features(self) -> int:
        """Channels of the backbone's last feature map."""
        return self._timm.num_features

    @property
    def head_hidden_size(self) -> int:
        """Size of what the classification layer sees."""
        return self._timm.head_hidden_size

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """Channels, reduction (pixels of the image per position) and module of each feature level."""
        return [
            {
                **level,
                "reduction": level["reduction"] * self.frontend.stride,
                "module": f"backbone.{level['module']}",
            }
            for level in self._timm.feature_info
        ]

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the backbone's last feature map for pixels in [0, 1]."""
        return self._timm.forward_features(self.backbone_input(images))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Map that feature map to logits, or with ``pre_logits`` to what the classification layer sees."""
        return self._timm.forward_head(features, pre_logits=pre_logits)

    def forward_intermediates(self, images: Tensor, *args: Any, **options: Any) -> Any:
        """Return the backbone's feature maps; arguments are those of its own ``forward_intermediates``."""
        return self._timm.forward_intermediates(self.backbone_input(images), *args, **options)

    def prune_intermediate_layers(self, *args: Any, **options: Any) -> Any:
        """Drop the layers behind the wanted feature maps; arguments are those of the backbone's own method."""
        return self._timm.prune_intermediate_layers(*args, **options)

    def get_classifier(self) -> nn.Module:
        """Return the classification layer."""
        return self._timm.get_classifier()

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classification layer by a new one; with ``num_classes=0`` by none.

        Args:
            num_classes: Number of classes; 0 makes the model return features.
            global_pool: Pooling before it; None takes the backbone's usual one.
        """
        if num_classes == 1 or num_classes < 0:
            raise InputError(f"num_classes is {num_classes}; give 2 or more, or 0 for a model without head.")
        pooling = {} if global_pool is None else {"global_pool": global_pool}
        self._timm.reset_classifier(num_classes, **pooling)
        self.num_classes = num_classes

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in the backbone's backward pass."""
        self._timm.set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that timm's optimisers keep from weight decay: those of front-end and backbone."""
        own = getattr(self.backbone, "no_weight_decay", set)()
        return {f"frontend.{name}" for name in self.frontend.no_weight_decay()} | {
            f"backbone.{name}" for name in own
        }


def architecture(backbone: str) -> str:
    """Return the registered name for a backbone; :data:`GENERIC` for one outside the table."""
    return f"warplca_{backbone}" if backbone in BACKBONES else GENERIC


def model_arguments(config: ModelConfig, in_channels: int) -> dict[str, Any]:
    """Return the keyword arguments by which timm rebuilds a classifier; primed weights are in its checkpoint."""
    values = {**to_plain(config), "in_chans": in_channels}
    values["backbone_pretrained"] = values.pop("pretrained")
    del values["num_classes"]
    if config.backbone in BACKBONES:
        del values["backbone"]
    return {name: value for name, value in values.items() if value is not None}


def data_config(
    config: ModelConfig, in_channels: int = 3, image_size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Return what timm's data pipeline must know of a classifier; pixels in [0, 1] mean no normalisation there.

    Args:
        config: The classifier's configuration.
        in_channels: Image channels.
        image_size: Height and width; None takes those of a pretrained backbone, or 32 x 32.
    """
    known = timm.models.get_pretrained_cfg(config.backbone)
    size = image_size or (known.input_size[1:] if config.pretrained and known else (32, 32))
    layer = known.classifier if known else None
    return {
        "input_size": (in_channels, *size),
        "fixed_input_size": False,
        "mean": (0.0,) * in_channels,
        "std": (1.0,) * in_channels,
        "crop_pct": 1.0,
        "crop_mode": "center",
        "interpolation": "bicubic",
        "first_conv": None,
        "classifier": f"backbone.{layer}" if isinstance(layer, str) else None,
    }

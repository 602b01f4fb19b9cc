"""A classifier: a front-end before a timm backbone, from pixels in [0, 1] to logits."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..configs import InputError, ModelConfig, from_dict
from ..frontend import LCA, Encoding, Equaliser, WarpLCA, active_fraction, standardise
from ..frontend.conv import ConvFrontend
from ..frontend.pretrained import load_frontend, predictor_size
from .backbones import create_backbone
from .checkpoint import WEIGHTS, HubAPI, checkpoint_folder, load_weights, read_card
from .timm_api import TimmAPI, data_config


class Classifier(TimmAPI, HubAPI):
    """Front-end (or none) and backbone, with the normalisation inside.

    Args:
        frontend: Maps pixels in [0, 1] to features, or to pixels in [0, 1] if its ``output`` is
            "reconstruction"; None for none.
        backbone: Maps features, or normalised images, to logits.
        config: What it was made from; saved in checkpoints.
        mean: Per-channel mean by which a backbone with pretrained weights wants pixels normalised; None
            standardises each image.
        std: Likewise the standard deviation.

    Attributes:
        about: What its checkpoint says of it (class names, training, results), kept for the next one.
        refuses_range: Whether pixels outside [0, 1] are an error in evaluation mode; else they are a warning, as for
            models that timm created, whose scripts warm models up with random numbers.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        frontend: nn.Module | None,
        backbone: nn.Module,
        config: ModelConfig,
        *,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        self.frontend = frontend
        self.equaliser = Equaliser(config.equalise) if config.equalise else None
        # Channels last: the same sums, up to a fifth faster in a backbone's convolutions and norms.
        self.backbone = backbone.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.config = config
        self.num_classes = config.num_classes
        self.about: dict[str, Any] = {}
        self.refuses_range = True
        self.pretrained_cfg = self.default_cfg = data_config(config)
        self.fixed_normalisation = mean is not None
        shape = (1, -1, 1, 1)
        self.register_buffer("mean", torch.tensor(mean or (0.0,)).reshape(shape), persistent=False)
        self.register_buffer("std", torch.tensor(std or (1.0,)).reshape(shape), persistent=False)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Classifier:
        """Load a checkpoint folder; see :func:`load_checkpoint`."""
        return load_checkpoint(folder)

    def features(self, images: Tensor, *, distil: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what the backbone sees, and what the front-end tells for training and display.

        Args:
            images: (N, C, H, W), pixels in [0, 1].
            distil: Whether to compute WARP-LCA's self-distillation loss.
        """
        features, encoding = self._encode(images)
        if encoding is None:
            return features, {}
        told = {"active_fraction": active_fraction(encoding.code.detach(), encoding.lam).mean()}
        if distil and isinstance(self.frontend, WarpLCA):
            told["distillation"] = self.frontend.distillation_loss(encoding)
        return features, told

    def forward(self, images: Tensor, *, auxiliary: bool = False, distil: bool = False) -> Any:
        """Classify images.

        Args:
            images: (N, C, H, W), pixels in [0, 1].
            auxiliary: Whether to return as well a dictionary of scalars: ``active_fraction`` of the code.
            distil: Whether that dictionary also holds WARP-LCA's ``distillation`` loss.

        Returns:
            Logits (N, num_classes), or the pair (logits, dictionary).
        """
        features, told = self.features(images, distil=distil)
        logits = self.backbone(features.contiguous(memory_format=torch.channels_last))
        return (logits, told) if auxiliary else logits

    def backbone_input(self, images: Tensor) -> Tensor:
        """Return what the backbone sees of pixels in [0, 1]: features, or normalised images."""
        return self._encode(images)[0].contiguous(memory_format=torch.channels_last)

    def logits_and_sparsity(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return logits (N, num_classes), and the share of active units of each image's code, (N,).

        The second is None where there is no sparse code.
        """
        features, encoding = self._encode(images)
        logits = self.backbone(features.contiguous(memory_format=torch.channels_last))
        return logits, None if encoding is None else active_fraction(encoding.code, encoding.lam)

    def extra_repr(self) -> str:
        """Name the normalisation, which is no weight but changes answers."""
        if not self.fixed_normalisation:
            return "normalisation=per image"
        return f"normalisation=mean {self.mean.flatten().tolist()}, std {self.std.flatten().tolist()}"

    def _encode(self, images: Tensor) -> tuple[Tensor, Encoding | None]:
        """Return what the backbone sees, and all that a sparse-coding layer computed for it."""
        if not self.training:
            check_range(images, refuse=self.refuses_range)
        if isinstance(self.frontend, LCA):
            encoding = self.frontend.encode(images)
            hands_on_code = self.frontend.output == "code"
            return encoding.output if hands_on_code else self._normalise(encoding.output), encoding
        if self.frontend is not None:
            return self.frontend(self._equalise(images)), None
        return self._normalise(images), None

    def _equalise(self, images: Tensor) -> Tensor:
        return images if self.equaliser is None else self.equaliser(images)

    def _normalise(self, images: Tensor) -> Tensor:
        images = self._equalise(images)
        if self.fixed_normalisation:
            return (images - self.mean) / self.std
        return standardise(images).images


def create_classifier(
    backbone: str, frontend: str | None = None, num_classes: int = 10, **options: Any
) -> Classifier:
    """Create a classifier; input is pixels in [0, 1], normalisation is inside.

    Args:
        backbone: Any timm model that takes ``in_chans``, or "resnet10_slim".
        frontend: None, "conv", "lca" or "warp-lca".
        num_classes: Number of classes.
        **options: The other fields of :class:`~warplca.configs.ModelConfig`, e.g. ``stride``, ``lam``,
            ``iterations``, ``threshold``, ``output``, ``frontend_weights``, ``pretrained``.

    Raises:
        InputError: On an unknown backbone or option.
    """
    values = {"backbone": backbone, "frontend": frontend, "num_classes": num_classes, **options}
    return build_classifier(from_dict(ModelConfig, values, where="create_classifier"))


def build_classifier(config: ModelConfig, *, load_weights: bool = True) -> Classifier:
    """Create a classifier from its configuration.

    Args:
        config: The configuration.
        load_weights: Whether to load ``frontend_weights`` and pretrained backbone weights; a checkpoint's
            loader, which brings all weights itself, does without.
    """
    if load_weights:
        config = _with_primed_predictor(config)
    layer = _build_frontend(config, load_weights=load_weights)
    hands_on_code = layer is not None and config.output == "code"
    backbone = create_backbone(
        config.backbone,
        in_channels=config.features if hands_on_code else config.in_channels,
        num_classes=config.num_classes,
        stem="original" if config.pretrained and config.stem == "auto" else config.stem,
        stem_stride=1 if hands_on_code else config.stem_stride or config.stride,
        pretrained=config.pretrained and load_weights,
        options=config.backbone_options,
        stem_features=config.features,
        stem_kernel=config.kernel_size,
    )
    if not config.pretrained or hands_on_code:
        return Classifier(layer, backbone, config)
    cfg: dict[str, Any] = backbone.pretrained_cfg  # type: ignore[assignment]
    return Classifier(layer, backbone, config, mean=tuple(cfg["mean"]), std=tuple(cfg["std"]))


def _with_primed_predictor(config: ModelConfig) -> ModelConfig:
    """Write down the primed predictor's size: a checkpoint is rebuilt without the primed front-end."""
    if config.frontend != "warp-lca" or not config.frontend_weights:
        return config
    primed = predictor_size(config.frontend_weights)
    own = {name: getattr(config, name) for name in primed}
    return replace(config, **{name: primed[name] if own[name] is None else own[name] for name in primed})


def _build_frontend(config: ModelConfig, *, load_weights: bool) -> nn.Module | None:
    if config.frontend is None:
        return None
    if config.frontend == "conv":
        if config.output != "code":
            raise InputError('the "conv" front-end has no reconstruction; set output: code.')
        return ConvFrontend(config.in_channels, config.features, config.kernel_size, config.stride)
    options: dict[str, Any] = {
        "in_channels": config.in_channels,
        "features": config.features,
        "kernel_size": config.kernel_size,
        "stride": config.stride,
        "lam": config.lam,
        "threshold": config.threshold,
        "iterations": config.iterations,
        "output": config.output,
        "gradient_mode": config.gradient_mode,
        "learn_lam": config.learn_lam,
        "adaptive_lam": config.adaptive_lam,
    }
    if config.momentum is not None:
        options["momentum"] = config.momentum
    if config.frontend == "warp-lca":
        sizes = {"predictor_width": config.predictor_width, "predictor_depth": config.predictor_depth}
        options |= {name: size for name, size in sizes.items() if size is not None}
    layer = (WarpLCA if config.frontend == "warp-lca" else LCA)(**options)
    if config.frontend_weights and load_weights:
        load_frontend(layer, config.frontend_weights)
    return layer


def load_checkpoint(folder: str | Path) -> Classifier:
    """Rebuild a classifier from a checkpoint folder, in evaluation mode; nothing is ever unpickled.

    Args:
        folder: The folder, or the name of a shipped classifier (``shipped_checkpoints()``).

    Raises:
        InputError: If a file is missing, truncated or changed, the folder holds a pickle, or the weights belong
            to another architecture.
    """
    folder = checkpoint_folder(folder)
    card = read_card(folder)
    config = from_dict(ModelConfig, card["warplca"]["model"], where=f"{folder}/config.json")
    model = build_classifier(config, load_weights=False)
    load_weights(model, folder / WEIGHTS)
    keys = ("class_names", "training", "results", "evidence")
    model.about = {key: card["warplca"][key] for key in keys if key in card["warplca"]}
    model.about["image_size"] = tuple(card["pretrained_cfg"]["input_size"][1:])
    return model.eval()


def check_range(images: Tensor, *, refuse: bool = True) -> None:
    """Refuse pixels outside [0, 1] (0-255 floats, normalised images), except while compiling or exporting.

    Args:
        images: Pixels.
        refuse: Whether to raise; else only to warn.

    Raises:
        InputError: If a pixel lies more than 0.01 outside [0, 1], or is NaN.
    """
    if torch.compiler.is_compiling() or not images.is_floating_point() or images.numel() == 0:
        return
    low, high = (float(value) for value in images.detach().aminmax())
    if not (low >= -0.01 and high <= 1.01):
        told = (
            f"pixels range from {low:g} to {high:g}; expected [0, 1]: divide 0-255 pixels by 255, and do not "
            "normalise them (the model does)."
        )
        if refuse:
            raise InputError(told)
        warnings.warn(told, stacklevel=2)

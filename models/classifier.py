"""A classifier: a front-end before a timm backbone, from pixels in [0, 1] to logits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..configs import InputError, ModelConfig, from_dict
from ..configs.device import may_look
from ..configs.extensions import FRONTENDS
from ..configs.load import to_plain
from ..frontend import Encoding, Frontend, build_frontend, standardise
from .backbones import Stem, create_backbone
from .bounded import no_larger_than
from .checkpoint import WEIGHTS, HubAPI, checkpoint_folder, load_weights, read_card
from .timm_api import TimmAPI, data_config

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as pictures are made grey; equal channels stay what they are


class Inspection(NamedTuple):
    """Results of one forward pass of a classifier.

    Attributes:
        logits: (N, num_classes).
        encoding: Everything that the front-end computed.
    """

    logits: Tensor
    encoding: Encoding


class Classifier(TimmAPI, HubAPI):
    """Front-end and backbone, with the normalisation inside.

    Args:
        frontend: Maps pixels in [0, 1] to features, or to images in pixel range.
        backbone: Maps features, or normalised images, to logits.
        config: The configuration that built it; saved in checkpoints.
        mean: Per-channel mean by which a backbone with pretrained weights wants pixels normalised; None
            standardises each image.
        std: Standard deviation in the same form.

    Attributes:
        about: Description in its checkpoint (class names, training, results), kept for the next one.
        refuses_range: Whether pixels outside [0, 1] are an error in evaluation mode; else they are a warning, as for
            models that timm created, whose scripts warm models up with random numbers.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        frontend: Frontend,
        backbone: nn.Module,
        config: ModelConfig,
        *,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        self.frontend = frontend
        # Channels last: the same sums, up to a fifth faster in a backbone's convolutions and norms.
        self.backbone = backbone.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._config = config
        self.num_classes = config.classes
        self.about: dict[str, Any] = {}
        self.refuses_range = True
        self.pretrained_cfg = self.default_cfg = data_config(config, frontend.in_channels)
        self.fixed_normalisation = mean is not None
        shape = (1, -1, 1, 1)
        self.register_buffer("mean", torch.tensor(mean or (0.0,)).reshape(shape), persistent=False)
        self.register_buffer("std", torch.tensor(std or (1.0,)).reshape(shape), persistent=False)

    @property
    def config(self) -> ModelConfig:
        """Configuration that rebuilds the classifier, with the front-end's settings as they are now."""
        return replace(self._config, frontend=self.frontend.sections, num_classes=self.num_classes or 2)

    @property
    def hardened(self) -> bool:
        """Whether ``harden`` put front-ends before a classifier that was finished."""
        return bool(self._config.hardened)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Classifier:
        """Load a checkpoint folder; see :func:`load_checkpoint`."""
        return load_checkpoint(folder)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images.

        Args:
            images: (N, C, H, W), pixels in [0, 1]; colours become grey where it takes one channel.

        Returns:
            Logits (N, num_classes).
        """
        return self.backbone(self.backbone_input(images))

    def inspect(self, images: Tensor) -> Inspection:
        """Classify images, and keep what the front-end computed on the way; arguments are those of the call."""
        encoding = self.frontend.encode(self._checked(images))
        return Inspection(self.backbone(self._normalise(encoding.output)), encoding)

    def backbone_input(self, images: Tensor) -> Tensor:
        """Return what the backbone sees of pixels in [0, 1]: features, or normalised images."""
        return self._normalise(self.frontend(self._checked(images)))

    def identity(self) -> dict[str, Any]:
        """Return what the answers depend on beside the weights: settings that are not at their defaults, by name.

        Where weights come from does not count.
        """
        plain = to_plain(self.config, defaults=False)
        for section in _sections(plain):
            for name in FRONTENDS.get(section["name"]).origin:
                section.pop(name, None)
        for name in ("pretrained", "num_classes"):
            plain.pop(name, None)
        if self.fixed_normalisation:
            plain["normalisation"] = [self.mean.flatten().tolist(), self.std.flatten().tolist()]
        return plain

    def extra_repr(self) -> str:
        """Name the normalisation, which is no weight but changes answers."""
        if not self.fixed_normalisation:
            return "normalisation=per image"
        return f"normalisation=mean {self.mean.flatten().tolist()}, std {self.std.flatten().tolist()}"

    def _checked(self, images: Tensor) -> Tensor:
        """Return images of the channels that the front-end takes: colours become grey for one that takes greys."""
        wanted = self.in_chans
        given = images.shape[1] if isinstance(images, Tensor) and images.ndim == 4 else 0
        if given not in (wanted, 3 if wanted == 1 else wanted) or not images.is_floating_point():
            received = (
                f"{images.dtype} {tuple(images.shape)}"
                if isinstance(images, Tensor)
                else type(images).__name__
            )
            raise InputError(
                f"the images are {received}; expected floating-point pixels in [0, 1] of shape (N, {wanted}, H, W)."
            )
        if not self.training:
            check_range(images, refuse=self.refuses_range)
        if given == wanted:
            return images
        return (images * images.new_tensor(LUMA).reshape(1, 3, 1, 1)).sum(1, keepdim=True)

    def _normalise(self, handed_on: Tensor) -> Tensor:
        """Bring images to the contrast that the backbone knows; features stay.

        Front-ends change the contrast of images, and a backbone was trained on that of standardised ones.
        """
        if self.frontend.hands_on == "images":
            if self.fixed_normalisation:
                handed_on = (handed_on - self.mean) / self.std
            else:
                handed_on = standardise(handed_on).images
        if torch.compiler.is_exporting():  # there the order follows from the weights'
            return handed_on
        return handed_on.contiguous(memory_format=torch.channels_last)


def _sections(plain: dict[str, Any]) -> list[dict[str, Any]]:
    found = plain.get("frontend", [])
    return found if isinstance(found, list) else [found]


def create_classifier(
    backbone: str,
    frontend: Any = None,
    num_classes: int = 10,
    *,
    in_channels: int | None = None,
    **options: Any,
) -> Classifier:
    """Create a classifier; input is pixels in [0, 1], normalisation is inside.

    Args:
        backbone: Any timm model that takes ``in_chans``, or "resnet10_slim".
        frontend: A name ("none", "conv", "lca", "warp-lca", "equaliser" or one of your own), a mapping with ``name``
            and settings, settings, a front-end that is built, None for none, or a list of such, in order.
        num_classes: Number of classes.
        in_channels: Image channels, for front-ends that do not say; None takes theirs, 3 by default.
        **options: The other fields of :class:`~warplca.configs.ModelConfig`, e.g. ``stem``, ``pretrained``.

    Raises:
        InputError: On an unknown backbone, front-end or option.
    """
    if in_channels is not None:
        frontend = with_channels(frontend, in_channels)
    layer = build_frontend(frontend)
    values = {"backbone": backbone, "frontend": layer.sections, "num_classes": num_classes, **options}
    config = from_dict(ModelConfig, values, where="create_classifier")
    return _assembled(
        config, layer, load_weights=True
    ).train()  # as a new module is, whatever its front-end was


def with_channels(frontend: Any, channels: int) -> Any:
    """Set the image channels of front-ends that are given by name or as mappings.

    Raises:
        InputError: If one is built, or says otherwise.
    """
    if isinstance(frontend, list | tuple):
        return [with_channels(entry, channels) for entry in frontend]
    section = {"name": frontend or "none"} if frontend is None or isinstance(frontend, str) else frontend
    if not isinstance(section, Mapping):
        raise InputError(
            f"in_channels is {channels}; front-ends that have settings already say their own in_channels."
        )
    if section.get("in_channels", channels) != channels:
        raise InputError(
            f"in_channels is {channels}, and the front-end's {section['in_channels']}; make them equal."
        )
    return {**section, "in_channels": channels}


def build_classifier(config: ModelConfig, *, load_weights: bool = True) -> Classifier:
    """Create a classifier from its configuration.

    Args:
        config: The configuration.
        load_weights: Whether to load weights that settings of front-ends name, and pretrained backbone weights; a
            checkpoint's loader, which brings all weights itself, does without.
    """
    return _assembled(
        config, build_frontend(config.frontend, load_weights=load_weights), load_weights=load_weights
    )


def _assembled(config: ModelConfig, frontend: Frontend, *, load_weights: bool) -> Classifier:
    backbone = create_backbone(
        config.backbone,
        in_channels=frontend.out_channels,
        num_classes=config.classes,
        stem=Stem(
            kind=config.stem,
            stride=config.stem_stride,
            features=config.stem_features,
            kernel=config.stem_kernel,
        ),
        sees=frontend.hands_on,
        pretrained=config.pretrained,
        load_weights=load_weights,
        options=config.backbone_options,
    )
    if not config.pretrained or frontend.hands_on == "features":
        return Classifier(frontend, backbone, config)
    cfg: dict[str, Any] = backbone.pretrained_cfg  # type: ignore[assignment]
    return Classifier(frontend, backbone, config, mean=tuple(cfg["mean"]), std=tuple(cfg["std"]))


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
    with no_larger_than(folder / WEIGHTS):
        model = build_classifier(config, load_weights=False)
    load_weights(model, folder / WEIGHTS)
    keys = ("class_names", "training", "results", "evidence", "source")
    model.about = {key: card["warplca"][key] for key in keys if key in card["warplca"]}
    model.about["image_size"] = tuple(card["pretrained_cfg"]["input_size"][1:])
    return model.eval()


_NOISY: ContextVar[bool] = ContextVar("noisy pixels", default=False)


@contextmanager
def noisy_pixels() -> Iterator[None]:
    """Let pixels leave [0, 1] within the block: randomised smoothing adds noise to them and clips nothing."""
    token = _NOISY.set(True)
    try:
        yield
    finally:
        _NOISY.reset(token)


def check_range(images: Tensor, *, refuse: bool = True) -> None:
    """Refuse pixels outside [0, 1] (0-255 floats, normalised images) where they may be looked at.

    Within :func:`noisy_pixels` all are accepted.

    Args:
        images: Pixels.
        refuse: Whether to raise; else only to warn.

    Raises:
        InputError: If a pixel lies more than 0.01 outside [0, 1], or is NaN.
    """
    if _NOISY.get() or not may_look(images) or not images.is_floating_point() or images.numel() == 0:
        return
    low, high = torch.stack(images.detach().aminmax()).tolist()  # one wait for the device, not two
    if not (low >= -0.01 and high <= 1.01):
        message = (
            f"pixels range from {low:g} to {high:g}; expected [0, 1]: divide 0-255 pixels by 255, and do not "
            "normalise them (the model does)."
        )
        if refuse:
            raise InputError(message)
        warnings.warn(message, stacklevel=2)

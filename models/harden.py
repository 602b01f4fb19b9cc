"""The plug-in: front-ends before a classifier that exists and stays as it is."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..configs import InputError, from_dict
from ..configs.errors import unknown_name
from ..configs.extensions import FRONTENDS
from ..configs.load import load_config, preset_names
from ..frontend import Chain, Encoding, Frontend, build_frontend
from ..frontend.pretrained import open_primed, shipped_frontends
from .classifier import Classifier, Inspection

logger = logging.getLogger(__name__)

PlugIn = str | Path | Frontend | Mapping[str, Any]
LARGEST_SMALL = (
    96  # pixels: up to this side images count as small, for which the front-ends of CIFAR-10 were primed
)


@dataclass(frozen=True)
class ChainConfig:
    """A chain of front-ends by name; its file lies in ``configs/chains``.

    Attributes:
        frontends: Names, or sections with ``name`` or ``weights`` and settings, in order.
    """

    frontends: tuple[Any, ...] = ()


class Hardened(nn.Module):
    """A front-end before any callable on pixels in [0, 1], which sees pixels in [0, 1] again.

    Args:
        frontend: A front-end whose output is images.
        model: The classifier, untouched: the very object, in whatever mode it is.

    Attributes:
        frontend: The front-end.
        model: The classifier.
        hardened: True, so that nobody hardens it again.
    """

    hardened = True

    def __init__(self, frontend: Frontend, model: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.frontend = frontend
        self.model = model

    @property
    def opaque(self) -> bool:
        """Whether its weights are out of reach, as those of a file or a function: only its answers identify it."""
        return not isinstance(self.model, nn.Module)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, C, H, W), pixels in [0, 1]; noisy copies for certificates may leave that range."""
        return self.model(self.frontend(images).clamp(0.0, 1.0))

    def inspect(self, images: Tensor) -> Inspection:
        """Classify images, and keep what the front-end computed on the way."""
        encoding: Encoding = self.frontend.encode(images)
        return Inspection(self.model(encoding.output.clamp(0.0, 1.0)), encoding)


def harden(
    model: Callable[[Tensor], Tensor],
    frontend: PlugIn | Sequence[PlugIn] | None = None,
    *,
    image_size: int | None = None,
    tile: int | None = None,
) -> nn.Module:
    """Put a front-end before a classifier that exists; the classifier is not changed and not trained.

    Args:
        model: Any callable from pixels in [0, 1], (N, C, H, W), to logits (N, classes); normalisation is its own.
        frontend: A front-end whose output is images: the name of a shipped chain (``shipped_chains()``) or front-end
            (``shipped_frontends()``), a registered name, a folder that ``warplca prime`` wrote, settings, a front-end,
            or a list of such in order. None takes the shipped chain for the model's image size, and logs which.
        image_size: Side of the images in pixels, for models that do not say.
        tile: Side in pixels, 128 or more, above which sparse coding works in tiles that overlap, which bounds its
            memory; None leaves it at the front-end's own, 512. Means, contrast, spectra and gates are those of whole
            images, so that the output differs only by what the overlap does not carry. An attack's backward
            pass goes through all tiles and needs the memory of the whole.

    Returns:
        A :class:`Classifier` of ours for one of ours, which is saved and exported as such; else a :class:`Hardened`.
        Both are in evaluation mode.

    Raises:
        InputError: If the model is hardened already, the front-end outputs features, or the image size is unknown.
    """
    if getattr(model, "hardened", False):
        raise InputError("the model is hardened already: take the bare one and name all front-ends at once.")
    if frontend is None:
        side = image_size or _image_size(model)
        frontend = chain_for(side)
        logger.warning("front-end chosen by image size (%s pixels): the chain %r", side, frontend)
    plugged = plug_in(frontend)
    if tile is not None:
        _set_tile(plugged, tile)
    if not isinstance(model, Classifier):
        return Hardened(plugged, model).eval()
    channels = model.frontend.in_channels
    if plugged.out_channels != channels:
        raise InputError(
            f"the front-end outputs {plugged.out_channels} channels, and the model takes {channels}."
        )
    return _before(plugged, model).eval()


def shipped_chains() -> list[str]:
    """Names of the shipped chains of front-ends."""
    return preset_names("chains")


def chain_for(image_size: int | None) -> str:
    """Name of the shipped chain for images of this side.

    Raises:
        InputError: If it is unknown.
    """
    if image_size is None:
        raise InputError(
            "the model does not say how large its images are: give image_size, or name the front-end "
            f"({', '.join(shipped_chains())})."
        )
    return "cifar10" if image_size <= LARGEST_SMALL else "photographs"


def plug_in(frontend: PlugIn | Sequence[PlugIn]) -> Frontend:
    """Build what :func:`harden` may be given as ``frontend``, in evaluation mode.

    Raises:
        InputError: On an unknown name, or a front-end that outputs features.
    """
    entries = list(frontend) if isinstance(frontend, list | tuple) else [frontend]
    stages = [stage for entry in entries for stage in _stages(entry)]
    plugged = stages[0] if len(stages) == 1 else Chain(stages)
    if plugged.hands_on != "images":
        raise InputError(
            "the front-end outputs features, and the classifier takes images; choose one that restores "
            "(output: reconstruction)."
        )
    return plugged.eval()


def _set_tile(plugged: Frontend, tile: int) -> None:
    stages = plugged if isinstance(plugged, Chain) else [plugged]
    tiled = [stage for stage in stages if hasattr(stage, "tile")]
    if not tiled:
        raise InputError(f"tile is {tile}, and no front-end here codes; leave it out.")
    for stage in tiled:
        stage.tile = tile  # type: ignore[assignment]


def _stages(entry: Any) -> list[Frontend]:
    """The front-ends that one entry stands for."""
    if isinstance(entry, str | Path):
        if str(entry) in shipped_chains():
            config = load_config(ChainConfig, str(entry), "chains")
            return [stage for section in config.frontends for stage in _stages(section)]
        if str(entry) not in FRONTENDS.items():
            _check_source(entry)
            return _stages({"weights": str(entry)})
    if isinstance(entry, Mapping) and "weights" in entry and "name" not in entry:
        primed = open_primed(entry["weights"])
        cls = FRONTENDS.get(primed.kind, where=f"the front-end {primed.source!r}")
        values = {**primed.settings, **entry}
        return [cls(from_dict(cls.Settings, values, where=f"the front-end {primed.source!r}"))]
    return [build_frontend(entry)]


def _check_source(source: str | Path) -> None:
    known = [*shipped_chains(), *shipped_frontends(), *FRONTENDS.items()]
    if str(source) not in known and not (Path(source) / "config.json").is_file():
        raise unknown_name("front-end", str(source), known)


def _before(plugged: Frontend, model: Classifier) -> Classifier:
    """The same classifier behind further front-ends; its weights are shared, what was measured of it is not kept."""
    stages = list(plugged) if isinstance(plugged, Chain) else [plugged]
    own = list(model.frontend) if isinstance(model.frontend, Chain) else [model.frontend]
    chain = Chain([*stages, *own])
    config = replace(model.config, frontend=chain.sections, hardened=len(stages))
    mean, std = (tuple(values.flatten().tolist()) for values in (model.mean, model.std))
    fixed = {"mean": mean, "std": std} if model.fixed_normalisation else {}
    behind = Classifier(chain, model.backbone, config, **fixed)
    behind.about = {
        key: copy.deepcopy(value) for key, value in model.about.items() if key not in ("results", "evidence")
    }
    behind.pretrained_cfg = behind.default_cfg = model.pretrained_cfg
    return behind


def _image_size(model: Any) -> int | None:
    """The longer side of the images that a model says it takes."""
    about = getattr(model, "about", None) or {}
    known = (
        about.get("image_size") or (getattr(model, "pretrained_cfg", None) or {}).get("input_size", ())[1:]
    )
    return max(known) if known else None

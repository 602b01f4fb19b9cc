"""Front-ends made of front-ends: none, or several in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..configs.errors import InputError
from ..configs.extensions import FRONTENDS
from ..configs.load import read_sections
from .base import Encoding, Frontend, HandsOn, NoTraining, register_frontend
from .pretrained import Primable


@dataclass(frozen=True)
class NoSettings:
    """Settings of "none".

    Attributes:
        in_channels: Image channels.
    """

    in_channels: int = 3


@register_frontend("none")
class NoFrontend(Frontend):
    """Outputs the images as they are."""

    Settings = NoSettings
    Training = NoTraining

    def encode(self, images: Tensor) -> Encoding:
        """Return the images."""
        return Encoding(images)


@dataclass(frozen=True)
class ChainEncoding(Encoding):
    """The encodings of a chain.

    Attributes:
        stages: One for each front-end, in order.
    """

    stages: tuple[Encoding, ...] = ()

    def figures(self) -> dict[str, Tensor]:
        """Return the figures of all stages; a name that an earlier one has gets the stage's number."""
        return _numbered([stage.figures() for stage in self.stages])

    def pictures(self) -> dict[str, Tensor]:
        """Return the pictures of all stages, named as their figures are."""
        return _numbered([stage.pictures() for stage in self.stages])


class Chain(Frontend):
    """Several front-ends, each on the images that the one before outputs.

    Args:
        stages: In order; all but the last output images.

    Raises:
        InputError: If there are none, one in the middle outputs features, or their channels differ.
    """

    def __init__(self, stages: Sequence[Frontend]) -> None:
        nn.Module.__init__(self)
        stages = [part for stage in stages for part in (stage if isinstance(stage, Chain) else (stage,))]
        self.stages = nn.ModuleList(stages)
        if not stages:
            raise InputError("the list of front-ends is empty; give at least one, or none at all.")
        for number, (stage, following) in enumerate(pairwise(stages), start=1):
            if stage.hands_on != "images":
                raise InputError(
                    f"front-end {number} of {len(stages)} outputs features, which the next cannot take; let it "
                    "output images, or put it last."
                )
            if stage.out_channels != following.in_channels:
                raise InputError(
                    f"front-end {number} of {len(stages)} outputs images of {stage.out_channels} channels, and the "
                    f"next takes {following.in_channels}; make them equal."
                )

    def __iter__(self) -> Any:
        return iter(self.stages)

    @property
    def _last(self) -> Frontend:
        return self.stages[-1]  # type: ignore[return-value]

    @property
    def settings(self) -> tuple[Any, ...]:
        """The settings of each front-end."""
        return self.sections

    @property
    def sections(self) -> tuple[Any, ...]:
        """The settings of each front-end."""
        return tuple(section for stage in self for section in stage.sections)

    @property
    def hands_on(self) -> HandsOn:
        """The kind of output of the last one."""
        return self._last.hands_on

    @property
    def in_channels(self) -> int:
        """Channels of the images that the first one takes."""
        return self.stages[0].in_channels  # type: ignore[return-value]

    @property
    def out_channels(self) -> int:
        """Output channels of the last one."""
        return self._last.out_channels

    @property
    def stride(self) -> int:
        """Stride of the last one."""
        return self._last.stride

    @property
    def figure_names(self) -> tuple[str, ...]:
        """Names of the figures of all stages."""
        return tuple(_numbered([dict.fromkeys(stage.figure_names) for stage in self]))

    @property
    def always_learns(self) -> bool:  # type: ignore[override]
        """Whether that holds for all."""
        return all(stage.always_learns for stage in self)

    def forward(self, images: Tensor) -> Tensor:
        """Call each front-end on the output of the one before, hooks included."""
        for stage in self:
            images = stage(images)
        return images

    def encode(self, images: Tensor) -> ChainEncoding:
        """Encode by each front-end in turn."""
        encodings = []
        for stage in self:
            encodings.append(stage.encode(images))
            images = encodings[-1].output
        return ChainEncoding(images, tuple(encodings))

    def auxiliary_losses(self, encoding: Encoding) -> dict[str, Tensor]:
        """Return the losses of all stages; those of one name are added."""
        losses: dict[str, Tensor] = {}
        for stage, part in zip(self, encoding.stages, strict=True):  # type: ignore[attr-defined]
            for name, loss in stage.auxiliary_losses(part).items():
                losses[name] = losses[name] + loss if name in losses else loss
        return losses

    def at(self, epoch: float | None, epochs: int, training: Any) -> None:
        """Give each front-end its own part of ``training``, a tuple."""
        for stage, part in zip(self, training, strict=True):
            stage.at(epoch, epochs, part)

    def refresh(self) -> None:
        """Bring all up to date."""
        for stage in self:
            stage.refresh()

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters of all stages that are not decayed."""
        return {f"stages.{i}.{name}" for i, stage in enumerate(self) for name in stage.no_weight_decay()}

    def atoms(self) -> Tensor | None:
        """Return the patterns of the first one that has any."""
        return next((atoms for stage in self if (atoms := stage.atoms()) is not None), None)

    def margins(self, images: Tensor) -> Tensor | None:
        """Return the margins of all stages in order; units that a stage does not have are zero."""
        found = []
        for stage in self:
            margins = stage.margins(images)
            found += [] if margins is None else [margins]
            images = stage(images)
        if not found:
            return None
        units = max(margins.shape[2] for margins in found)
        return torch.cat([F.pad(margins, (0, units - margins.shape[2])) for margins in found], dim=1)


def build_frontend(frontend: Any, *, load_weights: bool = True) -> Frontend:
    """Build a front-end from what may stand for one.

    Args:
        frontend: A name, a mapping with ``name`` and settings, settings, a front-end, None for none, or a list of
            such in order.
        load_weights: Whether weights that settings name are loaded.

    Raises:
        InputError: On an unknown name or setting, or front-ends that cannot follow one another.
    """
    if isinstance(frontend, Frontend):
        for stage in frontend if isinstance(frontend, Chain) else (frontend,):
            if type(stage) not in FRONTENDS.items().values():
                raise InputError(
                    f"{type(stage).__name__} is not registered; write @register_frontend(name) above its class, so "
                    "that checkpoints can name it."
                )
        single = isinstance(frontend, Chain) and len(frontend.stages) == 1
        return frontend.stages[0] if single else frontend  # type: ignore[return-value]
    if isinstance(frontend, list | tuple) and any(isinstance(entry, Frontend) for entry in frontend):
        built = [build_frontend(entry, load_weights=load_weights) for entry in frontend]
    else:
        sections = read_sections(FRONTENDS, frontend, where="the front-end", prefix="frontend")
        built = []
        for section in sections:
            cls = FRONTENDS.of(section)
            options = {"load_weights": load_weights} if issubclass(cls, Primable) else {}
            built.append(cls(section, **options))
    return built[0] if len(built) == 1 else Chain(built)


def _numbered(stages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Merge dictionaries; a name that an earlier one has gets the number of its stage."""
    merged: dict[str, Any] = {}
    for number, stage in enumerate(stages, start=1):
        merged |= {f"{name} {number}" if name in merged else name: value for name, value in stage.items()}
    return merged

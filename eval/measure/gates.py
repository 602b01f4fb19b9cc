"""How many images the gates of a model let through untouched, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeGuard

import torch
from torch import Tensor

from ...configs.errors import InputError, brief
from ...configs.untrusted import parse_json
from .inference import Model

GATE = "gate"  # with a number, the name of each gate's opening among the figures of an encoding


class Figured(Protocol):
    """Damage and opening of the gates of images."""

    def figures(self) -> Mapping[str, Tensor]:
        """Return one number an image, (N,), by name."""
        ...


class Inspectable(Protocol):
    """A model that returns what it computed on the way."""

    def inspect(self, images: Tensor) -> tuple[Tensor, Figured]:
        """Return logits and an encoding."""
        ...


def has_gates(model: Model) -> TypeGuard[Inspectable]:
    """Whether a model has a front-end whose figures are those of gates as well."""
    names = getattr(getattr(model, "frontend", None), "figure_names", ())
    return hasattr(model, "inspect") and any(name.split()[0] == GATE for name in names)


class GateWatch:
    """A model that is called as ever, while the images that each of its gates lets through are counted.

    Args:
        model: A model with gates.
    """

    def __init__(self, model: Inspectable) -> None:
        self.model = model
        self._passed: dict[str, list[Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Return the model's logits."""
        logits, encoding = self.model.inspect(images)
        for name, opening in encoding.figures().items():
            if name.split()[0] == GATE:
                self._passed.setdefault(name, []).append(opening == 0.0)
        return logits

    def shares(self) -> dict[str, float]:
        """Share of the images so far that each gate let through untouched, by name."""
        return {name: float(torch.cat(parts).float().mean()) for name, parts in self._passed.items()}


def read_shares(text: str) -> dict[str, float]:
    """Read what :meth:`GateWatch.shares` gave and a results store kept.

    Raises:
        InputError: If it is anything else.
    """
    shares = parse_json(text, "a cell's gates in the results store")
    if not isinstance(shares, dict) or not all(isinstance(value, int | float) for value in shares.values()):
        raise InputError(
            f"the results store is damaged: a cell's gates are {brief(shares)}; restore a copy of it."
        )
    return shares

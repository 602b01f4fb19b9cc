"""How many images the gates of a model let through untouched, cell by cell."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ...configs.untrusted import parse_json
from .inference import Model

GATE = "gate"
SHARES = "let through"


@runtime_checkable
class Inspectable(Protocol):
    """A model that tells what it computed on the way: ``inspect(images)`` gives logits and an encoding."""

    def inspect(self, images: Tensor) -> Any:
        """Return a pair of logits and an encoding whose ``figures()`` are one number an image, by name."""
        ...


class GateWatch:
    """A model that is called as ever, while the images that each of its gates lets through are counted.

    Args:
        model: Any; of one without gates nothing is counted.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._passed: dict[str, list[Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Return the model's logits."""
        if not isinstance(self.model, Inspectable):
            return self.model(images)
        logits, encoding = self.model.inspect(images)
        for name, opening in encoding.figures().items():
            if name.split()[0] == GATE:
                self._passed.setdefault(name, []).append(opening == 0.0)
        return logits

    def shares(self) -> dict[str, float]:
        """Share of the images so far that each gate let through untouched, by name."""
        return {name: float(torch.cat(parts).float().mean()) for name, parts in self._passed.items()}

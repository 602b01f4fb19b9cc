"""The bridge to foolbox: its model wrapper around our counter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .counting import CountingModel

if TYPE_CHECKING:
    from foolbox.models.pytorch import PyTorchModel


def as_foolbox(model: CountingModel, images: Tensor) -> PyTorchModel:
    """Wrap a counted model for foolbox, on the device of ``images``, with bounds [0, 1]."""
    from foolbox.models.pytorch import PyTorchModel

    return PyTorchModel(model, bounds=(0, 1), device=images.device)

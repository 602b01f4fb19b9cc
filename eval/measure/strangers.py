"""Messages about models and data sets that `evaluate` cannot measure as they are, with advice."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...attacks.checks import chance_note
from ...configs.errors import InputError
from ...data import ImageDataset

WRAP = "wrap it: model = warplca.models.as_classifier(model)"


def check_dataset(dataset: object) -> None:
    """Refuse what is no `ImageDataset`: loaders and tensors keep neither names of classes nor 8-bit pixels."""
    if not isinstance(dataset, ImageDataset):
        raise InputError(
            f"dataset is a {type(dataset).__name__}; expected an ImageDataset: warplca.data.load_dataset reads one, "
            "and ImageDataset(name, images, labels, class_names) makes one of uint8 images (N, H, W, 3)."
        )


def check_model(model: object) -> None:
    """Refuse what is no callable, and modules whose mode cannot be set, as torch.export writes them."""
    if not callable(model) or isinstance(model, torch.export.ExportedProgram):
        raise InputError(
            f"model is a {type(model).__name__}, which cannot be called on images; expected an nn.Module or a "
            "function. Of an exported program or an ONNX file warplca.models.as_classifier makes one."
        )
    if isinstance(model, nn.Module):
        modes = {part: part.training for part in model.modules()}
        try:
            model.train(model.training)
        except NotImplementedError as error:
            raise InputError(
                f"model is a {type(model).__name__} whose mode cannot be set, as torch.export makes them; {WRAP}."
            ) from error
        finally:
            for part, mode in modes.items():
                part.training = mode


def remarks(model: object) -> list[str]:
    """A remark if a bare timm model expects normalised pixels, which nobody gives it here."""
    inner: Any = getattr(model, "_orig_mod", getattr(model, "module", model))
    config = getattr(inner, "pretrained_cfg", None) or {}
    mean, std = tuple(config.get("mean") or ()), tuple(config.get("std") or ())
    if all(m == 0 for m in mean) and all(s == 1 for s in std):
        return []
    return [
        f"The model's pretrained_cfg asks for pixels normalised by mean {mean} and std {std}, but it was measured on "
        f"pixels in [0, 1] as they are; if it was trained so, {WRAP}."
    ]


def chance_remark(predictions: NDArray[np.integer], labels: NDArray[np.integer], classes: int) -> list[str]:
    """A remark if guessing explains the accuracy on clean images."""
    return chance_note(torch.from_numpy(predictions == labels), classes)

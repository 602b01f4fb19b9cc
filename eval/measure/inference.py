"""Forward passes over many images: predictions, confidences, refusals of unusable models, and fingerprints."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...attacks.checks import foreign_errors_named, looks_random
from ...configs.device import float32, sent, unwatched
from ...configs.errors import InputError
from ...data import ImageDataset
from ..results.records import choose_images

PROBE_IMAGES = 256
"""Images whose predicted classes identify an opaque model."""

Model = Callable[[Tensor], Tensor]


class Answers(NamedTuple):
    """Predicted class (int16) and top-1 probability (float32) of each image."""

    predictions: NDArray[np.int16]
    confidences: NDArray[np.float32]


def classify(model: Model, batches: Iterable[Tensor], classes: int) -> Answers:
    """Classify batches of images.

    Args:
        model: From (N, C, H, W) pixels in [0, 1] to logits (N, classes).
        batches: Tensors on the model's device.
        classes: Number of classes of the data set.

    Raises:
        InputError: The logits are NaN or infinite, or are not one row for each image and one column for each
            class.
    """
    # Nothing is read before the last batch is on its way: each read would wait for the device.
    parts = [_answer(model, batch, classes) for batch in batches]
    predictions, confidences, sound = (torch.cat(values) for values in zip(*parts, strict=True))
    _refuse_unsound(sound)
    return Answers(predictions.cpu().numpy(), confidences.cpu().numpy())


def pixel_batches(images: NDArray[np.uint8], batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Batches (n, C, H, W) float32 in [0, 1] of uint8 images (N, H, W, C)."""
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size]))
        yield sent(batch, device).permute(0, 3, 1, 2).float().div_(255).contiguous()


def is_random(model: Model, batch: Tensor, classes: int) -> bool:
    """Whether two equal calls give logits that rounding cannot explain, on clean images or between their 256 levels."""
    ramp = torch.linspace(-0.5, 0.5, batch[0].numel()).view_as(batch[0]).to(batch)
    for images in (batch, (batch + ramp / 255).clamp(0, 1)):
        first, second = _logits(model, images, classes), _logits(model, images, classes)
        _refuse_unsound(first.isfinite().all(dim=1))
        if looks_random(first, second):
            return True
    return False


def _answer(model: Model, batch: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return predictions, confidences, and whether all logits are finite, (n,) each."""
    logits = _logits(model, batch, classes)
    confidences, predictions = logits.float().softmax(dim=1).max(dim=1)
    return predictions.to(torch.int16), confidences, logits.isfinite().all(dim=1)


def _logits(model: Model, batch: Tensor, classes: int) -> Tensor:
    # Not inference_mode: a foreign model may cache tensors that an attack differentiates later.
    with torch.no_grad():
        logits = _called(model, batch.clone())  # a foreign model may write into its input
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if not isinstance(logits, Tensor) or shape != (len(batch), classes):
        raise InputError(
            f"the model returned {shape} for {len(batch)} images of a data set with {classes} classes: "
            f"expected logits of shape ({len(batch)}, {classes}). Give a model trained for this data set."
        )
    return logits


def _refuse_unsound(sound: Tensor) -> None:
    bad = len(sound) - int(sound.sum())
    if bad:
        raise InputError(
            f"the model returned NaN or infinite logits for {bad} of {len(sound)} images: "
            "expected finite logits. Find out where they arise before measuring it."
        )


def _called(model: Model, batch: Tensor) -> Tensor:
    foreign = not isinstance(model, Identified)
    with foreign_errors_named(batch) if foreign else nullcontext():
        return model(batch)


@contextmanager
def evaluation_mode(model: Model, device: torch.device | str | None) -> Iterator[torch.device]:
    """Put a module in evaluation mode, on a device, and leave it as it was; float32 is full, pixels count as sound.

    Whether TF32 is allowed, a block of ``configs.device.float32`` around this one says.

    Args:
        model: A module; any other callable is left alone.
        device: Device to evaluate on; None means that of the module's parameters (the CPU without any).

    Yields:
        The device on which the model expects its images.
    """
    if not isinstance(model, nn.Module):
        with float32(), unwatched():
            yield torch.device(device or "cpu")
        return
    modes = {part: part.training for part in model.modules()}
    first = next(iter(model.state_dict().values()), None)
    home = first.device if isinstance(first, Tensor) else torch.device("cpu")
    target = torch.device(device or home)
    try:
        model.eval()
        model.to(target)
        with float32(), unwatched():  # the pixels come from bytes
            yield target
    finally:
        model.to(home)
        for part, mode in modes.items():
            part.training = mode


@runtime_checkable
class Identified(Protocol):
    """A module that knows what its answers depend on beside its weights."""

    def identity(self) -> Mapping[str, Any]:
        """Return settings as plain values; those at their defaults are left out, so that new ones change nothing."""
        ...


def module_fingerprint(model: nn.Module) -> str:
    """SHA-256 (32 hex digits) of a module's settings and of every tensor in its state, in order.

    The number of iterations or the threshold of a front-end changes the answers without changing a weight. A module
    that is not :class:`Identified` is known by its printed structure instead. Names of tensors, devices and memory
    addresses do not count.
    """
    if isinstance(model, Identified):
        known = json.dumps(model.identity(), sort_keys=True, default=repr)
    else:
        known = re.sub(r"0x[0-9a-f]+", "", repr(model))
    digest = hashlib.sha256(known.encode())
    for value in model.state_dict().values():
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()[:32]


def is_opaque(model: Model) -> bool:
    """Whether only its answers identify a model: a function, or a module around one that says so."""
    return not isinstance(model, nn.Module) or getattr(model, "opaque", False)


def network_fingerprint(model: Model, dataset: ImageDataset, device: torch.device, batch_size: int) -> str:
    """SHA-256 (32 hex digits) of a module's settings and weights, or of the classes that an opaque model predicts.

    The probe images are the same whatever is measured, so that a later, larger plan finds the same fingerprint.
    """
    if isinstance(model, nn.Module) and not is_opaque(model):
        return module_fingerprint(model)
    probe = dataset.images[choose_images(dataset.labels, PROBE_IMAGES, 0)]
    answers = classify(model, pixel_batches(probe, batch_size, device), len(dataset.class_names))
    return hashlib.sha256(answers.predictions.astype("<i8").tobytes()).hexdigest()[:32]

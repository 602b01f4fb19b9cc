"""Checks of an attack's input and model before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from ..configs.errors import InputError, first_line
from .access import Model

MIN_FOR_CHANCE = 20
"""Images below which accuracy at chance level says nothing."""

EXPLAINED_BY_CHANCE = 0.05
"""Probability of so many right answers by guessing from which on guessing is taken to explain them."""

RANDOMNESS_TOLERANCE = 1e-4
"""Relative difference of logits between two equal calls above which a model counts as random."""


class NotApplicable(InputError):  # noqa: N818 - it is a reason, shown as one
    """The attack finds nothing to work on in this model; another attack must do."""


@contextmanager
def differentiable() -> Iterator[None]:
    """Name it where a model, or a path through it, does not run with gradients."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = first_line(error)
        raise NotApplicable(f"the model cannot be differentiated along this path: {reason}") from error


@contextmanager
def foreign_errors_named(images: Tensor) -> Iterator[None]:
    """Turn what a foreign model raises on images (N, C, H, W) into an `InputError` that says what to do."""
    try:
        yield
    except (InputError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise InputError(
            f"the model raised {type(error).__name__} ({first_line(error)}) on images {tuple(images.shape)} of "
            f"{images.dtype} on {images.device}: expected a callable that maps such images to logits. Wrap it: "
            "warplca.models.as_classifier(model) minds its type; a function of yours may mind its size and device."
        ) from error


def check_images(images: Tensor) -> None:
    """Refuse anything but finite float images (N, C, H, W) in [0, 1]."""
    if not isinstance(images, Tensor) or images.dtype not in (torch.float32, torch.float64):
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise InputError(
            f"images are {kind}; expected a float32 or float64 tensor with pixels in [0, 1]. "
            "Convert first: bytes with images.float() / 255."
        )
    if images.ndim != 4 or images.numel() == 0:
        raise InputError(f"images have shape {tuple(images.shape)}; expected (N, C, H, W) with N above 0.")
    if not images.isfinite().all():
        raise InputError("images hold NaN or infinity; expected finite pixels in [0, 1].")
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        raise InputError(
            f"pixels range from {low:g} to {high:g}; expected [0, 1]. "
            "Divide bytes by 255 and leave normalisation to the model."
        )


def check_labels(labels: Tensor, count: int, classes: int) -> None:
    """Refuse labels that are not ``count`` integers in 0 .. classes - 1."""
    if not isinstance(labels, Tensor) or labels.dtype.is_floating_point or labels.dtype == torch.bool:
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise InputError(f"labels are {kind}; expected a tensor of integer class numbers.")
    if tuple(labels.shape) != (count,):
        raise InputError(f"labels have shape {tuple(labels.shape)}; expected ({count},), one for each image.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise InputError(
            f"labels range from {low} to {high}, but the model has {classes} classes; "
            f"expected 0 to {classes - 1}. Check that model and data set belong together."
        )


def check_mode(model: Model) -> None:
    """Refuse a model of which any part is in training mode."""
    if isinstance(model, nn.Module) and any(part.training for part in model.modules()):
        raise InputError(
            "the model is in training mode; expected evaluation mode. Call model.eval() first (of an exported module, "
            "whose mode cannot be set, warplca.models.as_classifier makes one that can be attacked)."
        )


def check_output(logits: Tensor, count: int) -> None:
    """Refuse an output that is not a tensor (count, classes) of at least two classes."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != count or logits.shape[1] < 2:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"the model returned {shape}; expected logits of shape ({count}, classes).")


def check_finite(logits: Tensor) -> None:
    """Refuse logits that hold NaN or infinity."""
    bad = int((~logits.isfinite().all(dim=1)).sum())
    if bad:
        raise InputError(
            f"the model returned NaN or infinite logits for {bad} of {len(logits)} images; "
            "expected finite logits. Find out where they arise before measuring robustness."
        )


def check_gradient(model: Model, image: Tensor) -> None:
    """Refuse a model whose logits are cut off from its pixels.

    Args:
        model: The model that a gradient attack is about to differentiate.
        image: (1, C, H, W), one of its images.
    """
    with torch.enable_grad(), differentiable():
        leaf = image.detach().clone().requires_grad_()
        logits = model(leaf.clone())
        cut = not logits.requires_grad
        if not cut:
            torch.autograd.grad(logits.sum(), leaf, allow_unused=True)
    if cut:
        raise NotApplicable(
            "the model's logits carry no gradient back to the pixels, so a gradient attack cannot judge it. "
            "Remove no_grad or detach from its forward pass, or use one without gradients, such as 'square'."
        )


def chance_note(correct: Tensor, classes: int) -> list[str]:
    """A remark if guessing explains a model's accuracy, as that of one which expects another pixel range.

    The exact one-sided binomial test: the probability that guessing, which is right with probability 1 / classes for
    each image, gets as many right or more.

    Args:
        correct: (N,) whether each clean image is classified rightly.
        classes: Number of classes.
    """
    right, count = int(correct.sum()), len(correct)
    if count < MIN_FOR_CHANCE:
        return []
    probability = float(binomtest(right, count, 1 / classes, alternative="greater").pvalue)
    if probability < EXPLAINED_BY_CHANCE:
        return []
    return [
        f"Only {right} of {count} clean images are classified rightly; guessing among {classes} classes gets "
        f"{round(count / classes, 1):g} on average, and {right} or more with probability {probability:.2g}: "
        "the model may expect another pixel range or other labels."
    ]


def looks_random(first: Tensor, second: Tensor) -> bool:
    """Whether two calls on equal images gave logits that rounding cannot explain."""
    scale = first.norm(dim=1).clamp_min(1e-10)
    return bool(((first - second).norm(dim=1) / scale).max() > RANDOMNESS_TOLERANCE)

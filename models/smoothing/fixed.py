"""The theorem's one condition on the base classifier, tested: a fixed function of one image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...configs.errors import InputError

PROBES = 64
TOLERANCE = 1e-3
"""Relative difference of logits beyond rounding."""

FLIPS = 1
"""Probes of so many that may differ by more: codes near a threshold flip with the order of sums."""


def check_mode(model: object) -> None:
    """Refuse a module of which any part is in training mode.

    Raises:
        InputError: If so.
    """
    if isinstance(model, nn.Module) and any(part.training for part in model.modules()):
        raise InputError("the model is in training mode; call model.eval() before smoothing it.")


@torch.no_grad()
def check_fixed(logits: Callable[[Tensor], Tensor], probes: Tensor) -> int:
    """Test that logits do not depend on company, order, batch size, or random numbers.

    Args:
        logits: The base classifier on pixels that may leave [0, 1].
        probes: (n, C, H, W) noisy copies of different images.

    Returns:
        The number of classes.

    Raises:
        InputError: If they do, are not finite, or are not one row for each image.
    """
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = _answers(logits, probes)
        torch.manual_seed(2)
        others = {
            "on a second call": _answers(logits, probes),
            "in another order": _answers(logits, probes.flip(0)).flip(0),
            "in smaller batches": torch.cat([_answers(logits, part) for part in probes.split(7)]),
            "beside other images": _answers(logits, torch.cat([probes, 1.0 - probes]))[: len(probes)],
        }
    for where, answers in others.items():
        moved = (answers - first).norm(dim=1) > TOLERANCE * first.norm(dim=1).clamp_min(1e-10)
        if int(moved.sum()) > FLIPS:
            raise InputError(
                f"the model is no fixed function of one image: {int(moved.sum())} of {len(probes)} noisy images got "
                f"other logits {where}. A certificate would mean nothing; switch off dropout, random layers and "
                "statistics of the batch."
            )
    return first.shape[1]


def _answers(logits: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    found = logits(images.clone())
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images) or found.shape[1] < 2:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"the model returned {shape}; expected logits of shape ({len(images)}, classes).")
    if not found.isfinite().all():
        raise InputError("the model returned NaN or infinite logits on noisy images; expected finite ones.")
    return found.double()

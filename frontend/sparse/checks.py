"""What the layers refuse, and the sentences that say so."""

from __future__ import annotations

import math

from torch import Tensor

from ...configs.errors import InputError
from .dictionary import ConvDictionary
from .functional import state_size


def check_lam(lam: float, adaptive_lam: float = 0.0) -> None:
    """Refuse a threshold value, or a strength of its adaptation, that is out of range."""
    if not (lam > 0.0 and math.isfinite(lam)):
        raise InputError(f"lam is {lam}; give a number above 0.")
    if not (adaptive_lam >= 0.0 and math.isfinite(adaptive_lam)):
        raise InputError(f"adaptive_lam is {adaptive_lam}; give 0 (off) or a number above 0.")


def check_cycles(iterations: int, momentum: float, checkpoint_every: int | None) -> None:
    """Refuse a number of cycles, a momentum or a checkpoint interval that is out of range."""
    if checkpoint_every is not None and checkpoint_every < 1:
        raise InputError(f"checkpoint_every is {checkpoint_every}; give 1 or more, or leave it out.")
    if iterations < 0:
        raise InputError(f"iterations is {iterations}; give 0 or more.")
    if not 0.0 <= momentum < 1.0:
        raise InputError(f"momentum is {momentum}; give a number from 0 to below 1.")


def check_state(state: Tensor, images: Tensor, dictionary: ConvDictionary) -> None:
    """Refuse an initial state that does not fit the images (N, C, H, W)."""
    size = state_size((images.shape[2], images.shape[3]), dictionary.stride)
    expected = (len(images), len(dictionary.weight), *size)
    if tuple(state.shape) != expected:
        raise InputError(f"the state has shape {tuple(state.shape)}; expected {expected} for these images.")

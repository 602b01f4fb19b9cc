"""The learning rate of training and priming: a linear warm-up, then half a cosine down to zero."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def rate_factor(step: int, total: int, warmup: float, *, single_peak: bool = False) -> float:
    """Return the share of the peak learning rate at a step, 0 to 1 (Loshchilov and Hutter, ICLR 2017).

    Args:
        step: Number of the step, from 0.
        total: Steps of the run.
        warmup: Share of the steps in which the rate rises, 0 to below 1.
        single_peak: Whether only the first step of the cosine has the peak rate; otherwise the last step of the
            warm-up has it as well.
    """
    rising = warmup * total
    if step < rising:
        return (step + 1) / (rising + single_peak)
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(total - rising, 1.0)))


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Set the rate of every parameter group to a share of its peak, the rate that it was made with."""
    for group in optimiser.param_groups:
        group["lr"] = group.setdefault("peak", group["lr"]) * factor

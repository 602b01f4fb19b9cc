"""One step of the dynamics, in the two forms that the solver needs.

u <- u + eta * (Phi^T (x - Phi a) + a - u) + mu * (u - u_before)
"""

from __future__ import annotations

import torch
from torch import Tensor

from .operator import ConvOperator

Number = Tensor | float


def step(
    operator: ConvOperator,
    images: Tensor,
    code: Tensor,
    state: Tensor,
    before: Tensor,
    step_size: Number,
    momentum: Number,
) -> Tensor:
    """Return the next state; gradients flow.

    Args:
        operator: Phi.
        images: Standardised images x, (N, C, H, W).
        code: a = T(u), (N, M, h, w).
        state: u, same shape.
        before: The state one step earlier.
        step_size: eta, a number or a scalar tensor.
        momentum: mu, likewise.
    """
    drive = operator.analyse(images - operator.synthesise(code, (images.shape[2], images.shape[3])))
    return torch.lerp(state, drive + code, step_size) + momentum * (state - before)


def step_without_gradient(
    operator: ConvOperator,
    images: Tensor,
    code: Tensor,
    state: Tensor,
    before: Tensor,
    step_size: float,
    momentum: float,
) -> Tensor:
    """Return the next state as :func:`step` does, in as few passes over memory as there can be.

    The step size is applied to the image, which is smaller than the code, and the sum is built in the memory
    that the analysis returned; no argument is written to.
    """
    error = operator.synthesise(code, (images.shape[2], images.shape[3]))
    torch.sub(images, error, out=error).mul_(step_size)
    following = operator.analyse(error)
    following.add_(state, alpha=1.0 - step_size + momentum).add_(code, alpha=step_size)
    if momentum:
        following.add_(before, alpha=-momentum)
    return following

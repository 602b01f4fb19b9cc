"""Projected gradient ascent on any objective: the loop for objectives that the libraries do not know."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .ball import project
from .threat import ThreatModel

Objective = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) to values (N,) that the attacker wants high."""

MOMENTUM = 0.75
L1_SHARE = 0.05
"""Share of the pixels that an l1 step moves."""


def ascend(
    objective: Objective, images: Tensor, threat: ThreatModel, *, steps: int, random_start: bool = True
) -> Iterator[tuple[Tensor, Tensor]]:
    """Climb the objective inside the ball, with momentum and a step that shrinks from epsilon to epsilon / 20.

    Args:
        objective: What to raise.
        images: (N, C, H, W) centres in [0, 1].
        threat: The ball.
        steps: Number of steps.
        random_start: Begin at a random point instead of the centre.

    Yields:
        After each step the candidates (N, C, H, W), inside ball and pixel range, and the objective (N,)
        where the step began.
    """
    start = images + random_direction(images, threat) if random_start else images
    current = project(images, start, threat).clamp(0.0, 1.0)
    before = current
    for step in range(steps):
        length = threat.epsilon * 0.05 ** (step / max(steps - 1, 1))
        leaf = current.detach().requires_grad_()
        with torch.enable_grad():
            value = objective(leaf)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        moved = project(images, current + length * direction(gradient, threat.norm), threat).clamp(0.0, 1.0)
        blended = current + MOMENTUM * (moved - current) + (1 - MOMENTUM) * (current - before)
        before, current = current, project(images, blended, threat).clamp(0.0, 1.0)
        yield current.detach(), value.detach()


def direction(gradient: Tensor, norm: str) -> Tensor:
    """Step of unit length in the norm along which a linear function rises fast.

    For l1 the step goes to a share of the pixels instead of the single best one.
    """
    if norm == "linf":
        return gradient.sign()
    flat = gradient.flatten(1)
    if norm == "l2":
        return gradient / _per_image(flat.norm(dim=1).clamp_min(1e-12), gradient)
    kept = max(int(flat.shape[1] * L1_SHARE), 1)
    smallest = flat.abs().topk(kept, dim=1).values[:, -1:]
    sparse = torch.where(flat.abs() >= smallest, flat.sign(), 0.0).view_as(gradient)
    return sparse / _per_image(sparse.flatten(1).abs().sum(dim=1).clamp_min(1.0), gradient)


def random_direction(images: Tensor, threat: ThreatModel) -> Tensor:
    """Random perturbation on the surface of the ball (uniform inside it for linf)."""
    if threat.norm == "linf":
        return threat.epsilon * (2 * torch.rand_like(images) - 1)
    noise = torch.randn_like(images)
    zero = torch.zeros_like(images)
    return noise * _per_image((threat.epsilon / threat.distance(noise, zero)).to(images.dtype), images)


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    return values.view(-1, *[1] * (images.ndim - 1))

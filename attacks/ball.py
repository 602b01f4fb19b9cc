"""Keeping candidates inside the ball and the pixel range, and proving that they are."""

from __future__ import annotations

import torch
from torch import Tensor

from .threat import ThreatModel

BALL_TOLERANCE = 1e-6
"""How far, in the threat's own norm, a perturbation may stick out of its ball."""

ROUNDING = 1e-3
"""Relative excess that single-precision sums over an image can explain; more is an attack's fault."""


class BallError(RuntimeError):
    """An attack returned a perturbation that its threat model does not allow: a bug in the attack."""


def project(images: Tensor, candidates: Tensor, threat: ThreatModel) -> Tensor:
    """Nearest points (in the Euclidean sense) of the ball around ``images``; the pixel range is not touched.

    Args:
        images: (N, ...) centres.
        candidates: Points of the same shape.
        threat: The ball.
    """
    delta = candidates - images
    if threat.norm == "linf":
        return images + delta.clamp(-threat.epsilon, threat.epsilon)
    flat = delta.flatten(1)
    if threat.norm == "l2":
        norms = flat.norm(dim=1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
        return images + (flat * (threat.epsilon / norms).clamp_max(1.0)).view_as(delta)
    return images + _project_l1(flat, threat.epsilon).view_as(delta)


def _project_l1(flat: Tensor, epsilon: float) -> Tensor:
    """Euclidean projection of the rows on the l1 ball (Duchi et al., ICML 2008), by sorting."""
    magnitude = flat.abs()
    ordered = magnitude.sort(dim=1, descending=True).values
    excess = ordered.cumsum(dim=1) - epsilon
    rank = torch.arange(1, flat.shape[1] + 1, device=flat.device, dtype=flat.dtype)
    kept = (ordered * rank > excess).sum(dim=1, keepdim=True).clamp_min(1)
    shift = (excess.gather(1, kept - 1) / kept).clamp_min(0.0)
    return flat.sign() * (magnitude - shift).clamp_min(0.0)


def scale_into_ball(images: Tensor, candidates: Tensor, threat: ThreatModel) -> Tensor:
    """Shrink each perturbation along its own direction until it lies in the ball.

    Used where an attack minimises the distance and may end outside the ball, and for rounding.
    """
    delta = candidates.double() - images.double()
    norms = threat.distance(candidates, images)
    factor = torch.where(norms > threat.epsilon, threat.epsilon / norms, 1.0)
    shrunk = images.double() + delta * factor.view(-1, *[1] * (images.ndim - 1))
    return shrunk.to(images.dtype)


def enforce(images: Tensor, candidates: Tensor, threat: ThreatModel) -> Tensor:
    """Clip to [0, 1], undo rounding excess, and verify the ball to 1e-6.

    Raises:
        BallError: A candidate is not finite, or sticks out by more than rounding explains.
    """
    clipped = candidates.detach().clamp(0.0, 1.0)
    if clipped.shape != images.shape or not clipped.isfinite().all():
        raise BallError(
            f"the attack returned {tuple(candidates.shape)} with or without NaN; expected finite pixels "
            f"of shape {tuple(images.shape)}. The model's gradient may not be finite."
        )
    worst = float(threat.distance(clipped, images).max())
    if worst > threat.epsilon * (1 + ROUNDING) + BALL_TOLERANCE:
        raise BallError(f"the attack left its ball: distance {worst:.6g} for {threat}.")
    margin = threat.epsilon
    while worst > threat.epsilon + BALL_TOLERANCE:
        margin -= worst - threat.epsilon
        outside = threat.distance(clipped, images) > threat.epsilon
        inner = ThreatModel(threat.norm, margin)
        clipped[outside] = scale_into_ball(images[outside], clipped[outside], inner).clamp(0.0, 1.0)
        worst = float(threat.distance(clipped, images).max())
    return clipped

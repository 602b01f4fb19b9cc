"""Threat models: which perturbations an attacker may add to an image, and the proof that they stay inside."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..configs.errors import InputError, unknown_name

Norm = Literal["linf", "l2", "l1"]

NORMS: tuple[str, ...] = get_args(Norm)


LARGEST = {"linf": 1.0, "l2": 1e4, "l1": 1e8}
"""Beyond these a ball holds every image: of any size in linf, of 30 megapixels in the other norms."""


@dataclass(frozen=True)
class ThreatModel:
    """A norm ball of perturbations around an image whose pixels stay in [0, 1].

    Attributes:
        norm: ``"linf"``, ``"l2"`` or ``"l1"``, taken over all channels and pixels of one image.
        epsilon: Radius of the ball in pixel units, greater than 0.

    Raises:
        InputError: The norm is unknown, or epsilon is not a finite positive number.
    """

    norm: Norm
    epsilon: float

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise unknown_name("norm", self.norm, NORMS)
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise InputError(
                f"epsilon is {self.epsilon}; expected a finite number above 0. "
                "Give the radius in pixel units, such as 'linf 8/255'."
            )
        if self.epsilon > LARGEST[self.norm]:
            raise InputError(
                f"epsilon is {self.epsilon:g} in {self.norm}, more than takes any image to any other; pixels run from "
                f"0 to 1, so {self.epsilon:g} levels of 255 are '{self.norm} {self.epsilon:g}/255'."
            )

    @classmethod
    def parse(cls, text: str) -> ThreatModel:
        """Read a threat model from text such as ``"linf 8/255"``, ``"l2 0.5"`` or ``"l1 12"``.

        Raises:
            InputError: The text is not a norm followed by a number or a fraction.
        """
        parts = text.lower().split(maxsplit=1)
        if len(parts) != 2:
            raise InputError(
                f"threat model {text!r} cannot be read; expected a norm and a radius such as 'linf 8/255'."
            )
        norm, radius = parts
        if norm not in NORMS:
            raise unknown_name("norm", norm, NORMS, where=f"threat model {text!r}")
        return cls(norm, _parse_number(radius, text))  # pyright: ignore[reportArgumentType]

    def __str__(self) -> str:
        """Canonical text: ``ThreatModel.parse(str(threat)) == threat`` exactly."""
        return f"{self.norm} {_format_epsilon(self.epsilon, as_levels=self.norm == 'linf')}"

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Norm of ``a - b`` per image.

        Args:
            a: (N, ...) images.
            b: Images of the same shape.

        Returns:
            (N,) float64 distances, summed in double precision.
        """
        difference = (a.double() - b.double()).flatten(1).abs()
        if self.norm == "linf":
            return difference.amax(dim=1)
        if self.norm == "l2":
            return difference.square().sum(dim=1).sqrt()
        return difference.sum(dim=1)


PRESETS: tuple[ThreatModel, ...] = (
    ThreatModel("linf", 8 / 255),
    ThreatModel("linf", 4 / 255),
    ThreatModel("linf", 2 / 255),
    ThreatModel("linf", 1 / 255),
    ThreatModel("l2", 0.5),
    ThreatModel("l2", 0.25),
    ThreatModel("l1", 12.0),
)
"""The radii that published CIFAR-10 results use; any other norm and epsilon is as valid."""


def as_threat(threat: ThreatModel | str) -> ThreatModel:
    """Accept a threat model or its text."""
    return ThreatModel.parse(threat) if isinstance(threat, str) else threat


def _parse_number(radius: str, text: str) -> float:
    numerator, slash, denominator = radius.replace(" ", "").partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        raise InputError(
            f"threat model {text!r}: {radius!r} is no number; expected a radius such as '8/255' or '0.5'."
        ) from None


def _format_epsilon(epsilon: float, *, as_levels: bool) -> str:
    """The shortest of plain, exact and (for linf) levels of 255 that reads back as the same number."""
    texts = [repr(epsilon), f"{epsilon:g}"] + ([f"{epsilon * 255:.6g}/255"] if as_levels else [])
    return min((text for text in texts if _parse_number(text, text) == epsilon), key=len)


BALL_TOLERANCE = 1e-6
"""Tolerance, in the threat's own norm, for perturbations that leave its ball by rounding."""

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


L1_SHARE = 0.05
"""Share of the pixels that an l1 step moves."""


def direction(gradient: Tensor, norm: str) -> Tensor:
    """Step of unit length in the norm along which a linear function rises fast.

    The scale of the gradient does not count, however small. For l1 the step goes to a share of the pixels instead of
    the single best one.
    """
    if norm == "linf":
        return gradient.sign()
    flat = gradient.flatten(1)
    if norm == "l2":
        scaled = flat / flat.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
        return (scaled / scaled.norm(dim=1, keepdim=True).clamp_min(1.0)).view_as(gradient)
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

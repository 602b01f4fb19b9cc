"""Threat models: which perturbations an attacker may add to an image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from ..configs.errors import InputError, unknown_name

Norm = Literal["linf", "l2", "l1"]
NORMS: tuple[str, ...] = get_args(Norm)


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

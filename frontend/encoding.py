"""What one forward pass of the layer computes, and the choices a user has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .sparse.operator import ConvOperator
from .standardise import Standardised

Output = Literal["code", "reconstruction"]
GradientMode = Literal["unroll", "implicit", "detach"]
GRADIENT_MODES = ("unroll", "implicit", "detach")
OUTPUTS = ("code", "reconstruction")


@dataclass(frozen=True)
class Encoding:
    """All that one forward pass computes.

    Attributes:
        output: What the layer hands on: the code, or the reconstruction in pixel range.
        code: (N, M, ceil(H/s), ceil(W/s)).
        state: The final state, same shape.
        initial_state: The state before the first iteration; None for a cold start.
        standardised: The images as the solver saw them.
        operator: The dictionary used.
        lam: The threshold value used; one per image, (N, 1, 1, 1), where it is adaptive.
    """

    output: Tensor
    code: Tensor
    state: Tensor
    initial_state: Tensor | None
    standardised: Standardised
    operator: ConvOperator
    lam: Tensor | float

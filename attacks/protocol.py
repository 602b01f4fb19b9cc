"""What an iterative front-end offers to an attacker, and how to set it for the length of an attack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol, get_args, runtime_checkable

from torch import nn

from ..configs.errors import InputError, unknown_name
from .counting import Model

GradientMode = Literal["unroll", "implicit", "detach"]
GRADIENT_MODES: tuple[str, ...] = get_args(GradientMode)


@runtime_checkable
class IterativeLayer(Protocol):
    """A layer that solves for its output by iteration.

    Attributes:
        gradient_mode: ``"unroll"`` (autograd through the iterations), ``"implicit"`` (adjoint of the
            fixed point) or ``"detach"`` (nothing flows back).
        iterations: Number of iterations, at least 1.
    """

    gradient_mode: str
    iterations: int


def find_iterative_layers(model: Model) -> list[IterativeLayer]:
    """All iterative layers inside a model, in the order in which it registers them; empty if none."""
    parts = model.modules() if isinstance(model, nn.Module) else ()
    return [part for part in parts if isinstance(part, IterativeLayer)]


@contextmanager
def iterative_settings(
    model: Model, *, gradient_mode: str | None = None, iterations: int | None = None
) -> Iterator[list[IterativeLayer]]:
    """Set every iterative layer of a model for the block, and restore each layer's own settings after it.

    Args:
        model: Any model; without iterative layers the block changes nothing.
        gradient_mode: ``"unroll"``, ``"implicit"`` or ``"detach"``; ``None`` leaves it.
        iterations: At least 1; ``None`` leaves it.

    Yields:
        The layers found.

    Raises:
        InputError: An unknown gradient mode, or fewer than one iteration.
    """
    if gradient_mode is not None and gradient_mode not in GRADIENT_MODES:
        raise unknown_name("gradient mode", gradient_mode, GRADIENT_MODES)
    if iterations is not None and iterations < 1:
        raise InputError(f"iterations is {iterations}; expected at least 1.")
    layers = find_iterative_layers(model)
    before = [(layer.gradient_mode, layer.iterations) for layer in layers]
    try:
        for layer in layers:
            layer.gradient_mode = layer.gradient_mode if gradient_mode is None else gradient_mode
            layer.iterations = layer.iterations if iterations is None else iterations
        yield layers
    finally:
        for layer, (mode, count) in zip(layers, before, strict=True):
            layer.gradient_mode, layer.iterations = mode, count

"""Iterative layers: what they offer to an attacker, and views with other gradients through cycles and thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from ...configs.errors import InputError, unknown_name
from ..access import CountingModel, Model
from ..checks import NotApplicable
from .views import View, replace_backward

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


ThresholdGradient = Literal["own", "identity", "smooth"]

Start = Literal["own", "cold"]

SMOOTHNESS = 4.0
"""Steepness of the smooth threshold's slope, in units of 1 / lambda."""


@runtime_checkable
class SparseCodingLayer(IterativeLayer, Protocol):
    """The interface of a layer that these views need.

    Attributes:
        threshold: Turns a state into a code, called as ``threshold(state, lam)``; read on every call.
        initial_state: Gives the state before the first cycle, or ``None`` for zero; looked up on every call.
    """

    threshold: Callable[[Tensor, Any], Tensor]
    initial_state: Callable[..., Tensor | None]


@dataclass(frozen=True, kw_only=True)
class LayerView(View):
    """Differentiate the iterative layers by another path than the one they compute by.

    The values are always the real ones. Where the path computes the same values (equal cycles, own
    start), it replaces the layer's pass; otherwise the layer runs as it is and the path beside it.

    Attributes:
        gradient_mode: ``"unroll"`` or ``"implicit"``.
        threshold: The threshold's gradient: its own, the identity (straight through), or the slope of
            ``u * sigmoid(gamma (u - lam))``.
        cycles: Number of cycles of the path, as a factor on the layer's own; 0 leaves the predictor alone.
        start: ``"own"`` or ``"cold"``: from zero, past any predictor.
    """

    gradient_mode: Literal["unroll", "implicit"] = "unroll"
    threshold: ThresholdGradient = "own"
    cycles: float = 1.0
    start: Start = "own"

    def surrogate(self, model: CountingModel, image: Tensor) -> Model:
        """Stand-in whose iterative layers are differentiated along this path."""
        layers = find_iterative_layers(model.wrapped)
        if not layers:
            raise NotApplicable(
                "the model holds no iterative layer (attributes gradient_mode and iterations), "
                "so there is no other path through it; use an attack for models without a front-end."
            )
        for layer in layers:
            self._check(layer)
        if (
            self._is_exact
            and self.threshold == "own"
            and all(layer.gradient_mode == self.gradient_mode for layer in layers)
        ):
            raise NotApplicable(f"the model is differentiated by {self.gradient_mode!r} already.")
        return self._same_values(model, layers) if self._is_exact else self._beside(model, layers)

    @property
    def _is_exact(self) -> bool:
        return self.cycles == 1.0 and self.start == "own"

    def _check(self, layer: IterativeLayer) -> None:
        if self.threshold == "own" and self.start == "own":
            return
        if not isinstance(layer, SparseCodingLayer) or isinstance(layer.threshold, nn.Module):
            raise NotApplicable(
                f"{type(layer).__name__} lacks 'threshold' (a plain callable) or 'initial_state', "
                "so this path through it cannot be taken."
            )

    def _same_values(self, model: CountingModel, layers: list[IterativeLayer]) -> Model:
        def call(images: Tensor) -> Tensor:
            with ExitStack() as stack:
                for layer in layers:
                    stack.enter_context(self._on(layer))
                return model(images)

        return call

    def _beside(self, model: CountingModel, layers: list[IterativeLayer]) -> Model:
        def call(images: Tensor) -> Tensor:
            with ExitStack() as stack:
                for layer in layers:
                    handle = layer.register_forward_hook(self._hook)  # pyright: ignore[reportAttributeAccessIssue]
                    stack.callback(handle.remove)
                return model(images)

        return call

    def _hook(self, layer: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not torch.is_grad_enabled():
            return None
        with self._on(layer):
            alternative = layer.forward(*inputs)
        return replace_backward(output, alternative)

    @contextmanager
    def _on(self, layer: Any) -> Iterator[None]:
        """Set one layer to this path and put it back."""
        cycles = layer.iterations if self.cycles == 1.0 else round(layer.iterations * self.cycles)
        changes: dict[str, Any] = {
            "gradient_mode": self.gradient_mode,
            "iterations": max(cycles, int(self.cycles > 0)),
        }
        if self.threshold != "own":
            changes["threshold"] = _ReplacedSlope(layer.threshold, smooth=self.threshold == "smooth")
        if self.start == "cold":
            changes["initial_state"] = lambda *_: None
        with ExitStack() as stack:
            try:
                stack.enter_context(_attributes(layer, changes))
            except InputError as error:  # a layer without a predictor has nothing after no cycles
                raise NotApplicable(f"the layer does not run this path: {error}") from error
            yield


@contextmanager
def _attributes(layer: Any, changes: dict[str, Any]) -> Iterator[None]:
    """Set attributes, then restore them; one that shadowed a method is removed again."""
    before = {name: getattr(layer, name) for name in changes}
    shadowing = {name for name in changes if callable(getattr(type(layer), name, None))}
    try:
        for name, value in changes.items():
            setattr(layer, name, value)
        yield
    finally:
        for name, value in before.items():
            if name in shadowing:
                layer.__dict__.pop(name, None)
            else:
                setattr(layer, name, value)


class _ReplacedSlope:
    """A threshold with its own values and another slope; all else is the wrapped threshold's."""

    def __init__(self, threshold: Callable[[Tensor, Any], Tensor], *, smooth: bool) -> None:
        self._threshold = threshold
        self._smooth = smooth

    def __call__(self, state: Tensor, lam: Any) -> Tensor:
        code = self._threshold(state, lam)
        if not (torch.is_grad_enabled() and state.requires_grad):
            return code
        return replace_backward(code, self._smoothed(state, lam) if self._smooth else state)

    def _smoothed(self, state: Tensor, lam: Any) -> Tensor:
        gate = torch.sigmoid(SMOOTHNESS * (state.abs() / lam - 1.0))
        signed = not getattr(self._threshold, "rectified", False)
        return (state if signed else state.relu()) * gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._threshold, name)


@runtime_checkable
class GatedLayer(Protocol):
    """A layer that outputs an image untouched where it finds no damage.

    Attributes:
        gate: The damage at which its gate begins to open, and at which it is open; None without a gate.
        gate_mode: ``"measured"`` decides by the damage, ``"smooth"`` the same with the gradient of a smooth decision,
            ``"open"`` and ``"closed"`` hold it whatever the damage.
    """

    gate: tuple[float, float] | None
    gate_mode: str


@dataclass(frozen=True, kw_only=True)
class GateView(View):
    """Differentiate gated layers with their gates held, or deciding smoothly; the values are always the real ones.

    Attributes:
        mode: ``"smooth"``; ``"open"``, against what the layers do to damaged images; or ``"closed"``, against the
            network behind them, whose adversarial images may keep the gates shut.
    """

    mode: str = "smooth"

    def surrogate(self, model: CountingModel, image: Tensor) -> Model:
        """Stand-in with the gradient of the held gates."""
        parts = model.wrapped.modules() if isinstance(model.wrapped, nn.Module) else ()
        gated = [part for part in parts if isinstance(part, GatedLayer) and part.gate is not None]
        if not gated:
            raise NotApplicable("the model has no gated layer; use another attack.")

        def call(images: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return model(images)
            with ExitStack() as stack:
                for layer in gated:
                    stack.enter_context(_attributes(layer, {"gate_mode": self.mode}))
                held = model(images)
            return replace_backward(model(images), held)

        return call

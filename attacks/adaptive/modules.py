"""Finding the modules that hide a model's gradient, and looking straight through them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...configs.errors import InputError
from ..access import CountingModel, Model
from ..checks import NotApplicable
from .views import View, replace_backward

KNOWN_PACKAGES = ("torch.", "timm.", "torchvision.")
"""Modules from here have honest gradients."""

PROBES = 8


@dataclass(frozen=True, kw_only=True)
class ThroughModules(View):
    """BPDA for every module that keeps its input's shape and hides or bends its gradient.

    Those are the modules through which no gradient passes, and home-made ones without parameters
    (quantisers, k-winners-take-all), whose gradient may be right and useless.

    Attributes:
        coarseness: ``None`` passes gradients straight through. A number replaces each element's slope by
            its mean slope over random steps of about ``coarseness`` standard deviations of the module's
            input, which sees over steps and switches.
    """

    coarseness: float | None = None

    def __post_init__(self) -> None:
        if self.coarseness is not None and self.coarseness <= 0:
            raise InputError(f"coarseness is {self.coarseness}; expected a number above 0, or None.")

    def surrogate(self, model: CountingModel, image: Tensor) -> Model:
        """Stand-in with other gradients through those modules."""
        suspects = suspicious_modules(model.wrapped, image)
        if not suspects:
            raise NotApplicable(
                "every module of the model passes its gradient on and comes from a known library, "
                "so there is nothing to look through; use another attack."
            )

        def call(images: Tensor) -> Tensor:
            with ExitStack() as stack:
                for module in suspects:
                    _watch(stack, module, self._replace)
                return model(images)

        return call

    def _replace(self, module: nn.Module, entered: Tensor, output: Tensor) -> Tensor | None:
        if not torch.is_grad_enabled():
            return None
        slope = 1.0 if self.coarseness is None else _coarse_slope(module, entered.detach(), self.coarseness)
        return replace_backward(output, slope * entered)


def _watch(stack: ExitStack, module: nn.Module, hook: Callable[[nn.Module, Any, Any], Any]) -> None:
    """Call ``hook(module, entered, output)`` after each pass of a module on a single tensor, until the stack ends.

    The module works on a copy: one that writes into its input would else hide what entered it.
    """
    entered: list[Tensor] = []

    def before(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor] | None:
        entered[:] = inputs if len(inputs) == 1 and isinstance(inputs[0], Tensor) else ()
        return (entered[0].clone(),) if entered else None

    def after(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        return hook(module, entered.pop(), output) if entered else None

    stack.callback(module.register_forward_pre_hook(before).remove)
    stack.callback(module.register_forward_hook(after).remove)


@torch.no_grad()
def _coarse_slope(module: nn.Module, entered: Tensor, coarseness: float) -> Tensor:
    """Mean elementwise slope over random steps; exact for elementwise linear modules."""
    deviation = entered.flatten(1).std(dim=1).clamp_min(1e-6).view(-1, *[1] * (entered.ndim - 1))
    total = torch.zeros_like(entered)
    for _ in range(PROBES):
        size = coarseness * deviation * (0.5 + torch.rand_like(entered))
        step = torch.where(torch.rand_like(entered) < 0.5, size, -size)
        total += (module.forward(entered + step) - module.forward(entered - step)) / (2 * step)
    return total / PROBES


def suspicious_modules(model: Model, image: Tensor) -> list[nn.Module]:
    """The innermost shape-keeping modules that block gradients, and home-made parameter-free ones.

    Args:
        model: Any model; a plain function has no modules to look at.
        image: (1, C, H, W), one of its images.
    """
    if not isinstance(model, nn.Module):
        return []
    recorder = _Recorder()
    with ExitStack() as stack, torch.enable_grad():
        for module in model.modules():
            _watch(stack, module, recorder)
        model(image.detach().clone().requires_grad_().clone())
    blocking = [m for m in recorder.blocking if not _holds_any(m, recorder.blocking)]
    return list(dict.fromkeys(blocking + recorder.home_made))


def _holds_any(module: nn.Module, others: list[nn.Module]) -> bool:
    inside = set(module.modules()) - {module}
    return any(other in inside for other in others)


class _Recorder:
    """A forward hook that tries each shape-keeping module alone."""

    def __init__(self) -> None:
        self.blocking: list[nn.Module] = []
        self.home_made: list[nn.Module] = []
        self._busy = False

    def __call__(self, module: nn.Module, entered: Tensor, output: Any) -> None:
        if self._busy or not _keeps_shape(entered, output):
            return
        self._busy = True
        if _blocks(module, entered):
            self.blocking.append(module)
        elif _is_home_made(module) and not _is_identity(module, entered):
            self.home_made.append(module)
        self._busy = False


def _keeps_shape(entered: Tensor, output: Any) -> bool:
    return isinstance(output, Tensor) and entered.is_floating_point() and entered.shape == output.shape


def _blocks(module: nn.Module, entered: Tensor) -> bool:
    leaf = entered.detach().clone().requires_grad_()
    output = module.forward(leaf.clone())
    if not output.requires_grad:
        return True
    cotangent = torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype, device=output.device)
    (gradient,) = torch.autograd.grad(output, leaf, cotangent.view_as(output), allow_unused=True)
    return gradient is None or not bool((gradient != 0).any())


def _is_identity(module: nn.Module, entered: Tensor) -> bool:
    """Whether a module outputs whatever enters it; also off the grid of 8-bit pixels, where quantisers do not."""
    shift = torch.linspace(-0.01, 0.01, entered.numel(), dtype=entered.dtype, device=entered.device)
    moved = entered.detach() + shift.view_as(entered)
    with torch.no_grad():
        return torch.equal(module.forward(moved.clone()), moved)


def _is_home_made(module: nn.Module) -> bool:
    known = type(module).__module__.startswith(KNOWN_PACKAGES)
    return not known and not any(module.children()) and not any(True for _ in module.parameters())

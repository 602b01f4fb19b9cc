"""Views: a model seen with the same answers, but with gradients that an attacker can follow.

BPDA (Athalye, Carlini, Wagner, ICML 2018): keep the forward pass, replace the backward pass of what
hides the gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .checks import differentiable
from .counting import CountingModel, Model


@dataclass(frozen=True, kw_only=True)
class View(ABC):
    """A way to differentiate a model."""

    @property
    def uses_gradients(self) -> bool:
        """Whether the view takes gradients of the model."""
        return True

    @abstractmethod
    def surrogate(self, model: CountingModel, image: Tensor) -> Model:
        """Build the differentiable stand-in.

        Args:
            model: The model under attack behind its counter: to be called; ``model.wrapped`` to be looked into.
            image: (1, C, H, W), one of its images, for looking inside.

        Raises:
            NotApplicable: The model has nothing that this view could replace.
        """


def replace_backward(output: Tensor, alternative: Tensor) -> Tensor:
    """The value of ``output`` with the gradient of ``alternative`` (same shape)."""
    return _OtherGradient.apply(output, alternative)  # pyright: ignore[reportReturnType]


class _OtherGradient(torch.autograd.Function):
    """Written without ``detach``, which another view around this one may be looking through."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, alternative: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return output.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, gradient


def carries_gradient(model: Model, image: Tensor) -> bool:
    """Whether any gradient flows from the logits to the pixels of one image (1, C, H, W).

    Raises:
        NotApplicable: The model does not run with gradients.
    """
    with torch.enable_grad(), differentiable():
        leaf = image.detach().clone().requires_grad_()
        logits = model(leaf.clone())
        if not logits.requires_grad:
            return False
        weights = torch.linspace(-1.0, 1.0, logits.shape[1], dtype=logits.dtype, device=logits.device)
        (gradient,) = torch.autograd.grad((logits * weights).sum(), leaf, allow_unused=True)
    return gradient is not None and bool((gradient != 0).any())

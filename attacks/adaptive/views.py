"""Views: a model seen with the same answers, but with gradients that an attacker can follow.

BPDA (Athalye, Carlini, Wagner, ICML 2018): keep the forward pass, replace the backward pass of what
hides the gradient: by an average over neighbours, by an estimate from values alone, or by looking through calls that
cut it (detach, no_grad, rounding).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...configs.errors import InputError
from ..access import CountingModel, Model
from ..checks import NotApplicable, differentiable


@dataclass(frozen=True, kw_only=True)
class View(ABC):
    """A way to differentiate a model.

    Attributes:
        uses_gradients: Whether the view takes gradients of the model.
    """

    uses_gradients: ClassVar[bool] = True

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


@dataclass(frozen=True, kw_only=True)
class SmoothedView(View):
    """Gradient averaged over noisy copies of the image; the value is the clean one's.

    Attributes:
        sigma: Standard deviation of the noise, in pixel units.
        samples: Copies per image.
    """

    sigma: float = 8 / 255
    samples: int = 10

    def __post_init__(self) -> None:
        _check_positive(self.sigma, self.samples)

    def surrogate(self, model: CountingModel, image: Tensor) -> Model:
        """Stand-in with the averaged gradient."""

        def call(images: Tensor) -> Tensor:
            logits = model(images)
            if not torch.is_grad_enabled():
                return logits
            copies = [model(self._noisy(images)) for _ in range(self.samples)]
            return replace_backward(logits, torch.stack(copies).mean(dim=0))

        return call

    def _noisy(self, images: Tensor) -> Tensor:
        """Noisy pixels in [0, 1]; clipping takes no pixel's gradient away."""
        noisy = images + self.sigma * torch.randn_like(images)
        return replace_backward(noisy.clamp(0.0, 1.0), images)


@dataclass(frozen=True, kw_only=True)
class EstimatedView(View):
    """Gradient estimated from values alone, by antithetic random differences.

    Natural evolution strategies as in Ilyas et al., ICML 2018; SPSA as in Uesato et al., ICML 2018.

    Attributes:
        sigma: Length of the differences, in pixel units: coarse enough to look over hidden steps.
        samples: Pairs of queries per image and gradient.
    """

    uses_gradients: ClassVar[bool] = False
    sigma: float = 4 / 255
    samples: int = 50

    def __post_init__(self) -> None:
        _check_positive(self.sigma, self.samples)

    def surrogate(self, model: CountingModel, image: Tensor) -> Model:
        """Stand-in with the estimated gradient."""
        return lambda images: _Differences.apply(images, model, self.sigma, self.samples)


class _Differences(torch.autograd.Function):
    """The model's values forward, random differences backward."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, model: Model, sigma: float, samples: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.images, ctx.model, ctx.sigma, ctx.samples = images.detach(), model, sigma, samples
        return model(images.detach()).detach().clone()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # Around the nearest image with room on both sides, so that no pixel leaves [0, 1].
        images, total = ctx.images.clamp(ctx.sigma, 1.0 - ctx.sigma), torch.zeros_like(ctx.images)
        with torch.no_grad():
            for _ in range(ctx.samples):
                direction = torch.randn_like(images).sign()
                shift = ctx.sigma * direction
                rise = ctx.model(images + shift) - ctx.model(images - shift)
                slope = (rise * cotangent).sum(dim=1) / (2 * ctx.sigma)
                total += slope.view(-1, *[1] * (images.ndim - 1)) * direction
        return total / ctx.samples, None, None, None


def _check_positive(sigma: float, samples: int) -> None:
    if not 0 < sigma <= 0.5 or samples < 1:
        raise InputError(
            f"sigma={sigma}, samples={samples}; expected 0 < sigma <= 0.5 and at least 1 sample."
        )


CUTTING: frozenset[Any] = frozenset(
    {
        Tensor.detach,
        torch.detach,
        vars(torch._C.TensorBase)["data"].__get__,
        Tensor.round,
        torch.round,
        Tensor.floor,
        torch.floor,
    }
    | {Tensor.ceil, torch.ceil, Tensor.trunc, torch.trunc, Tensor.sign, torch.sign}
)
"""Functions whose value is close to their argument, or follows it, and whose gradient is zero."""

TO_NUMBER: frozenset[Any] = frozenset({Tensor.__float__, Tensor.item})


@dataclass(frozen=True, kw_only=True)
class LookThroughCalls(View):
    """BPDA for the model's own ``detach``, ``no_grad``, ``round``, ``floor``, ``ceil``, ``trunc`` and ``sign``.

    Values stay; each of those calls passes its gradient on unchanged, wherever in the forward pass it
    stands: a predictor whose result is detached, a layer run without gradient, a quantiser.
    """

    def surrogate(self, model: CountingModel, image: Tensor) -> Model:
        """Stand-in that ignores the cuts."""
        mode = _IgnoreCuts()
        try:
            with torch.enable_grad(), mode:
                model(image.detach().clone().requires_grad_())
        except RuntimeError as error:
            raise NotApplicable(f"the model does not run with its gradient cuts ignored: {error}") from error
        if not mode.ignored:
            raise NotApplicable("the model cuts its gradient nowhere; use another attack.")

        def call(images: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return model(images)
            with _IgnoreCuts():
                return model(images)

        return call


class _IgnoreCuts(TorchFunctionMode):
    """Keeps gradients flowing where the code underneath stops them.

    Attributes:
        ignored: Number of times that a cut gradient was passed on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ignored = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch._C._set_grad_enabled:
            return self._set_grad_enabled(*args)
        if func in TO_NUMBER:  # a number carries no gradient: torch warns where a cut was ignored before
            return func(args[0].detach())
        result = func(*args, **(kwargs or {}))
        if (
            func in CUTTING
            and isinstance(args[0], Tensor)
            and args[0].requires_grad
            and torch.is_grad_enabled()
        ):
            self.ignored += 1
            return replace_backward(result, args[0])
        return result

    def _set_grad_enabled(self, enabled: bool) -> None:
        if enabled:
            torch._C._set_grad_enabled(True)
        else:
            self.ignored += 1

"""Looking through the calls by which a forward pass cuts its own gradient: detach, no_grad, rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .checks import NotApplicable
from .counting import CountingModel, Model
from .views import View, replace_backward

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
        ignored: How often a gradient was cut and passed on.
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

"""The wrapper through which every attack sees its model: it counts what the attack spends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Model = nn.Module | Callable[[Tensor], Tensor]


class CountingModel(nn.Module):
    """A model seen through a counter of images queried and of image gradients taken.

    Inputs reach the model contiguous and in the images' own floating type, and gradients come back
    contiguous: the attack libraries reshape both with ``view``. The wrapped model is not registered
    as a submodule, so that nothing a library does to the wrapper (``to``, ``eval``) reaches it.

    Attributes:
        queries: Images passed forward so far.
        gradients: Images passed backward so far.
        bad_gradients: Those among them whose gradient held a NaN or an infinity.
        notes: What the attack had to leave out or change, one sentence each.
    """

    def __init__(self, model: Model, dtype: torch.dtype) -> None:
        super().__init__()
        self._unregistered = (model,)
        self._dtype = dtype
        self.queries = 0
        self.gradients = 0
        self.bad_gradients = 0
        self.notes: list[str] = []
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        self.queries += len(images)
        entered = _Gate.apply(images, self)
        return self._unregistered[0](entered.to(self._dtype).contiguous())

    def count_gradient(self, gradient: Tensor) -> None:
        """Record one backward pass of a batch."""
        self.gradients += len(gradient)
        self.bad_gradients += int((~gradient.flatten(1).isfinite().all(dim=1)).sum())


class _Gate(torch.autograd.Function):
    """Identity whose backward pass is counted."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, counter: CountingModel) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.counter = counter
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.counter.count_gradient(gradient)
        return gradient.contiguous(), None

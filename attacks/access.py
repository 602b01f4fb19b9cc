"""How attacks reach a model: counted, seeded, with frozen parameters, and wrapped for foolbox."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from foolbox.models.pytorch import PyTorchModel


Model = nn.Module | Callable[[Tensor], Tensor]


@dataclass
class Tally:
    """Queries, gradients and notes of an attack.

    Attributes:
        queries: Images passed forward so far.
        gradients: Images passed backward so far.
        bad_gradients: Those among them whose gradient held a NaN or an infinity.
        zero_gradients: Those among them whose gradient was zero in every pixel.
        notes: Sentences about what the attack left out or changed.
        watch: Called with the number of images of every forward pass, for a progress bar.
    """

    queries: int = 0
    gradients: int = 0
    bad_gradients: int | Tensor = 0
    zero_gradients: int | Tensor = 0
    notes: list[str] = field(default_factory=list)
    watch: Callable[[int], object] = lambda count: None

    def count_query(self, count: int) -> None:
        """Record one forward pass of so many images."""
        self.queries += count
        self.watch(count)

    def count_gradient(self, gradient: Tensor) -> None:
        """Record one backward pass of a batch."""
        self.gradients += len(gradient)
        # Tensors, which are read once at the end: each look would wait for the device.
        flat = gradient.flatten(1)
        self.bad_gradients = self.bad_gradients + (~flat.isfinite().all(dim=1)).sum()
        self.zero_gradients = self.zero_gradients + (flat == 0).all(dim=1).sum()


class CountingModel(nn.Module):
    """A model seen through a counter of images queried and of image gradients taken.

    Inputs reach the model as a contiguous copy, which it may change, in the images' own floating type, and gradients
    come back contiguous: the attack libraries reshape both with ``view``. The wrapped model is not registered
    as a submodule, so that nothing a library does to the wrapper (``to``, ``eval``) reaches it.

    Attributes:
        tally: The counts.
    """

    def __init__(self, model: Model, dtype: torch.dtype) -> None:
        super().__init__()
        self._unregistered = (model,)
        self._dtype = dtype
        self._counts = True
        self.tally = Tally()
        self.eval()

    @property
    def wrapped(self) -> Model:
        """The model behind the counter."""
        return self._unregistered[0]

    def replaced_by(self, surrogate: Model) -> CountingModel:
        """Stand another model before this one, which goes on counting as often as the stand-in calls it."""
        stand_in = CountingModel(surrogate, self._dtype)
        stand_in.tally, stand_in._counts = self.tally, False
        return stand_in

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        if self._counts:
            self.tally.count_query(len(images))
        entered = _Gate.apply(images, self.tally if self._counts else None)
        return self.wrapped(entered.to(self._dtype).contiguous())


class _Gate(torch.autograd.Function):
    """A copy whose backward pass is counted and contiguous."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, tally: Tally | None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.tally = tally
        return images.clone(memory_format=torch.contiguous_format)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if ctx.tally is not None:
            ctx.tally.count_gradient(gradient)
        return gradient.contiguous(), None


@contextmanager
def frozen_parameters(model: Model) -> Iterator[None]:
    """Stop the libraries' ``backward`` from leaving gradients in the model's parameters."""
    trainable = [p for p in model.parameters() if p.requires_grad] if isinstance(model, nn.Module) else []
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's and numpy's global generators for the block, then restore their states.

    The attack libraries draw from the global generators, so nothing less makes them repeatable.
    """
    numpy_state = np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)


def as_foolbox(model: CountingModel, images: Tensor) -> PyTorchModel:
    """Wrap a counted model for foolbox, on the device of ``images``, with bounds [0, 1]."""
    from foolbox.models.pytorch import PyTorchModel

    return PyTorchModel(model, bounds=(0, 1), device=images.device)

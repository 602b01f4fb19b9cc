"""One optimiser step: forward, backward, clip, update; without waiting for the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import accelerate
import torch
from torch import Tensor, nn

from ..configs import InputError, TrainConfig
from ..configs.device import unwatched
from ..configs.rates import rate_factor, set_rates
from ..models import Classifier
from .losses import Batch, LossResult, StandardLoss
from .record import COUNTED, precise
from .sampling import DROPOUT, mixed_seed
from .source import MEMORY_SIGNS, Share


@contextmanager
def memory_explained(recipe: TrainConfig, step: int) -> Iterator[None]:
    """Turn a failed allocation in a step, and a part too small for batch norm, into a sentence that names the settings.

    Raises:
        InputError: If the block ran out of the device's or the computer's memory, or had one image for a batch norm.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _explanation(recipe, step) from error
    except RuntimeError as error:
        # On the CPU, torch reports a failed allocation as a plain RuntimeError.
        if any(sign in str(error).lower() for sign in MEMORY_SIGNS):
            raise _explanation(recipe, step) from error
        raise
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            f"batch norm cannot train on a part of one image whose map is 1 x 1 (step {step + 1}); raise "
            "train.batch_size, lower train.accumulation or the number of processes, or take a smaller stride."
        ) from error


def _explanation(recipe: TrainConfig, step: int) -> InputError:
    parts = min(2 * recipe.accumulation, recipe.batch_size)
    advice = (
        f"raise train.accumulation to {parts} (the same step in smaller parts, each with its own statistics in batch "
        "norm), or lower train.batch_size; where this folder has saved states, choose another one with it."
        if parts > recipe.accumulation
        else "take a smaller model, or fewer cycles of its front-end."
    )
    return InputError(
        f"out of memory at step {step + 1}: train.batch_size {recipe.batch_size} in {recipe.accumulation} part(s) does "
        f"not fit; {advice}"
    )


class Objective(nn.Module):
    """Model and loss as one module, so that several processes wrap, and synchronise, both at once."""

    def __init__(self, model: Classifier, loss: StandardLoss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(
        self, images: Tensor, labels: Tensor, views: tuple[Tensor, ...], clean: Tensor | None
    ) -> LossResult:
        """Return the loss of a batch; see ``train.losses``."""
        return self.loss(self.model, Batch(images, labels, views, clean))


class Stepper:
    """Does one step after the other.

    Args:
        objective: Model and loss, prepared by the accelerator.
        optimiser: The optimiser, prepared by the accelerator.
        recipe: Rates, clipping, accumulation.
        accelerator: Accelerator of the run.
        total_steps: Length of the run.
    """

    def __init__(
        self,
        objective: nn.Module,
        optimiser: Any,
        recipe: TrainConfig,
        accelerator: accelerate.Accelerator,
        total_steps: int,
    ) -> None:
        self.objective, self.optimiser, self.recipe = objective, optimiser, recipe
        self.accelerator, self.total_steps = accelerator, total_steps

    def __call__(self, step: int, share: Share) -> dict[str, Tensor | float]:
        """Train on a process's share of a step.

        Returns:
            Sums over the share's images: "loss", "correct", "images" and the figures of the loss.

        Raises:
            InputError: If memory runs out.
        """
        set_rates(self.optimiser, rate_factor(step, self.total_steps, self.recipe.warmup or 0.0))
        process = self.accelerator.process_index
        # For dropout, stochastic depth, spread lambda and the starts of attacks; processes draw differently.
        keys = (self.recipe.seed, DROPOUT, step) + ((process,) if process else ())
        torch.manual_seed(mixed_seed(*keys))
        with memory_explained(self.recipe, step), unwatched():
            self.optimiser.zero_grad()
            figures = self._accumulate(share)
            if self.recipe.clip_norm:
                self.accelerator.clip_grad_norm_(self.objective.parameters(), self.recipe.clip_norm)
            self.optimiser.step()
        return figures

    def _accumulate(self, share: Share) -> dict[str, Tensor | float]:
        """Add up the gradients of the batch's parts; only the last one waits for other processes."""
        # As many parts in every process, whose synchronised batch norms wait for one another.
        parts = _parts(share.batch, min(self.recipe.accumulation, share.smallest))
        images = len(share.batch.labels)
        figures: dict[str, Tensor | float] = {}
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.objective):
                with self.accelerator.autocast():
                    result = self.objective(part.images, part.labels, part.views, part.clean)
                weight = share.weight * len(part.labels) / images
                loss = result.loss if weight == 1.0 else result.loss * weight
                self.accelerator.backward(loss)
            if share.weight:
                _add(figures, result, part.labels)
        return figures or {"loss": torch.zeros((), device=share.batch.images.device)}


def _parts(batch: Batch, count: int) -> list[Batch]:
    """Cut a batch into up to ``count`` parts of equal size, to within one image."""
    if count == 1:
        return [batch]
    images, labels = batch.images.tensor_split(count), batch.labels.tensor_split(count)
    views = [view.tensor_split(count) for view in batch.views]
    clean = (None,) * count if batch.clean is None else batch.clean.tensor_split(count)
    whole = [
        Batch(x, y, tuple(view[i] for view in views), clean[i])
        for i, (x, y) in enumerate(zip(images, labels, strict=True))
    ]
    return [part for part in whole if len(part.labels)]


def _add(figures: dict[str, Tensor | float], result: LossResult, labels: Tensor) -> None:
    count = len(labels)
    for name in COUNTED & result.figures.keys():
        raise InputError(
            f"the front-end calls a figure or a loss {name!r}, a name that training has; rename it."
        )
    seen: dict[str, Tensor | float] = {
        "loss": precise(result.loss) * count,
        "correct": (result.logits.argmax(1) == labels).sum(),
        "images": float(count),
        **{name: precise(value) * count for name, value in result.figures.items()},
    }
    for name, value in seen.items():
        figures[name] = figures.get(name, 0.0) + value

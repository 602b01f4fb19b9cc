"""Accuracy on the held-out part of the training set, clean and attacked; the test set is never seen here."""

from __future__ import annotations

from collections.abc import Iterator

import accelerate
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attacks import as_threat
from ..configs import TrainConfig
from ..data import ImageDataset
from .perturb import InnerAttack, cross_entropy_ascent
from .seeds import mixed_seed

ROBUST = 6
STEPS = 10


class Validator:
    """Measures a model on held-out images, shared out over the processes.

    Args:
        dataset: Held-out training images; None measures nothing.
        recipe: Batch size, and what is attacked.
        accelerator: For the device and the other processes.
    """

    def __init__(
        self, dataset: ImageDataset | None, recipe: TrainConfig, accelerator: accelerate.Accelerator
    ) -> None:
        self.dataset, self.recipe, self.accelerator = dataset, recipe, accelerator
        self.attack: InnerAttack | None = None
        if recipe.measures_robustness:
            threat = as_threat(recipe.loss.threat)
            self.attack = InnerAttack(
                threat=threat,
                steps=STEPS,
                step_size=threat.epsilon / 4,
                gradient_mode=recipe.loss.gradient_mode,
            )

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Return ``val_loss``, ``val_accuracy`` and, where the recipe asks, ``val_robust``.

        Args:
            model: In evaluation mode.
        """
        if self.dataset is None:
            return {}
        correct, loss = self._clean(model, self.dataset)
        count = len(self.dataset)
        figures = {"val_loss": loss / count, "val_accuracy": correct / count}
        if self.attack is not None:
            size = self.recipe.select.robust_images
            chosen = self.dataset.split(size, seed=0)[1] if size < count else self.dataset
            figures["val_robust"] = self._attacked(model, self.attack, chosen) / len(chosen)
        return figures

    @torch.no_grad()
    def _clean(self, model: nn.Module, dataset: ImageDataset) -> tuple[float, float]:
        correct = loss = 0.0
        for images, labels in self._batches(dataset):
            logits = model(images).float()
            correct += float((logits.argmax(1) == labels).sum())
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        return self._total(correct), self._total(loss)

    def _attacked(self, model: nn.Module, attack: InnerAttack, dataset: ImageDataset) -> float:
        correct = 0.0
        torch.manual_seed(mixed_seed(self.recipe.seed, ROBUST, self.accelerator.process_index))
        for images, labels in self._batches(dataset):
            attacked = attack(model, images, cross_entropy_ascent(model, labels))
            with torch.no_grad():
                correct += float((model(attacked).argmax(1) == labels).sum())
        return self._total(correct)

    def _batches(self, dataset: ImageDataset) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's batches."""
        parts = self.recipe.accumulation * self.accelerator.num_processes
        size = -(-self.recipe.batch_size // parts)  # what fits in a step fits here
        mine = range(len(dataset))[self.accelerator.process_index :: self.accelerator.num_processes]
        for start in range(0, len(mine), size):
            yield dataset.tensors(mine[start : start + size], self.accelerator.device)

    def _total(self, value: float) -> float:
        if self.accelerator.num_processes == 1:
            return value
        local = torch.tensor([value], device=self.accelerator.device)
        return float(self.accelerator.reduce(local, "sum"))  # type: ignore[arg-type]

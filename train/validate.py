"""Accuracy on the held-out part of the training set, clean and attacked; the test set is never seen here."""

from __future__ import annotations

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
            model: In evaluation mode; parameters keep their gradients' settings.
        """
        if self.dataset is None:
            return {}
        count = len(self.dataset)
        correct, loss = self._clean(model, range(count))
        figures = {"val_loss": loss / count, "val_accuracy": correct / count}
        if self.attack is not None:
            size = min(self.recipe.select.robust_images, count)
            chosen = range(0, count, max(1, count // size))[:size]
            figures["val_robust"] = self._attacked(model, self.attack, chosen) / len(chosen)
        return figures

    @torch.no_grad()
    def _clean(self, model: nn.Module, chosen: range) -> tuple[float, float]:
        correct = loss = 0.0
        for images, labels in self._batches(chosen):
            logits = model(images).float()
            correct += float((logits.argmax(1) == labels).sum())
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        return self._total(correct), self._total(loss)

    def _attacked(self, model: nn.Module, attack: InnerAttack, chosen: range) -> float:
        correct = 0.0
        torch.manual_seed(mixed_seed(self.recipe.seed, ROBUST, self.accelerator.process_index))
        for images, labels in self._batches(chosen):
            attacked = attack(model, images, cross_entropy_ascent(model, labels))
            with torch.no_grad():
                correct += float((model(attacked).argmax(1) == labels).sum())
        return self._total(correct)

    def _batches(self, chosen: range) -> list[tuple[Tensor, Tensor]]:
        """Return this process's batches."""
        assert self.dataset is not None
        size = self.recipe.batch_size
        mine = chosen[self.accelerator.process_index :: self.accelerator.num_processes]
        parts = [mine[start : start + size] for start in range(0, len(mine), size)]
        return [self.dataset.tensors(part, self.accelerator.device) for part in parts]

    def _total(self, value: float) -> float:
        if self.accelerator.num_processes == 1:
            return value
        local = torch.tensor([value], device=self.accelerator.device)
        return float(self.accelerator.reduce(local, "sum"))  # type: ignore[arg-type]

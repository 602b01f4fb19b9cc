"""Accuracy on the held-out part of the training set, clean and attacked, which epoch was best and when to stop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import accelerate
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attacks import as_threat
from ..configs import InputError, TrainConfig
from ..configs.device import unwatched
from ..data import ImageDataset
from .perturb import InnerAttack, cross_entropy_ascent
from .record import precise
from .sampling import mixed_seed

Curves = Sequence[dict[str, float]]

LEAST_TO_LOSE = 0.05  # of a robust accuracy; below it a fall may be chance


def keeps_best(recipe: TrainConfig) -> bool:
    """Whether the weights of the best epoch are kept."""
    return recipe.select.keep == "best" or recipe.loss_class.may_collapse


def best_epoch(curves: Curves, recipe: TrainConfig) -> int:
    """Return the position of the best epoch (Rice, Wong and Kolter, ICML 2020).

    Of equally robust ones it is the most accurate, then the first.
    """
    robust = recipe.select.by == "robust" or recipe.loss_class.may_collapse
    key = "val_robust" if robust else "val_accuracy"
    return max(range(len(curves)), key=lambda epoch: (curves[epoch][key], curves[epoch]["val_accuracy"]))


def returns_best_epoch(curves: Curves, recipe: TrainConfig) -> bool:
    """Whether the run's outcome is its best epoch: as chosen, or because training with one attack step broke down."""
    return bool(curves) and (recipe.select.keep == "best" or overfitted(curves, recipe))


def overfitted(curves: Curves, recipe: TrainConfig) -> bool:
    """Tell catastrophic overfitting: the robust accuracy of training with one attack step fell far below its best.

    Far is ``select.largest_drop``, or to a quarter of the best.
    """
    if not recipe.loss_class.may_collapse or not curves:
        return False
    best, last = curves[best_epoch(curves, recipe)]["val_robust"], curves[-1]["val_robust"]
    collapsed = best >= LEAST_TO_LOSE and last <= best / 4
    return collapsed or last < best - _largest_drop(recipe)


def _largest_drop(recipe: TrainConfig) -> float:
    drop = recipe.select.largest_drop
    return LARGEST_DROP if drop is None else drop


def stop_reason(curves: Curves, recipe: TrainConfig) -> str:
    """Return why training should stop before its last epoch, or nothing."""
    if overfitted(curves, recipe):
        best = best_epoch(curves, recipe)
        return (
            f"catastrophic overfitting: robust accuracy fell from {curves[best]['val_robust']:.1%} in epoch "
            f"{best + 1} to {curves[-1]['val_robust']:.1%}; the weights of epoch {best + 1} are kept"
        )
    patience = recipe.select.patience
    if patience and curves and len(curves) - 1 - best_epoch(curves, recipe) >= patience:
        return f"no better epoch than {best_epoch(curves, recipe) + 1} in the last {patience}"
    return ""


ROBUST = 6
ROBUST_IMAGES = 256
LARGEST_DROP = 0.2

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
            if not hasattr(recipe.loss, "threat"):
                raise InputError(
                    'train.select.by is "robust", and this loss has no threat to attack with; take an adversarial '
                    "one, such as train.loss: pgd."
                )
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
        with unwatched():
            return self._measured(model, self.dataset)

    def _measured(self, model: nn.Module, dataset: ImageDataset) -> dict[str, float]:
        correct, loss = self._clean(model, dataset)
        count = len(dataset)
        figures = {"val_loss": loss / count, "val_accuracy": correct / count}
        if self.attack is not None:
            size = self.recipe.select.robust_images or ROBUST_IMAGES
            chosen = dataset.split(size, seed=0)[1] if size < count else dataset
            figures["val_robust"] = self._attacked(model, self.attack, chosen) / len(chosen)
        return figures

    @torch.no_grad()
    def _clean(self, model: nn.Module, dataset: ImageDataset) -> tuple[float, float]:
        sums = [precise(torch.zeros(2, device=self.accelerator.device))]  # read once, at the end
        for images, labels in self._batches(dataset):
            logits = model(images).float()
            loss = F.cross_entropy(logits, labels, reduction="sum")
            sums.append(torch.stack([precise((logits.argmax(1) == labels).sum()), precise(loss)]))
        correct, loss = self._total(sums)
        return correct, loss

    def _attacked(self, model: nn.Module, attack: InnerAttack, dataset: ImageDataset) -> float:
        sums = [precise(torch.zeros(1, device=self.accelerator.device))]
        torch.manual_seed(mixed_seed(self.recipe.seed, ROBUST, self.accelerator.process_index))
        for images, labels in self._batches(dataset):
            attacked = attack(model, images, cross_entropy_ascent(model, labels))
            with torch.no_grad():
                sums.append(precise((model(attacked).argmax(1) == labels).sum())[None])
        (correct,) = self._total(sums)
        return correct

    def _batches(self, dataset: ImageDataset) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's batches."""
        parts = self.recipe.accumulation * self.accelerator.num_processes
        size = -(-self.recipe.batch_size // parts)  # what fits in a step fits here
        mine = range(len(dataset))[self.accelerator.process_index :: self.accelerator.num_processes]
        for start in range(0, len(mine), size):
            yield dataset.tensors(mine[start : start + size], self.accelerator.device)

    def _total(self, sums: list[Tensor]) -> list[float]:
        local = torch.stack(sums).sum(0)
        if self.accelerator.num_processes > 1:
            local = self.accelerator.reduce(local, "sum")
        return local.tolist()  # type: ignore[union-attr]

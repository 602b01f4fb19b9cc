"""The front-end over training: frozen, then learning; lam and cycles annealed, lam spread."""

from __future__ import annotations

from ..configs import InputError, TrainConfig
from ..frontend import LCA
from ..models import Classifier


class FrontendSchedule:
    """Sets the front-end before each step; does nothing for other models.

    Args:
        model: Its front-end's settings are those that annealing moves to.
        recipe: What is annealed, and how long the front-end is frozen.
        total_steps: Length of the run.
        steps_per_epoch: Length of an epoch.

    Raises:
        InputError: If lam is both learned and annealed.
    """

    def __init__(
        self, model: Classifier, recipe: TrainConfig, total_steps: int, steps_per_epoch: int
    ) -> None:
        self.layer = model.frontend if isinstance(model.frontend, LCA) else None
        self.anneal = recipe.anneal
        self.lam_spread = recipe.augment.lam_spread
        self.frozen_steps = recipe.epochs_frozen * steps_per_epoch
        self.span = recipe.anneal.share * total_steps
        self.lam, self.iterations = 0.0, 0
        if self.layer is None:
            return
        if self.layer.lam_raw is not None and self.anneal.lam_factor != 1.0:
            raise InputError(
                "lam is learned and annealed at once; drop model.learn_lam or train.anneal.lam_factor."
            )
        self.lam, self.iterations = float(self.layer.lam), self.layer.iterations

    def apply(self, step: int) -> None:
        """Set the front-end for this step; it never waits for the device."""
        if self.layer is None:
            return
        self.layer.requires_grad_(step >= self.frozen_steps)
        self.layer.lam_spread = self.lam_spread
        left = max(0.0, 1.0 - step / self.span) if self.span else 0.0
        if self.anneal.lam_factor != 1.0:
            self.layer.lam = self.lam * self.anneal.lam_factor**left
        if self.anneal.iterations is not None:
            self.layer.iterations = round(self.iterations + left * (self.anneal.iterations - self.iterations))

    def finish(self) -> None:
        """Set the model's own lam and cycles, with which it is measured and handed over."""
        if self.layer is None:
            return
        self.layer.lam_spread = 1.0
        if self.anneal.lam_factor != 1.0:
            self.layer.lam = self.lam
        self.layer.iterations = self.iterations

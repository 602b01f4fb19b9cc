"""The weights of a run: those that train, their average, the best epoch's; and which of them are measured and saved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ..configs import InputError, TrainConfig
from ..models import Classifier
from .optim import WeightAverage
from .state import RunState
from .validate import Curves, best_epoch, keeps_best, returns_best_epoch


class Weights:
    """Owns the model of a run: nothing else puts weights into it, or sets what its front-ends do.

    Args:
        model: The classifier that trains, on its device.
        recipe: Average, selection, epochs, compilation.
        training: Settings of each front-end's training.
        total_steps: Length of the run.
    """

    def __init__(
        self, model: Classifier, recipe: TrainConfig, training: Sequence[Any], total_steps: int
    ) -> None:
        self.model, self.recipe, self.training = model, recipe, training
        averages = recipe.average.kind != "none"
        self.average = WeightAverage(model, recipe.average, total_steps) if averages else None
        if recipe.compile:
            model.compile()  # attacks call it, losses inspect it
            model.inspect = torch.compile(model.inspect)  # type: ignore[method-assign]

    def state(self, optimiser: torch.optim.Optimizer, scaler: Any) -> RunState:
        """Return what is saved of the run; the best epoch's weights are kept there."""
        average = None if self.average is None else self.average.averaged
        self.saved = RunState(self.model, optimiser, average, scaler=scaler)
        return self.saved

    def set_epoch(self, epoch: float | None) -> None:
        """Freeze, anneal and spread as this epoch asks for; None for measuring, with the model's own settings."""
        models = [self.model]
        if epoch is None and self.average is not None:
            models.append(cast(Classifier, self.average.averaged.module))
        settings = self.training if len(self.training) > 1 else self.training[0]
        for model in models:
            model.frontend.at(epoch, self.recipe.epochs, settings)

    def after_step(self, step: int) -> None:
        """Take the weights after so many steps into the average."""
        if self.average is not None:
            self.average.update(self.model, step)

    def measured(self, batches: Iterable[Tensor]) -> Classifier:
        """Return the model that stands for the run now, in evaluation mode.

        Args:
            batches: Training images, for batch norm's statistics of an average.
        """
        self.set_epoch(None)
        return self.model.eval() if self.average is None else self.average.model(batches)

    def keep_best(self, measured: Classifier, curves: Curves) -> None:
        """Keep the weights that were just measured, if theirs is the best epoch so far."""
        if keeps_best(self.recipe) and best_epoch(curves, self.recipe) == len(curves) - 1:
            self.saved.best = {name: value.clone() for name, value in measured.state_dict().items()}

    def finish(self, curves: Curves, batches: Iterable[Tensor]) -> None:
        """Put the run's outcome into the model: its best epoch, its average, or its last weights."""
        self.set_epoch(None)
        self.model._compiled_call_impl = None
        self.model.__dict__.pop("inspect", None)  # the compiled one
        if returns_best_epoch(curves, self.recipe):
            self.model.load_state_dict(self.saved.best)
        elif self.average is not None:
            self.model.load_state_dict(self.measured(batches).state_dict())
        self.model.eval()

    def check_finite(self, step: int) -> None:
        """Refuse weights that are not finite after a step.

        Raises:
            InputError: If they are not.
        """
        sound = torch.stack([torch.isfinite(parameter).all() for parameter in self.model.parameters()])
        if not bool(sound.all()):
            raise InputError(
                f"the weights are not finite after step {step}; lower train.learning_rate or train.clip_norm and "
                "choose another output folder. This one keeps the last good state."
            )

"""What moves the weights: the optimiser, its learning rate, the front-end's schedule, and averages of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from ..configs import InputError, TrainConfig
from ..configs.recipe import AverageConfig
from ..frontend import LCA, ConvDictionary, Equaliser
from ..models import Classifier, ConvFrontend


def make_optimiser(model: Classifier, config: TrainConfig) -> torch.optim.SGD:
    """SGD with Nesterov momentum; an LCA front-end at its own rate and without decay.

    Atoms are normalised on use, so that decay would only change their effective learning rate; biases and
    norms are not decayed either.
    """
    frontend = model.frontend if not isinstance(model.frontend, ConvFrontend) else None
    own = {id(parameter) for parameter in frontend.parameters()} if frontend is not None else set()
    groups: dict[str, list[nn.Parameter]] = {"decayed": [], "plain": [], "frontend": []}
    for parameter in model.parameters():
        kind = "frontend" if id(parameter) in own else "decayed" if parameter.ndim > 1 else "plain"
        groups[kind].append(parameter)
    rate = config.learning_rate
    settings = {
        "decayed": {"lr": rate, "weight_decay": config.weight_decay},
        "plain": {"lr": rate, "weight_decay": 0.0},
        "frontend": {"lr": rate * config.frontend_rate, "weight_decay": 0.0},
    }
    parameters = [{"params": groups[kind], **settings[kind]} for kind in groups if groups[kind]]
    return torch.optim.SGD(
        parameters, lr=rate, momentum=config.sgd_momentum, nesterov=config.sgd_momentum > 0
    )


def rate_factor(step: int, total: int, config: TrainConfig) -> float:
    """Return the share of the peak learning rate at a step, 0 to 1."""
    rising = config.warmup * total if config.schedule == "one-cycle" else 0.0
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(total - rising, 1.0)))


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


class WeightAverage:
    """The average and how it is kept.

    EMA (Polyak and Juditsky 1992) averages batch norm's statistics along with the weights; SWA (Izmailov et al.,
    UAI 2018) measures them anew on training images.

    Args:
        model: The model to follow; its weights now are where the average starts.
        config: Which average.
        total_steps: Length of the run.
    """

    def __init__(self, model: Classifier, config: AverageConfig, total_steps: int) -> None:
        self.config = config
        exponential = config.kind == "ema"
        self.averaged = AveragedModel(
            model,
            multi_avg_fn=get_ema_multi_avg_fn(config.decay) if exponential else None,
            use_buffers=exponential,
        )
        # torch keeps n_averaged, which it looks at in every step, on the CPU: nothing waits for the device.
        self.first = 0 if exponential else int(config.start * total_steps)

    def update(self, model: Classifier, step: int) -> None:
        """Take in the weights after ``step`` steps; before its start an average is just those weights."""
        if self.config.kind == "swa" and step <= self.first:
            self.averaged.n_averaged.zero_()
        self.averaged.update_parameters(model)

    def model(self, images: Iterable[Tensor]) -> Classifier:
        """Return the averaged model, ready for evaluation.

        Args:
            images: Batches of training images in [0, 1], for batch norm's statistics after SWA.
        """
        model: Classifier = self.averaged.module  # type: ignore[assignment]
        refresh_dictionaries(model)  # batch norm is to see the codes of the averaged atoms
        if self.config.kind == "swa" and any(isinstance(part, _BatchNorm) for part in model.modules()):
            keep_equalisers(model)
            update_bn(images, model)
        return model.eval()


def keep_equalisers(model: nn.Module) -> None:
    """Keep what the equaliser learned: it is not to move while batch norm is measured behind it."""
    for part in model.modules():
        if isinstance(part, Equaliser):
            part.learns = False


@torch.no_grad()
def refresh_dictionaries(model: nn.Module) -> None:
    """Bring the spectral bounds up to date: the bound of an average is not the average of the bounds."""
    for part in model.modules():
        if isinstance(part, ConvDictionary):
            part.refresh()

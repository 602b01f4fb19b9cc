"""The optimiser, its parameter groups and the schedule of its learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..configs import TrainConfig
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

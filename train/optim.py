"""The optimiser, and averages of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, compress
from typing import Any

import torch
from timm.optim import param_groups_layer_decay  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn, update_bn

from ..configs import InputError, TrainConfig
from ..configs.recipe import AverageConfig
from ..models import Classifier


def make_optimiser(model: Classifier, config: TrainConfig, training: Sequence[Any] = ()) -> torch.optim.SGD:
    """SGD with Nesterov momentum; each front-end, and with ``layer_decay`` each layer, at its own rate.

    Biases and norms are not decayed, nor what a front-end names; see ``Frontend.no_weight_decay``.

    Args:
        model: The classifier.
        config: Rate, momentum, decay.
        training: What happens to each front-end of the model in training: its ``rate`` counts, 1 without.

    Raises:
        InputError: If there is a ``layer_decay``, and the backbone does not say which layers it has.
    """
    kept = {f"frontend.{name}" for name in model.frontend.no_weight_decay()}
    several = len(model.frontend.sections) > 1
    factors = {
        f"frontend.stages.{i}." if several else "frontend.": getattr(part, "rate", 1.0)
        for i, part in enumerate(training)
    }
    layers = _layer_rates(model, config.layer_decay)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {(1.0, True): [], (1.0, False): []}
    for name, parameter in model.named_parameters():
        factor = next((factor for prefix, factor in factors.items() if name.startswith(prefix)), 1.0)
        factor *= layers.get(parameter, 1.0)
        if parameter.ndim == 1 and name.startswith("backbone."):
            factor *= config.bias_rate
        decayed = parameter.ndim > 1 and name not in kept
        groups.setdefault((factor, decayed), []).append(parameter)
    rate = config.learning_rate
    parameters = [
        {"params": members, "lr": rate * factor, "weight_decay": config.weight_decay if decayed else 0.0}
        for (factor, decayed), members in groups.items()
        if members
    ]
    return torch.optim.SGD(
        parameters, lr=rate, momentum=config.sgd_momentum, nesterov=config.sgd_momentum > 0
    )


def _layer_rates(model: Classifier, decay: float) -> dict[nn.Parameter, float]:
    """Return the factor on the rate of each weight of the backbone (Howard and Ruder, ACL 2018)."""
    if decay == 1.0:
        return {}
    groups = param_groups_layer_decay(model.backbone, layer_decay=decay)
    if len({group["lr_scale"] for group in groups}) < 2:
        raise InputError(
            f"train.layer_decay is {decay}, and the backbone {model.config.backbone!r} does not say which layers it "
            "has (timm's group_matcher); leave it out, or choose another backbone."
        )
    return {parameter: group["lr_scale"] for group in groups for parameter in group["params"]}


class WeightAverage:
    """The average and how it is kept.

    EMA (Polyak and Juditsky 1992) averages batch norm's statistics along with the weights; SWA (Izmailov et al.,
    UAI 2018) measures them anew on training images.

    Args:
        model: The model to follow; its weights now are where the average starts.
        config: Kind and settings of the average.
        total_steps: Length of the run.
    """

    def __init__(self, model: Classifier, config: AverageConfig, total_steps: int) -> None:
        self.config = config
        exponential = config.kind == "ema"
        self.averaged = AveragedModel(
            model,
            use_buffers=exponential,
        )
        self._advance = get_ema_multi_avg_fn(config.decay or 0.0) if exponential else get_swa_multi_avg_fn()
        self.first = 0 if exponential else int((config.start or 0.0) * total_steps)

    def update(self, model: Classifier, step: int) -> None:
        """Take in the weights after ``step`` steps; before its start an average is just those weights."""
        if self.config.kind == "swa" and step <= self.first:
            self.averaged.n_averaged.zero_()
        own, new = (self._averaged(part) for part in (self.averaged.module, model))
        # As AveragedModel.update_parameters does, which would send its count to the device and wait.
        count = int(self.averaged.n_averaged)  # it is on the CPU
        floats = [value.is_floating_point() for value in own]
        if count == 0:
            for mine, theirs in zip(own, new, strict=True):
                mine.copy_(theirs)
        for kind in (True, False) if count else ():
            mine, theirs = (list(compress(values, [f == kind for f in floats])) for values in (own, new))
            if mine:
                self._advance(mine, theirs, count)
        if self.config.kind == "swa":  # buffers are no weights: they stay the model's own
            for mine, theirs in zip(self.averaged.module.buffers(), model.buffers(), strict=True):
                mine.detach().copy_(theirs)
        self.averaged.n_averaged += 1

    def _averaged(self, model: nn.Module) -> list[Tensor]:
        buffers = model.buffers() if self.config.kind == "ema" else ()
        return [value.detach() for value in chain(model.parameters(), buffers)]

    def model(self, images: Iterable[Tensor]) -> Classifier:
        """Return the averaged model, ready for evaluation.

        Args:
            images: Batches of training images in [0, 1], for batch norm's statistics after SWA.
        """
        model: Classifier = self.averaged.module  # type: ignore[assignment]
        model.frontend.refresh()  # batch norm is to see the codes of the averaged atoms
        if self.config.kind == "swa" and any(isinstance(part, _BatchNorm) for part in model.modules()):
            with statistics_kept(model):
                update_bn(images, model)
        return model.eval()


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Keep the statistics that front-ends learn (see ``Frontend.learns_statistics``) as they are in the block."""
    parts = [part for part in model.modules() if getattr(part, "learns_statistics", False)]
    try:
        for part in parts:
            part.learns_statistics = False  # type: ignore[assignment]
        yield
    finally:
        for part in parts:
            part.learns_statistics = True  # type: ignore[assignment]

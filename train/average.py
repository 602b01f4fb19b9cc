"""An average of the weights along the way: exponential (EMA) or over the last part of training (SWA)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from ..configs.recipe import AverageConfig
from ..frontend import ConvDictionary, Equaliser
from ..models import Classifier


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

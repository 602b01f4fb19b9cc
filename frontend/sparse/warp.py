"""WARP-LCA: the LCA warmed up by a predictor of its states (Kasenbacher et al., arXiv 2410.18794)."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...configs.errors import InputError
from ..base import Encoding, register_frontend
from ..image_statistics import standardise
from ..pretrained import Primed
from .encoding import SparseEncoding
from .functional import left_padding
from .lca import LCA
from .problem import Problem
from .schedule import LearnedSteps, Schedule, plain_schedule
from .settings import WarpLCASettings, WarpLCATraining
from .solver import solve
from .threshold import of_images

logger = logging.getLogger(__name__)
PREDICTOR = {"predictor_width": 64, "predictor_depth": 3}
"""Sizes of the predictor, and what they are where neither settings nor primed weights say."""


class StatePredictor(nn.Module):
    """A small fully convolutional network from standardised images to membrane potentials.

    One strided convolution with the dictionary's geometry, then residual blocks at code resolution (He et
    al., CVPR 2016), then a pointwise head. Depthwise convolutions would take fewer weights but, on CPUs, three
    times the time. It predicts states, not activations: a state below the threshold carries how far below.

    Args:
        in_channels: Image channels C.
        features: Number of atoms M.
        kernel_size: Side of the first convolution, the atoms' side.
        stride: The dictionary's stride.
        width: Channels inside.
        depth: Number of residual blocks.
        lam: The threshold value whose states it predicts; saved with the weights.
    """

    def __init__(
        self,
        in_channels: int,
        features: int,
        kernel_size: int,
        stride: int,
        *,
        width: int = 96,
        depth: int = 3,
        lam: float = 0.5,
    ) -> None:
        super().__init__()
        self.overhang = 1 - kernel_size % 2  # as in functional.analyse: even kernels need one more pixel
        padding = left_padding(kernel_size)
        self.stem = nn.Conv2d(in_channels, width, kernel_size, stride=stride, padding=padding)
        self.blocks = nn.Sequential(*[_Block(width) for _ in range(depth)])
        self.head = nn.Conv2d(width, features, 1)
        self.lam = lam

    def forward(self, images: Tensor) -> Tensor:
        """Map standardised images (N, C, H, W) to states (N, M, ceil(H/s), ceil(W/s))."""
        if self.overhang:
            images = F.pad(images, (0, 1, 0, 1))
        return self.head(self.blocks(self.stem(images)))

    def get_extra_state(self) -> Tensor:
        """Return ``lam`` as a tensor, to be saved with the weights."""
        return torch.tensor(self.lam, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take back what ``get_extra_state`` gave."""
        self.lam = float(state)


class _Block(nn.Module):
    """x + pointwise(relu(3x3 convolution(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(width, width, 3, padding=1)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(torch.relu(self.convolve(x)))


@register_frontend("warp-lca")
class WarpLCA(LCA):
    """LCA that starts from predicted states and takes learned steps, so that a few cycles suffice.

    The first ``iterations`` cycles (as many as at construction) take step sizes and momenta of their own.
    Unprimed they are trained inside the range eta < 2 (1 + mu) / L that is stable for every code, and further cycles
    take 1 / L and ``momentum``. A primed layer may take far longer steps, which suit sparse codes, with a guard that
    undoes, image by image, those that raise the energy too far; and its threshold may fall to lam from above.

    The predictor is primed for one value of lam. For another it is shown the image at another contrast, which is the
    same problem: with lam and the image scaled alike, states scale alike.

    Arguments are the fields of :class:`WarpLCASettings`.
    """

    Settings = WarpLCASettings
    Training = WarpLCATraining
    _preconditioned = True

    def _build(self, primed: Primed | None) -> None:
        sizes = {} if primed is None else primed.settings
        left_open = [name for name in PREDICTOR if getattr(self._settings, name) is None]
        filled = {name: sizes.get(name) or PREDICTOR[name] for name in left_open}
        self._settings = replace(self._settings, **filled)
        super()._build(primed)
        s = self._settings
        self.predictor = StatePredictor(
            s.in_channels,
            s.features,
            s.kernel_size,
            s.stride,
            width=s.predictor_width,
            depth=s.predictor_depth,
            lam=s.lam,
        )
        given = s.step_size is not None or s.accelerated
        self.steps = None if given else LearnedSteps(s.iterations, s.momentum)

    def _fixed_by(self, primed: Primed) -> tuple[str, ...]:
        learned = () if self.steps is None else ("momentum",)
        names = (*PREDICTOR, *learned)
        return (*super()._fixed_by(primed), *(name for name in names if name in primed.settings))

    def changed(self, settings: WarpLCASettings) -> WarpLCASettings:
        """Refuse what construction decides: whether steps are learned, and with which momentum they begin."""
        given = settings.step_size is not None or settings.accelerated
        if given != (self.steps is None) or (not given and settings.momentum != self._settings.momentum):
            raise InputError(
                "step_size, accelerated and momentum of WarpLCA decide at construction whether and how steps are "
                "learned; build it anew with them."
            )
        return settings

    def _fitted(self, primed: Primed, state: dict[str, Tensor]) -> dict[str, Tensor]:
        threshold = primed.settings.get("threshold", self._settings.threshold)
        if threshold != self._settings.threshold:
            logger.warning(
                "the primed front-end %r was primed for threshold %r (here %r): its predictor aims at other states",
                primed.source,
                threshold,
                self._settings.threshold,
            )
        learned = {name: state.pop(name) for name in list(state) if name.startswith("steps.")}
        return state if self.steps is None else state | _fitted_steps(self.steps, learned)

    def schedule(self, problem: Problem, iterations: int) -> Schedule:
        """Return the learned steps, followed by the plain ones where there are more cycles."""
        if self.steps is None or self.accelerated:
            return super().schedule(problem, iterations)
        bound = problem.operator.bound(preconditioned=self.steps.preconditioned)
        learned = self.steps(bound)
        further = max(iterations - len(learned), 0)
        tail = self.steps.tail(bound, further) if learned.guarded else super().schedule(problem, further)
        return Schedule(
            torch.cat([learned.step_size, tail.step_size])[:iterations],
            torch.cat([learned.momentum, tail.momentum])[:iterations],
            learned.guarded,
            learned.preconditioned,
            levels=self.steps.thresholds(iterations, problem.lam),
        )

    def initial_state(self, images: Tensor, lam: Tensor | float | None = None) -> Tensor | None:
        """Predict the states of standardised images; see :meth:`LCA.initial_state`."""
        # Autocast predicts in its own precision; the state keeps that of the images.
        lam = self.image_lam(standardise(images)) if lam is None else lam
        return self.predict(images, lam).to(images.dtype)

    def predict(self, images: Tensor, lam: Tensor | float) -> Tensor:
        """Predict the states of standardised images for a threshold value, one for all or (N, 1, 1, 1)."""
        if isinstance(lam, float) and lam == self.predictor.lam:
            return self.predictor(images)
        scale = lam / self.predictor.lam
        return scale * self.predictor(images / scale)

    def auxiliary_losses(self, encoding: Encoding) -> dict[str, Tensor]:
        """Return the self-distillation of a predictor that learns; see :meth:`distillation_loss`."""
        if not next(self.predictor.parameters()).requires_grad:
            return {}
        return {"distillation": self.distillation_loss(cast(SparseEncoding, encoding))}

    def distillation_loss(self, encoding: SparseEncoding, *, settle: int = 10, images: int = 8) -> Tensor:
        """Return the predictor's error against states that this layer settles to (self-distillation).

        The targets start at the encoding's final state and go on for ``settle`` momentum cycles without
        gradient; the error is relative to the targets' variance, so 1 is as good as predicting their mean.

        Args:
            encoding: From ``encode`` on the same images.
            settle: Further cycles before a state counts as target.
            images: Number of images of the batch to use.
        """
        standardised = encoding.standardised.images[:images].detach()
        with torch.no_grad():
            operator = encoding.operator.detached()
            schedule = plain_schedule(operator, settle, momentum=0.9)
            state = encoding.state[:images].detach()
            lam = of_images(encoding.lam, slice(images))
            target = solve(Problem(operator, standardised, self.threshold, lam), schedule, state=state)
        predicted = self.predict(standardised, lam)
        return (predicted - target).square().mean() / target.var().clamp_min(1e-12)


def _fitted_steps(own: LearnedSteps, learned: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return as many learned steps as the layer has cycles; cycles beyond them take the primed tail."""
    if "steps._extra_state" not in learned:
        return {}
    count = len(learned["steps.step_raw"])
    primed = LearnedSteps(max(count, len(own.step_raw)), own.tail_momentum)
    primed.set_extra_state(learned["steps._extra_state"])
    primed.fill(count, primed.tail_step, primed.tail_momentum)
    fitted = primed.state_dict(prefix="steps.")
    for name in ("steps.step_raw", "steps.momentum_raw"):
        fitted[name][:count] = learned[name]
        fitted[name] = fitted[name][: len(own.step_raw)]
    return fitted

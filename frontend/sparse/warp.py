"""WARP-LCA: the LCA warmed up by a predictor of its states (Kasenbacher et al., arXiv 2410.18794)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..encoding import Encoding, GradientMode, Output
from .functional import left_padding
from .lca import LCA
from .operator import ConvOperator
from .schedule import LearnedSteps, Schedule, plain_schedule
from .solver import solve
from .threshold import Threshold, of_images


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

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **options: Any
    ) -> None:
        # Older weights do not say which lam they are for: the layer's own.
        state_dict.setdefault(f"{prefix}_extra_state", self.get_extra_state())
        super()._load_from_state_dict(state_dict, prefix, *args, **options)


class _Block(nn.Module):
    """x + pointwise(relu(3x3 convolution(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(width, width, 3, padding=1)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(torch.relu(self.convolve(x)))


class WarpLCA(LCA):
    """LCA that starts from predicted states and takes learned steps, so that a few cycles suffice.

    The first ``iterations`` cycles (as many as at construction) take step sizes and momenta of their own.
    Unprimed they are trained inside the range eta < 2 (1 + mu) / L that is stable for every code, and further cycles
    take 1 / L and ``momentum``. A primed layer may take far longer steps, which suit sparse codes, with a guard that
    takes back, image by image, those that an image does not bear; and its threshold may fall to lam from above.

    The predictor is primed for one value of lam. For another it is shown the image at another contrast, which is the
    same problem: with lam and the image scaled alike, states scale alike.

    Arguments are those of :class:`LCA`, and:

    Args:
        predictor_width: Channels inside the predictor.
        predictor_depth: Number of its residual blocks.
    """

    _preconditioned = True

    def __init__(
        self,
        in_channels: int = 3,
        features: int = 64,
        kernel_size: int = 9,
        stride: int = 2,
        *,
        lam: float = 0.5,
        threshold: str | Threshold = "hard",
        iterations: int = 10,
        momentum: float = 0.9,
        step_size: float | None = None,
        output: Output = "code",
        gradient_mode: GradientMode = "unroll",
        learn_lam: bool = False,
        adaptive_lam: float = 0.0,
        predictor_width: int = 64,
        predictor_depth: int = 3,
    ) -> None:
        super().__init__(
            in_channels,
            features,
            kernel_size,
            stride,
            lam=lam,
            threshold=threshold,
            iterations=iterations,
            momentum=momentum,
            step_size=step_size,
            output=output,
            gradient_mode=gradient_mode,
            learn_lam=learn_lam,
            adaptive_lam=adaptive_lam,
        )
        self.predictor = StatePredictor(
            in_channels, features, kernel_size, stride, width=predictor_width, depth=predictor_depth, lam=lam
        )
        self.steps = LearnedSteps(iterations, momentum) if step_size is None else None

    def schedule(self, operator: ConvOperator, iterations: int) -> Schedule:
        """Return the learned steps, followed by the plain ones where there are more cycles."""
        if self.steps is None:
            return super().schedule(operator, iterations)
        bound = operator.bound(preconditioned=self.steps.preconditioned)
        learned = self.steps(bound)
        further = max(iterations - len(learned), 0)
        tail = self.steps.tail(bound, further) if learned.guarded else super().schedule(operator, further)
        return Schedule(
            torch.cat([learned.step_size, tail.step_size])[:iterations],
            torch.cat([learned.momentum, tail.momentum])[:iterations],
            learned.guarded,
            learned.preconditioned,
        )

    def thresholds(self, iterations: int, lam: Tensor | float) -> list[Tensor | float] | None:
        """Return the threshold value of each of ``iterations`` cycles; None where it is ``lam`` throughout."""
        return None if self.steps is None else self.steps.thresholds(iterations, lam)

    def initial_state(self, images: Tensor, lam: Tensor | float | None = None) -> Tensor | None:
        """Predict the states of standardised images; see :meth:`LCA.initial_state`."""
        # Autocast predicts in its own precision; the state keeps that of the images.
        return self.predict(images, self.image_lam(images) if lam is None else lam).to(images.dtype)

    def predict(self, images: Tensor, lam: Tensor | float) -> Tensor:
        """Predict the states of standardised images for a threshold value, one for all or (N, 1, 1, 1)."""
        if isinstance(lam, float) and lam == self.predictor.lam:
            return self.predictor(images)
        scale = lam / self.predictor.lam
        return scale * self.predictor(images / scale)

    def distillation_loss(self, encoding: Encoding, *, settle: int = 10, images: int = 8) -> Tensor:
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
            target = solve(operator, standardised, self.threshold, lam, schedule, state=state)
        predicted = self.predict(standardised, lam)
        return (predicted - target).square().mean() / target.var().clamp_min(1e-12)

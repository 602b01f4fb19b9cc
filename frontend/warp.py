"""WARP-LCA: the LCA warmed up by a predictor of its states (Kasenbacher et al., arXiv 2410.18794)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .encoding import Encoding, GradientMode, Output
from .lca import LCA
from .operator import ConvOperator
from .predictor import StatePredictor
from .solver import Schedule, plain_schedule, solve
from .threshold import Threshold, of_images


class WarpLCA(LCA):
    """LCA that starts from predicted states and takes learned steps, so that a few cycles suffice.

    The first ``iterations`` cycles (as many as at construction) take step sizes and momenta of their own,
    learned by priming and kept inside each step's stable range eta < 2 (1 + mu) / L; further cycles take
    1 / L and ``momentum``.

    Arguments are those of :class:`LCA`, and:

    Args:
        predictor_width: Channels inside the predictor.
        predictor_depth: Number of its residual blocks.
    """

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
            in_channels, features, kernel_size, stride, width=predictor_width, depth=predictor_depth
        )
        self.steps = LearnedSteps(iterations, momentum) if step_size is None else None

    def schedule(self, operator: ConvOperator, iterations: int) -> Schedule:
        """Return the learned steps, followed by the plain ones where there are more cycles."""
        if self.steps is None:
            return super().schedule(operator, iterations)
        learned = self.steps(operator.lipschitz)
        plain = super().schedule(operator, max(iterations - len(learned), 0))
        return Schedule(
            torch.cat([learned.step_size, plain.step_size])[:iterations],
            torch.cat([learned.momentum, plain.momentum])[:iterations],
        )

    def initial_state(self, images: Tensor) -> Tensor | None:
        """Predict the states of standardised images."""
        return self.predictor(images)

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
        predicted = self.predictor(standardised)
        return (predicted - target).square().mean() / target.var().clamp_min(1e-12)


class LearnedSteps(nn.Module):
    """Step size and momentum of each cycle, inside the stable range by construction.

    mu = sigmoid(momentum_raw); eta = 2 (1 + mu) / L * 0.99 sigmoid(step_raw). It starts at eta = 1 / L and the
    given momentum.
    """

    def __init__(self, iterations: int, momentum: float) -> None:
        super().__init__()
        mu = torch.full((iterations,), min(max(momentum, 0.01), 0.99))
        self.momentum_raw = nn.Parameter(torch.logit(mu))
        self.step_raw = nn.Parameter(torch.logit(1.0 / (2.0 * (1.0 + mu) * 0.99)))

    def forward(self, lipschitz: Tensor) -> Schedule:
        """Return the schedule for a dictionary with spectral bound ``lipschitz``."""
        momentum = torch.sigmoid(self.momentum_raw)
        step = 2.0 * (1.0 + momentum) * 0.99 * torch.sigmoid(self.step_raw) / lipschitz
        return Schedule(step, momentum)

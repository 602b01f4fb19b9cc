"""The Locally Competitive Algorithm as a layer."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...configs.errors import InputError, unknown_name
from ..encoding import GRADIENT_MODES, OUTPUTS, Encoding, GradientMode, Output
from ..standardise import Standardised, check_finite, standardise
from .checks import check_cycles, check_lam, check_state
from .dictionary import ConvDictionary
from .implicit import implicit_code
from .metrics import SolveStatistics, statistics
from .noise import noise_level, raised_lam
from .operator import ConvOperator
from .schedule import Schedule, accelerated_schedule, accelerated_thresholds, falling, plain_schedule
from .solver import check_overflow, solve, solve_until
from .threshold import THRESHOLDS, Threshold, get_threshold


class LCA(nn.Module):
    """Sparse coding by convolutional LCA (Rozell et al. 2008), from a cold start.

    Maps images (N, C, H, W) with pixels in [0, 1] to their code (N, features, ceil(H/stride),
    ceil(W/stride)) or to their reconstruction (N, C, H, W) in pixel range. Images are standardised inside.

    Args:
        in_channels: C, 3 for RGB.
        features: Number of atoms M.
        kernel_size: Side of an atom in pixels.
        stride: Pixels between neighbouring atoms, 1 to kernel_size.
        lam: Threshold value lambda, above 0, in units of the standardised image.
        threshold: A name of ``THRESHOLDS`` ("hard", "soft", "smooth", ...) or a :class:`Threshold`.
        iterations: Number of cycles.
        momentum: Heavy-ball momentum, 0 to below 1; plain LCA has 0.
        step_size: eta = dt/tau; None (the default) takes 1 / L, which never diverges.
        output: "code" or "reconstruction".
        gradient_mode: "unroll" (autograd through all cycles), "implicit" (adjoint of the fixed point; biased
            while unsettled) or "detach" (no gradient through the code). May be set on a built layer.
        learn_lam: Whether lam is trained, kept positive; not with a hard threshold.
        adaptive_lam: Raise lam with the noise estimated from each image itself: to sqrt(lam^2 + (adaptive_lam
            noise)^2), noise in units of the standardised image. 0, the default, keeps lam for every image. The
            estimate is differentiated like everything else; under a hard threshold that path, like lam's own,
            carries no gradient.
        accelerated: Take steps close to the largest stable ones, momentum to match and, unless the threshold is
            soft, a value that falls to lam from above: about 40 cycles then reach the energy of 1,000 plain ones
            from a cold start. It replaces ``momentum`` and ``step_size``.
        convolution_dtype: What the convolutions compute in, e.g. ``torch.bfloat16``; the state keeps its dtype.
            None: autocast's dtype where it is on, else the images'.
        checkpoint_every: With "unroll", keep only every so many-th state for the backward pass and compute the
            others again: less memory for one more forward pass.

    Attributes:
        lam_spread: In training mode, each image's lam is multiplied by a factor drawn log-uniformly from 1 to this,
            so that what follows learns codes of many lam; 1, the default, draws nothing.
        adjoint_residual: (N,) relative residual at which the last "implicit" backward pass stopped, or None; above
            about 1e-3 the gradient is not to be trusted.
    """

    _preconditioned = False

    def __init__(
        self,
        in_channels: int = 3,
        features: int = 64,
        kernel_size: int = 9,
        stride: int = 2,
        *,
        lam: float = 0.5,
        threshold: str | Threshold = "hard",
        iterations: int = 300,
        momentum: float = 0.0,
        step_size: float | None = None,
        output: Output = "code",
        gradient_mode: GradientMode = "unroll",
        learn_lam: bool = False,
        adaptive_lam: float = 0.0,
        accelerated: bool = False,
        convolution_dtype: torch.dtype | None = None,
        checkpoint_every: int | None = None,
    ) -> None:
        super().__init__()
        check_lam(lam, adaptive_lam)
        check_cycles(iterations, momentum, checkpoint_every)
        if output not in OUTPUTS:
            raise unknown_name("output", output, OUTPUTS)
        if accelerated and (momentum or step_size is not None):
            raise InputError("accelerated=True chooses momentum and step_size itself; leave them out.")
        self.dictionary = ConvDictionary(
            in_channels, features, kernel_size, stride, preconditioned=self._preconditioned
        )
        self.threshold = get_threshold(threshold)
        if learn_lam and not self.threshold.differentiable_in_lam:
            raise InputError(
                "learn_lam=True with a hard threshold: its gradient for lam is zero almost everywhere; "
                'take threshold="soft" or "smooth".'
            )
        self._lam = float(lam)
        self.lam_raw = nn.Parameter(torch.tensor(math.log(math.expm1(lam)))) if learn_lam else None
        self.adaptive_lam = float(adaptive_lam)
        self.lam_spread = 1.0
        self.iterations = iterations
        self.momentum = momentum
        self.step_size = step_size
        self.output: Output = output
        self.gradient_mode = gradient_mode
        self.accelerated = accelerated
        self.convolution_dtype = convolution_dtype
        self.checkpoint_every = checkpoint_every
        self.adjoint_residual: Tensor | None = None

    @classmethod
    def from_pretrained(cls, name: str | Path, **overrides: Any) -> Self:
        """Build a layer from a primed front-end, in evaluation mode.

        Args:
            name: Name of a shipped front-end (``shipped_frontends()``) or a folder that ``warplca prime`` wrote.
            **overrides: Constructor arguments to change, e.g. ``output="reconstruction"``.

        Raises:
            InputError: If there is no such front-end, or the weights do not fit the arguments.
        """
        from ..pretrained import from_pretrained

        return from_pretrained(cls, name, overrides)

    @property
    def threshold_name(self) -> str:
        """The threshold's name in ``THRESHOLDS``.

        Raises:
            InputError: If it is one of the user's own, which cannot be saved by name.
        """
        for name, threshold in THRESHOLDS.items():
            if threshold == self.threshold:
                return name
        raise InputError(f"{self.threshold} has no name; add it to THRESHOLDS to save this layer.")

    @property
    def gradient_mode(self) -> GradientMode:
        """How gradients pass the layer: "unroll", "implicit" or "detach"."""
        return self._gradient_mode

    @gradient_mode.setter
    def gradient_mode(self, mode: GradientMode) -> None:
        if mode not in GRADIENT_MODES:
            raise unknown_name("gradient_mode", mode, GRADIENT_MODES)
        self._gradient_mode: GradientMode = mode

    @property
    def lam(self) -> Tensor | float:
        """The threshold value; a positive tensor with gradient if it is learned."""
        return self._lam if self.lam_raw is None else F.softplus(self.lam_raw)

    @lam.setter
    def lam(self, value: float) -> None:
        if self.lam_raw is not None:
            raise InputError("lam is learned; it cannot be set as well.")
        check_lam(value)
        self._lam = float(value)

    def image_lam(self, standardised: Tensor) -> Tensor | float:
        """The threshold value for standardised images: lam, or (N, 1, 1, 1), one for each, where it is adaptive."""
        if not self.adaptive_lam:
            return self.lam
        return raised_lam(self.lam, self.adaptive_lam, noise_level(standardised))

    def standardise(self, images: Tensor) -> Standardised:
        """Check images and bring each to zero mean and unit variance."""
        self.dictionary.check_size(images)
        if not self.training:
            check_finite(images)
        return standardise(images)

    def schedule(self, operator: ConvOperator, iterations: int) -> Schedule:
        """Return the step sizes and momenta of ``iterations`` cycles."""
        if self.accelerated:
            return accelerated_schedule(operator, iterations)
        return plain_schedule(operator, iterations, step_size=self.step_size, momentum=self.momentum)

    def thresholds(self, iterations: int, lam: Tensor | float) -> list[Tensor | float] | None:
        """Return the threshold value of each of ``iterations`` cycles; None where it is ``lam`` throughout."""
        convex = self.threshold.alpha == 1.0
        if not self.accelerated or convex:  # annealing finds better minima; a convex cost has but one
            return None
        return accelerated_thresholds(lam, iterations)

    def _training_lam(self, standardised: Tensor) -> Tensor | float:
        """``image_lam``, spread in training mode."""
        lam = self.image_lam(standardised)
        if not self.training or self.lam_spread == 1.0:
            return lam
        return lam * self.lam_spread ** torch.rand((len(standardised), 1, 1, 1), device=standardised.device)

    def initial_state(self, images: Tensor, lam: Tensor | float | None = None) -> Tensor | None:
        """Return the state before the first cycle for standardised images; None stands for zero.

        Args:
            images: (N, C, H, W), standardised.
            lam: The threshold value, one for all or (N, 1, 1, 1); None takes ``image_lam``.
        """
        return None

    def encode(self, images: Tensor) -> Encoding:
        """Run the layer and keep what it computed on the way.

        Args:
            images: (N, C, H, W), pixels in [0, 1].
        """
        standardised = self.standardise(images)
        lam = self._training_lam(standardised.images)
        operator = self.dictionary.operator().computing_in(self.convolution_dtype)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient_mode == "unroll"):
            initial = self.initial_state(standardised.images, lam)
            state = solve(
                operator,
                standardised.images,
                self.threshold,
                lam,
                self.schedule(operator, self.iterations),
                state=initial,
                thresholds=self.thresholds(self.iterations, lam),
                checkpoint_every=self.checkpoint_every,
            )
            check_overflow(operator, state)
            code = self.threshold(state, lam)
        if self.gradient_mode == "implicit" and torch.is_grad_enabled():
            code = implicit_code(
                operator.computing_in(standardised.images.dtype),
                standardised.images,
                self.threshold,
                lam,
                state,
                report=partial(setattr, self, "adjoint_residual"),
            )
        output = code
        if self.output == "reconstruction":
            size = (images.shape[2], images.shape[3])
            output = standardised.restore(operator.synthesise(code, size))
        return Encoding(output, code, state, initial, standardised, operator, lam)

    def forward(self, images: Tensor) -> Tensor:
        """Return the code or, with ``output="reconstruction"``, the reconstruction in pixel range."""
        return self.encode(images).output

    @torch.no_grad()
    def solve(
        self,
        images: Tensor,
        *,
        state: Tensor | None = None,
        iterations: int | None = None,
        trace: bool = False,
        tolerance: float | None = None,
    ) -> tuple[Tensor, SolveStatistics]:
        """Code images and report how well; without gradient.

        Args:
            images: (N, C, H, W), pixels in [0, 1].
            state: Start from this state instead of the layer's own.
            iterations: Number of cycles, if other than the layer's.
            trace: Whether to record the energy before the first and after every cycle.
            tolerance: Stop each image once its state changes by less than this share in one cycle, for instance
                1e-3; ``iterations`` is then the most that any takes. Not together with ``trace``.

        Returns:
            The code and its :class:`SolveStatistics`.
        """
        cycles = self.iterations if iterations is None else iterations
        standardised = self.standardise(images).images
        operator = self.dictionary.operator().computing_in(self.convolution_dtype)
        lam = self.image_lam(standardised)
        state = self.initial_state(standardised, lam) if state is None else state
        if state is not None:
            check_state(state, standardised, self.dictionary)
        problem = operator, standardised, self.threshold, lam
        schedule, thresholds = self.schedule(operator, cycles), self.thresholds(cycles, lam)
        energies: list[Tensor] | None = [] if trace else None
        if tolerance is None:
            final = solve(*problem, schedule, state=state, thresholds=thresholds, trace=energies)
            used = torch.full((len(images),), cycles, device=images.device)
        elif trace:
            raise InputError(
                "trace=True with a tolerance: images stop at different cycles; leave one of them out."
            )
        else:
            earliest = falling(thresholds)
            final, used = solve_until(
                *problem, schedule, tolerance=tolerance, state=state, thresholds=thresholds, earliest=earliest
            )
        check_overflow(operator, final)
        return self.threshold(final, lam), statistics(*problem, final, used, energies)

    def extra_repr(self) -> str:
        """Name every setting: results of models that print differently are kept apart."""
        adaptive = f"adaptive_lam={self.adaptive_lam!r}, " if self.adaptive_lam else ""
        return (
            f"lam={float(self.lam)!r}, {adaptive}threshold={self.threshold}, iterations={self.iterations}, "
            f"momentum={self.momentum!r}, step_size={self.step_size!r}, accelerated={self.accelerated}, "
            f"convolution_dtype={self.convolution_dtype}, output={self.output!r}, gradient_mode={self.gradient_mode!r}"
        )

"""The Locally Competitive Algorithm as a layer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...configs.device import exactly
from ...configs.errors import InputError
from ...configs.load import to_plain
from ..base import Frontend, HandsOn, Setting, register_frontend
from ..gate import GateMode
from ..image_statistics import Standardised, check_finite, noise_level, raised_lam, standardise
from ..pretrained import Primable, Primed
from .dictionary import ConvDictionary
from .encoding import Recording, SparseEncoding
from .implicit import implicit_code
from .metrics import SolveStatistics, statistics
from .problem import Problem
from .schedule import Schedule, accelerated_schedule, accelerated_thresholds, plain_schedule
from .settings import LCASettings, LCATraining
from .solver import check_overflow, solve, solve_until
from .threshold import Threshold, get_threshold, positive
from .tiled import Coded, behind_gate, coded_in_tiles


class _Varied(NamedTuple):
    """Present values of what training varies; see :class:`LCATraining`."""

    lam_spread: float = 1.0
    lam_factor: float = 1.0
    iterations: int | None = None


@register_frontend("lca")
class LCA(Primable, Frontend):
    """Sparse coding by convolutional LCA (Rozell et al. 2008), from a cold start.

    Maps images (N, C, H, W) with pixels in [0, 1] to their code (N, features, ceil(H/stride),
    ceil(W/stride)) or to their reconstruction (N, C, H, W) in pixel range. Images are standardised inside.

    Arguments are the fields of :class:`LCASettings`. Of these, ``lam``, ``threshold``, ``iterations``, ``momentum``,
    ``step_size``, ``output``, ``gradient_mode``, ``adaptive_lam``, ``accelerated``, ``convolution_dtype``,
    ``checkpoint_every``, ``gate`` and ``tile`` are attributes that may be set on a built layer.

    Attributes:
        gate_mode: Mode of the gate; see ``gate.through_gate``. Only adaptive attacks change it.
        known_noise: Standard deviation of white noise in the pixels, where it is known: ``adaptive_lam`` then takes it
            instead of an estimate from each image. None, the default, estimates.
        adjoint_residual: (N,) relative residual at which the last "implicit" backward pass stopped, or None; above
            about 1e-3 the gradient is not to be trusted.
    """

    Settings = LCASettings
    Training = LCATraining
    damage = (
        "root mean square, in pixels, of what coding leaves out. Fine texture is left out as well, so that some clean "
        "images read as weak noise; blur, fog and loss of contrast are not seen."
    )
    always_learns = False
    _preconditioned = False
    iterations = Setting()
    momentum = Setting()
    step_size = Setting()
    output = Setting()
    gradient_mode = Setting()
    accelerated = Setting()
    checkpoint_every = Setting()
    gate = Setting()
    tile = Setting()

    def _build(self, primed: Primed | None) -> None:
        s = self._settings
        self.dictionary = ConvDictionary(
            s.in_channels, s.features, s.kernel_size, s.stride, preconditioned=self._preconditioned
        )
        self._threshold: Any = get_threshold(s.threshold)  # or what stands in for it
        self.lam_raw = positive(s.lam) if s.learn_lam else None
        self.adaptive_raw = positive(s.adaptive_lam) if s.learn_lam and s.adaptive_lam else None
        self._varied = _Varied()
        self.known_noise: float | None = None
        self.adjoint_residual: Tensor | None = None
        self.gate_mode: GateMode = "measured"

    @property
    def settings(self) -> LCASettings:
        """The settings as they are now; lam and adaptive_lam are the learned ones where they are learned."""
        if self.lam_raw is None:
            return self._settings
        with torch.no_grad():
            return replace(self._settings, lam=float(self.lam), adaptive_lam=float(self.adaptive_lam))

    @property
    def hands_on(self) -> HandsOn:
        """The code, or images where ``output`` is "reconstruction"."""
        return "features" if self.output == "code" else "images"

    @property
    def figure_names(self) -> tuple[str, ...]:
        """The share of active units, and what the gate decides where there is one."""
        return ("active_fraction",) if self.gate is None else ("active_fraction", "damage", "gate")

    @property
    def threshold(self) -> Threshold:
        """The threshold; set one, or a name of ``THRESHOLDS``."""
        return self._threshold

    @threshold.setter
    def threshold(self, threshold: Any) -> None:
        if isinstance(threshold, str | Threshold):
            self._settings = replace(self._settings, threshold=threshold)
            threshold = get_threshold(threshold)
        self._threshold = threshold  # any other callable stands in for it, as attacks need

    @property
    def convolution_dtype(self) -> torch.dtype | None:
        """Data type of the convolutions; None for that of the images."""
        name = self._settings.convolution_dtype
        return None if name is None else getattr(torch, name)

    @convolution_dtype.setter
    def convolution_dtype(self, dtype: str | torch.dtype | None) -> None:
        self._settings = replace(self._settings, convolution_dtype=dtype)

    @property
    def lam(self) -> Tensor | float:
        """The threshold value; a positive tensor with gradient if it is learned."""
        return self._settings.lam if self.lam_raw is None else F.softplus(self.lam_raw)

    @lam.setter
    def lam(self, value: float) -> None:
        if self.lam_raw is not None:
            raise InputError("lam is learned; it cannot be set as well.")
        self._settings = replace(self._settings, lam=value)

    @property
    def adaptive_lam(self) -> Tensor | float:
        """The threshold per unit of noise; a positive tensor with gradient if it is learned."""
        return self._settings.adaptive_lam if self.adaptive_raw is None else F.softplus(self.adaptive_raw)

    @adaptive_lam.setter
    def adaptive_lam(self, value: float) -> None:
        if self.adaptive_raw is not None:
            raise InputError("adaptive_lam is learned; it cannot be set as well.")
        self._settings = replace(self._settings, adaptive_lam=value)

    def image_lam(self, standardised: Standardised) -> Tensor | float:
        """The threshold value for standardised images: lam, or (N, 1, 1, 1), one for each, where it is adaptive."""
        factor = self._varied.lam_factor if self.training else 1.0
        lam = self.lam if factor == 1.0 else self.lam * factor
        if not self._settings.adaptive_lam:
            return lam
        known = self.known_noise
        noise = noise_level(standardised.images) if known is None else known / standardised.std.flatten()
        return raised_lam(lam, self.adaptive_lam, noise)

    def at(self, epoch: float | None, epochs: int, training: Any) -> None:
        """Freeze, anneal and spread by the settings ``training``; see :class:`LCATraining`."""
        super().at(epoch, epochs, training)
        if training.lam_factor != 1.0 and self.lam_raw is not None:
            raise InputError(
                "lam is learned and annealed at once; drop model.frontend.learn_lam or train.frontend.lam_factor."
            )
        if epoch is None:
            self._varied = _Varied()
            return
        span = epochs * (0.5 if training.anneal_share is None else training.anneal_share)
        left = max(0.0, 1.0 - epoch / span) if span else 0.0
        first = training.first_iterations
        cycles = None if first is None else round(self.iterations + left * (first - self.iterations))
        self._varied = _Varied(training.lam_spread, training.lam_factor**left, cycles)

    def refresh(self) -> None:
        """Compute the spectral bound anew: the bound of averaged atoms is not the average of their bounds."""
        self.dictionary.refresh()

    def no_weight_decay(self) -> set[str]:
        """All: atoms are normalised on use, so that decay would only change their effective learning rate."""
        return {name for name, _ in self.named_parameters()}

    def atoms(self) -> Tensor:
        """Return the atoms, (M, C, k, k)."""
        return self.dictionary.atoms

    @torch.no_grad()
    def margins(self, images: Tensor) -> Tensor:
        """Return how far every unit is above the threshold in every cycle, (N, cycles, units)."""
        plain, recording = self.threshold, Recording(self.threshold)
        self._threshold = recording
        try:
            self.encode(images)
        finally:
            self._threshold = plain
        return recording.stacked()

    def standardise(self, images: Tensor, *, any_size: bool = False) -> Standardised:
        """Check images and bring each to zero mean and unit variance."""
        self.dictionary.check_size(images, any_size=any_size)
        if not self.training:
            check_finite(images)
        return standardise(images)

    def schedule(self, problem: Problem, iterations: int) -> Schedule:
        """Return step sizes, momenta and threshold values of ``iterations`` cycles on a problem."""
        if self.accelerated:
            schedule = accelerated_schedule(problem.operator, iterations)
            if self.threshold.convex:
                return schedule
            return replace(schedule, levels=accelerated_thresholds(problem.lam, iterations))
        given = self.step_size is not None and not torch.compiler.is_compiling()
        return plain_schedule(
            problem.operator,
            iterations,
            step_size=self.step_size,
            momentum=self.momentum,
            bound=self.dictionary.bound() if given else None,
        )

    def problem(self, images: Tensor, lam: Tensor | float) -> Problem:
        """Return what is minimised for standardised images and a threshold value."""
        operator = self.dictionary.operator().computing_in(self.convolution_dtype)
        return Problem(operator, operator.arranged(images), self.threshold, lam)

    def _training_lam(self, standardised: Standardised) -> Tensor | float:
        """``image_lam``, spread in training mode."""
        lam = self.image_lam(standardised)
        if not self.training or self._varied.lam_spread == 1.0:
            return lam
        return lam * self._varied.lam_spread ** torch.rand(
            (len(standardised.images), 1, 1, 1), device=standardised.images.device
        )

    def initial_state(self, images: Tensor, lam: Tensor | float | None = None) -> Tensor | None:
        """Return the state before the first cycle for standardised images; None stands for zero.

        Args:
            images: (N, C, H, W), standardised.
            lam: The threshold value, one for all or (N, 1, 1, 1); None takes ``image_lam``.
        """
        return None

    def encode(self, images: Tensor) -> Coded:
        """Run the layer and keep what it computed on the way.

        Args:
            images: (N, C, H, W), pixels in [0, 1].
        """
        with exactly(images):
            standardised = self.standardise(images, any_size=self.output == "reconstruction")
            code = partial(self._coded, lam=self._training_lam(standardised))
            if self.output == "code":
                return code(standardised)
            tile = None if self.training else self.tile
            coded = coded_in_tiles(code, standardised, self.dictionary, tile)
            return behind_gate(images, coded, self.gate, self.gate_mode)

    def _coded(self, standardised: Standardised, lam: Tensor | float) -> SparseEncoding:
        varied = self._varied.iterations if self.training else None
        cycles = self.iterations if varied is None else varied
        problem = self.problem(standardised.images, lam)
        operator = problem.operator
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient_mode == "unroll"):
            initial = self.initial_state(problem.images, lam)
            schedule = self.schedule(problem, cycles)
            state = solve(problem, schedule, state=initial, checkpoint_every=self.checkpoint_every)
            check_overflow(operator, state)
            code = problem.code(state)
        if self.gradient_mode == "implicit" and torch.is_grad_enabled():
            exact = replace(problem, operator=operator.computing_in(standardised.images.dtype))
            code = implicit_code(exact, state, report=partial(setattr, self, "adjoint_residual"))
        return SparseEncoding(code, code, state, initial, standardised, operator, lam)

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
        with exactly(images):
            return self._solve(
                images, state, self.iterations if iterations is None else iterations, trace, tolerance
            )

    def _solve(
        self, images: Tensor, state: Tensor | None, cycles: int, trace: bool, tolerance: float | None
    ) -> tuple[Tensor, SolveStatistics]:
        scaled = self.standardise(images)
        problem = self.problem(scaled.images, self.image_lam(scaled))
        state = self.initial_state(problem.images, problem.lam) if state is None else state
        if state is not None:
            self.dictionary.check_state(state, problem.images)
        schedule = self.schedule(problem, cycles)
        energies: list[Tensor] | None = [] if trace else None
        if tolerance is None:
            final = solve(problem, schedule, state=state, trace=energies)
            used = torch.full((len(images),), cycles, device=images.device)
        elif trace:
            raise InputError(
                "trace=True with a tolerance: images stop at different cycles; leave one of them out."
            )
        else:
            final, used = solve_until(problem, schedule, tolerance=tolerance, state=state)
        check_overflow(problem.operator, final)
        return problem.code(final), statistics(problem, final, used, energies)

    def extra_repr(self) -> str:
        """Name every setting that is not at its default."""
        return ", ".join(
            f"{name}={value!r}" for name, value in to_plain(self.settings, defaults=False).items()
        )

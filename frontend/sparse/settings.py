"""Settings of the sparse-coding front-ends, and what training may change of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from ...configs.errors import InputError, at_least, unknown_name
from ..base import FrontendTraining
from ..gate import Gate, check_gate
from .threshold import THRESHOLDS, Threshold, get_threshold

Output = Literal["code", "reconstruction"]
GradientMode = Literal["unroll", "implicit", "detach"]
TILE, SMALLEST_TILE = 512, 128
DTYPES = ("bfloat16", "float16", "float32", "float64")


@dataclass(frozen=True)
class LCASettings:
    """Settings of :class:`~warplca.frontend.LCA`.

    Attributes:
        in_channels: C, 3 for RGB.
        features: Number of atoms M.
        kernel_size: Side of an atom in pixels.
        stride: Pixels between neighbouring atoms, 1 to kernel_size.
        lam: Threshold value lambda, above 0, in units of the standardised image.
        threshold: A name of ``THRESHOLDS`` ("hard", "soft", "smooth", ...) or a :class:`Threshold`; in YAML also its
            keys alpha, gamma and rectified.
        iterations: Number of cycles.
        momentum: Heavy-ball momentum, 0 to below 1; plain LCA has 0.
        step_size: eta = dt/tau; None (the default) takes 1 / L, which never diverges.
        output: "code" or "reconstruction".
        gradient_mode: "unroll" (autograd through all cycles), "implicit" (adjoint of the fixed point; biased
            while unsettled) or "detach" (no gradient through the code).
        learn_lam: Whether lam, and adaptive_lam where that is not 0, are trained, kept positive; not with a hard
            threshold.
        adaptive_lam: Raise lam with the noise estimated from each image itself: to sqrt(lam^2 + (adaptive_lam
            noise)^2), noise in units of the standardised image. 0, the default, keeps lam for every image. The
            estimate is differentiated like everything else; under a hard threshold that path, like lam's own,
            carries no gradient.
        accelerated: Take steps close to the largest stable ones, momentum to match and, unless the threshold is
            soft, a value that falls to lam from above: about 40 cycles then reach the energy of 1,000 plain ones
            from a cold start. It replaces ``momentum`` and ``step_size``, and the learned steps of WARP-LCA.
        convolution_dtype: Data type of the convolutions, e.g. "bfloat16" (or ``torch.bfloat16``); the state keeps
            its dtype. None: autocast's dtype where it is on, else the images'.
        checkpoint_every: With "unroll", keep only every so many-th state for the backward pass and compute the
            others again: less memory for one more forward pass.
        gate: With ``output`` "reconstruction": root mean square of what coding leaves out of the image, in pixels, at
            which the gate begins to open and at which it is open: below, the image itself is the output. None always
            restores.
        tile: With ``output`` "reconstruction", outside training: images larger than this many pixels a side are coded
            in tiles that overlap by 64, each with the mean, deviation and lambda of its whole image; the gate decides
            on whole images too. None codes images whole.
        weights: Name of a shipped primed front-end, or a folder with one; None starts at random.
    """

    in_channels: int = 3
    features: int = 64
    kernel_size: int = 9
    stride: int = 2
    lam: float = 0.5
    threshold: str | Threshold = "hard"
    iterations: int = 300
    momentum: float = 0.0
    step_size: float | None = None
    output: Output = "code"
    gradient_mode: GradientMode = "unroll"
    learn_lam: bool = False
    adaptive_lam: float = 0.0
    accelerated: bool = False
    convolution_dtype: str | torch.dtype | None = None
    checkpoint_every: int | None = None
    gate: Gate | None = None
    tile: int | None = TILE
    weights: str | None = None

    fewest_cycles: ClassVar[int] = 1
    """From a cold start none gives no code at all."""
    own_momentum: ClassVar[float] = 0.0
    """The default, which ``accelerated`` replaces without a word."""

    def __post_init__(self) -> None:
        self._normalise()
        if not (self.lam > 0.0 and math.isfinite(self.lam)):
            raise InputError(f"lam is {self.lam}; give a number above 0.")
        object.__setattr__(self, "lam", float(self.lam))
        if not (self.adaptive_lam >= 0.0 and math.isfinite(self.adaptive_lam)):
            raise InputError(f"adaptive_lam is {self.adaptive_lam}; give 0 (off) or a number above 0.")
        if self.checkpoint_every is not None and self.checkpoint_every < 1:
            raise InputError(f"checkpoint_every is {self.checkpoint_every}; give 1 or more, or leave it out.")
        at_least("iterations", self.iterations, self.fewest_cycles)
        if not 0.0 <= self.momentum < 1.0:
            raise InputError(f"momentum is {self.momentum}; give a number from 0 to below 1.")
        for name, known in (("output", Output), ("gradient_mode", GradientMode)):
            if getattr(self, name) not in known.__args__:
                raise unknown_name(name, getattr(self, name), known.__args__)
        object.__setattr__(self, "gate", check_gate(self.gate))
        if self.gate is not None and self.output != "reconstruction":
            raise InputError(
                "gate needs output: reconstruction; a code has none. Leave gate out, or change output."
            )
        if self.tile is not None:
            at_least("tile", self.tile, SMALLEST_TILE)
        if self.tile != TILE and self.output != "reconstruction":
            raise InputError(
                "tile needs output: reconstruction; codes are never tiled. Leave tile out, or change output."
            )
        if self.accelerated and (self.momentum != self.own_momentum or self.step_size is not None):
            raise InputError("accelerated=True chooses momentum and step_size itself; leave them out.")
        if self.learn_lam and not get_threshold(self.threshold).differentiable_in_lam:
            raise InputError(
                "learn_lam=True with a hard threshold: its gradient for lam is zero almost everywhere; "
                'take threshold="soft" or "smooth".'
            )

    def _normalise(self) -> None:
        """Write thresholds and dtypes by name where they have one, so that settings that mean the same are equal."""
        threshold: Any = self.threshold
        if not isinstance(threshold, str | Threshold):  # keys, from YAML
            threshold = Threshold(**vars(threshold))
        names = [name for name, known in THRESHOLDS.items() if known == get_threshold(threshold)]
        object.__setattr__(self, "threshold", names[0] if names else threshold)
        dtype = str(self.convolution_dtype).removeprefix("torch.")
        if self.convolution_dtype is not None:
            if dtype not in DTYPES:
                raise unknown_name("convolution_dtype", dtype, DTYPES)
            object.__setattr__(self, "convolution_dtype", dtype)


@dataclass(frozen=True)
class WarpLCASettings(LCASettings):
    """Settings of :class:`~warplca.frontend.WarpLCA`: those of :class:`LCASettings`, and the predictor's.

    Attributes:
        predictor_width: Channels inside the predictor; None takes those of ``weights``, or 64.
        predictor_depth: Number of its residual blocks; None takes those of ``weights``, or 3.
    """

    iterations: int = 10
    momentum: float = 0.9
    predictor_width: int | None = None
    predictor_depth: int | None = None

    fewest_cycles: ClassVar[int] = 0
    own_momentum: ClassVar[float] = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("predictor_width", 1), ("predictor_depth", 0)):
            value = getattr(self, name)
            at_least(name, least if value is None else value, least)


@dataclass(frozen=True)
class LCATraining(FrontendTraining):
    """Settings of LCA's training; the model's own settings are those that it ends with and is measured with.

    Attributes:
        rate: Factor on the learning rate of its weights, which are not decayed.
        lam_spread: Each image's lam is multiplied by a factor drawn log-uniformly from 1 to this, so that what follows
            learns codes of many lam; 1 switches it off. With ``adaptive_lam`` the classifier then knows the codes of
            noisy images.
        lam_factor: lam starts at this many times the model's and falls geometrically; 1 keeps it.
        first_iterations: Cycles at the start, moving linearly to the model's; None keeps them.
        anneal_share: Share of training after which the model's own lam and cycles hold; None takes one half.
    """

    rate: float = 0.1
    lam_spread: float = 1.0
    lam_factor: float = 1.0
    first_iterations: int | None = None
    anneal_share: float | None = None

    def check(self, epochs: int) -> None:
        """Refuse values that are out of range, or would be ignored."""
        super().check(epochs)
        if not 1.0 <= self.lam_spread < math.inf:
            raise InputError(f"train.frontend.lam_spread is {self.lam_spread}; give 1 (off) or more.")
        if not 0.0 < self.lam_factor < math.inf:
            raise InputError(f"train.frontend.lam_factor is {self.lam_factor}; give a number above 0.")
        if self.first_iterations is not None and self.first_iterations < 1:
            raise InputError(f"train.frontend.first_iterations is {self.first_iterations}; give at least 1.")
        if self.anneal_share is None:
            return
        if not 0.0 <= self.anneal_share <= 1.0:
            raise InputError(f"train.frontend.anneal_share is {self.anneal_share}; give a share from 0 to 1.")
        if self.lam_factor == 1.0 and self.first_iterations is None:
            raise InputError(
                "train.frontend.anneal_share is set, and nothing is annealed; set lam_factor or first_iterations."
            )


@dataclass(frozen=True)
class WarpLCATraining(LCATraining):
    """Settings of WARP-LCA's training.

    Attributes:
        distillation: Weight of the predictor's self-distillation.
    """

    distillation: float = 0.1

    def check(self, epochs: int) -> None:
        """Refuse values that are out of range, or would be ignored."""
        super().check(epochs)
        if not 0.0 <= self.distillation < math.inf:
            raise InputError(f"train.frontend.distillation is {self.distillation}; give 0 (off) or more.")
        if self.frozen_epochs is None:
            self._only_default("distillation")

    def auxiliary_weights(self) -> dict[str, float]:
        """Return the weight of the self-distillation."""
        return {"distillation": self.distillation}

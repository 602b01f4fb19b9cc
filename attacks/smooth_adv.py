"""The attack on smoothed classifiers: projected gradient ascent through the mean over noisy copies.

SmoothAdv of Salman et al., "Provably robust deep learning via adversarially trained smoothed classifiers", NeurIPS
2019.
What breaks the base classifier says nothing about the smoothed one: here the smoothed one itself must answer another
class, with new noise and by its own test, before an image counts as attacked.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..configs.errors import InputError, at_least
from . import checks
from .access import frozen_parameters
from .adaptive.layers import find_iterative_layers, iterative_settings
from .gradient_descent import ascend
from .threat import ThreatModel, enforce


class Smoothed(Protocol):
    """The interface of a smoothed classifier that the attack needs.

    Attributes:
        model: The base classifier.
        sigma: Standard deviation of the noise.
    """

    model: Any
    sigma: float

    def logits(self, images: Tensor) -> Tensor:
        """The base classifier's logits on noisy pixels, with gradient."""
        ...

    def draws(self, images: Tensor, purpose: str, first: int, last: int, *, seed: int) -> Tensor:
        """Standard normal noise for each image, (N, last - first, C, H, W)."""
        ...

    def predict(self, images: Tensor, *, samples: int, seed: int = 0, failure: float = ...) -> Tensor:
        """The smoothed classifier's classes, -1 where it abstains."""
        ...


@dataclass(frozen=True)
class SmoothedAttack:
    """Results of the attack on N images.

    Attributes:
        radius: (N,) smallest radius tried at which the smoothed classifier answers another class than the label: 0
            where it does so without attack, infinity where none was found.
        prediction: (N,) that class; -1 where none was found.
        adversarial: (N, C, H, W) the images that get it; else the images themselves.
    """

    radius: Tensor
    prediction: Tensor
    adversarial: Tensor


@dataclass(frozen=True, kw_only=True)
class SmoothAdv:
    """Attack with its settings.

    Attributes:
        steps: Gradient steps at each radius.
        copies: Noisy copies behind each gradient, drawn anew in each step.
        samples: Copies with which ``predict`` must then answer another class.
        failure: Failure probability of an image, shared over the radii.
        batch_size: Most noisy copies in one pass.
    """

    steps: int = 20
    copies: int = 16
    samples: int = 1000
    failure: float = 0.001
    batch_size: int = 128

    def __post_init__(self) -> None:
        for name in ("steps", "copies", "samples", "batch_size"):
            at_least(f"{name} of SmoothAdv", getattr(self, name), 1)

    def passes(self, radii: int) -> int:
        """Passes of the base classifier for an image that withstands everywhere, a gradient counted as two more."""
        return self.samples + radii * (3 * self.steps * self.copies + self.samples)

    def __call__(
        self, smoothed: Smoothed, images: Tensor, labels: Tensor, radii: Sequence[float], *, seed: int = 0
    ) -> SmoothedAttack:
        """Attack images at rising L2 radii; what is broken at one is left alone at the next.

        Args:
            smoothed: The smoothed classifier.
            images: (N, C, H, W) in [0, 1]; the attack stays in this range, the certificate does not need to.
            labels: (N,) true classes.
            radii: L2 radii in pixels, rising.
            seed: Seed of the noise.

        Raises:
            InputError: Images, labels or radii cannot be used.
            NotApplicable: The model carries no gradient to its pixels.
        """
        if not radii or any(later <= earlier for earlier, later in itertools.pairwise((0.0, *radii))):
            raise InputError(f"radii are {list(radii)}; expected numbers above 0, rising.")
        checks.check_images(images)
        size = max(self.batch_size // self.copies, 1)
        parts = zip(images.split(size), labels.split(size), strict=True)
        with ExitStack() as stack:
            stack.enter_context(frozen_parameters(smoothed.model))
            blind = any(layer.gradient_mode == "detach" for layer in find_iterative_layers(smoothed.model))
            mode = "unroll" if blind else None
            stack.enter_context(iterative_settings(smoothed.model, gradient_mode=mode))
            checks.check_gradient(smoothed.logits, images[:1])
            found = [self._attack(smoothed, x, y, radii, seed) for x, y in parts]
        return SmoothedAttack(*(torch.cat(values) for values in zip(*found, strict=True)))

    def _attack(
        self, smoothed: Smoothed, x: Tensor, y: Tensor, radii: Sequence[float], seed: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        radius = torch.full((len(x),), float("inf"), dtype=torch.float64, device=x.device)
        prediction = torch.full_like(y, -1)
        adversarial = x.clone()
        for number, tried in enumerate((0.0, *radii)):
            rest = torch.nonzero(radius.isinf()).flatten()
            if not len(rest):
                break
            moved = self._climb(smoothed, x[rest], y[rest], tried, seed + number) if tried else x[rest]
            failure = self.failure / (len(radii) + 1)
            answers = smoothed.predict(moved, samples=self.samples, seed=seed, failure=failure)
            broken = (answers >= 0) & (answers != y[rest])
            hit = rest[broken]
            radius[hit], prediction[hit], adversarial[hit] = tried, answers[broken], moved[broken]
        return radius, prediction, adversarial

    def _climb(self, smoothed: Smoothed, x: Tensor, y: Tensor, radius: float, seed: int) -> Tensor:
        """Images in the ball whose mean probability of the label is low."""
        threat = ThreatModel("l2", radius)
        step = itertools.count()

        def loss(images: Tensor) -> Tensor:
            first = next(step) * self.copies
            noise = smoothed.draws(x, "attack", first, first + self.copies, seed=seed)
            copies = (images[:, None] + smoothed.sigma * noise.to(images.dtype)).flatten(0, 1)
            logs = smoothed.logits(copies).log_softmax(dim=1).unflatten(0, (len(x), self.copies))
            of_label = logs[torch.arange(len(x)), :, y]
            return -of_label.logsumexp(dim=1)  # of the mean probability, up to a constant

        candidates = x
        for candidates, _ in ascend(loss, x, threat, steps=self.steps, random_start=False):  # noqa: B007
            pass
        return enforce(x, candidates, threat)

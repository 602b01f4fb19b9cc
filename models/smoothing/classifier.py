"""The smoothed classifier of any callable on pixels: what it predicts, and how far that holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...configs.errors import InputError, at_least
from ..classifier import check_range, noisy_pixels
from .fixed import PROBES, check_fixed, check_mode
from .noise import BLOCK, NoiseSource
from .statistics import FAILURE, SELECTION, SamplingPlan, check_failure, majority
from .votes import Votes


@runtime_checkable
class KnowsNoise(Protocol):
    """A layer that can use a known standard deviation of the noise in place of its own estimate.

    Attributes:
        known_noise: Standard deviation in pixels; None estimates it from each image.
        adaptive_lam: Threshold per unit of noise; 0 for none.
    """

    known_noise: float | None
    adaptive_lam: float


@dataclass(frozen=True)
class Certificates:
    """Certificates of N images.

    Attributes:
        label: (N,) classes; -1 where nothing is proven.
        radius: (N,) L2 radii in pixels within which the smoothed classifier keeps its class; 0 where it abstains.
        counts: (N, classes) votes behind them; those of the samples that chose the class are not among them.
    """

    label: Tensor
    radius: Tensor
    counts: Tensor


class SmoothedClassifier:
    """The class that a base classifier gives most of the Gaussian copies of an image.

    It is another classifier than its base: certificates and attacks concern it alone.

    Args:
        model: Any callable from pixels (N, C, H, W) to logits (N, classes), in evaluation mode: one fixed function of
            one image, which is tested. Noisy pixels leave [0, 1]; our classifiers take them from here.
        sigma: Standard deviation of the noise, in pixels of [0, 1].
        clip: Clip the noisy copies to [0, 1] before the model sees them, for models that take no others.
        tell: Give front-ends with adaptive lambda the true sigma; else they estimate it.
        batch_size: Most copies in one pass of the model.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        sigma: float,
        *,
        clip: bool = False,
        tell: bool = False,
        batch_size: int = BLOCK,
    ) -> None:
        if not (math.isfinite(sigma) and sigma > 0.0):
            raise InputError(f"sigma is {sigma}; give a number above 0, in pixels of [0, 1], such as 0.25.")
        if not callable(model) or isinstance(model, SmoothedClassifier):
            raise InputError(
                f"smooth() got {type(model).__name__}; expected a callable from pixels to logits."
            )
        at_least("batch_size", batch_size, 1)
        self.model, self.sigma = model, float(sigma)
        self.clip, self.tell, self.batch_size = clip, tell, batch_size
        self._informed = _informed(model) if tell else []
        self._classes: int | None = None

    def __call__(self, images: Tensor) -> NoReturn:
        """Refuse: a smoothed classifier has votes and no logits."""
        raise InputError("a smoothed classifier has no logits; call .predict or .certify.")

    def logits(self, images: Tensor) -> Tensor:
        """Return the base classifier's logits on noisy pixels, with gradient where that is enabled."""
        with noisy_pixels(), self._known_noise():
            return self.model(images.clamp(0.0, 1.0) if self.clip else images)

    def draws(self, images: Tensor, purpose: str, first: int, last: int, *, seed: int) -> Tensor:
        """Return standard normal noise that belongs to each image, (N, last - first, C, H, W).

        Args:
            images: (N, C, H, W).
            purpose: Names a stream of its own, independent of those behind predictions and certificates.
            first: Number of the first draw.
            last: One more than that of the last.
            seed: Seed of the run.
        """
        return torch.stack([NoiseSource.of(image, seed).draws(purpose, first, last) for image in images])

    @torch.no_grad()
    def predict(self, images: Tensor, *, samples: int, seed: int = 0, failure: float = FAILURE) -> Tensor:
        """Predict the smoothed classifier's class; a class is wrong with probability ``failure`` at most.

        Args:
            images: (N, C, H, W) in [0, 1].
            samples: Noisy copies of each image.
            seed: Seed of the noise; equal images get equal noise in any order.
            failure: Failure probability of an image.

        Returns:
            (N,) classes, -1 where the votes do not decide.
        """
        at_least("samples", samples, 1)
        check_failure(failure)
        self.check(images, seed)
        found = [majority(self._votes(image, seed, "predict", samples), failure) for image in images]
        return torch.tensor(found, dtype=torch.int64, device=images.device)

    def certify(
        self,
        images: Tensor,
        *,
        samples: int | Sequence[int],
        seed: int = 0,
        labels: Tensor | None = None,
        selection: int = SELECTION,
        failure: float = FAILURE,
    ) -> Certificates:
        """Prove within which L2 radius the smoothed classifier keeps its class.

        Args:
            images: (N, C, H, W) in [0, 1].
            samples: Noisy copies of each image, fixed beforehand; or the numbers at planned looks, rising, which share
                the failure probability.
            seed: Seed of the noise; equal images get equal noise in any order.
            labels: (N,) true classes, to spend nothing on images whose class is chosen wrongly; these abstain.
            selection: Further copies, drawn first, that choose the class.
            failure: Probability for each image that its certificate is wrong.

        Raises:
            InputError: Images, labels or numbers cannot be used, or the model is no fixed function of one image.
        """
        plan = SamplingPlan.of(samples, selection=selection, failure=failure)
        classes = self.check(images, seed)
        if labels is not None and tuple(labels.shape) != (len(images),):
            raise InputError(f"labels have shape {tuple(labels.shape)}; expected ({len(images)},).")
        found = []
        for number, image in enumerate(images):
            votes = self.select(image, plan, seed, None if labels is None else int(labels[number]))
            found.append([votes, *self.extend(image, votes, plan, seed)][-1])
        proven = [votes.certificate(plan, self.sigma) for votes in found]
        counts = [votes.counts for votes in found]
        device = images.device
        return Certificates(
            torch.tensor([label for label, _ in proven], dtype=torch.int64, device=device),
            torch.tensor([radius for _, radius in proven], dtype=torch.float64, device=device),
            torch.tensor(counts, dtype=torch.int64, device=device).view(len(images), classes),
        )

    def check(self, images: Tensor, seed: int = 0) -> int:
        """Check images and model; the test for a fixed function runs once.

        Returns:
            The number of classes.

        Raises:
            InputError: One of them cannot be used.
        """
        if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
            shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise InputError(
                f"images are {shape}; expected a float tensor (N, C, H, W) with pixels in [0, 1]."
            )
        check_range(images)
        check_mode(self.model)
        if not len(images):
            return self._classes or 0
        if self._classes is None:
            few = images[: min(len(images), 8)]
            noise = self.draws(few, "probe", 0, PROBES // len(few), seed=seed).to(images.dtype)
            self._classes = check_fixed(self.logits, (few[:, None] + self.sigma * noise).flatten(0, 1))
        return self._classes

    @torch.no_grad()
    def select(self, image: Tensor, plan: SamplingPlan, seed: int, label: int | None = None) -> Votes:
        """Choose the class of an image (C, H, W); it is given up where that is not its label."""
        counts = self._votes(image, seed, "select", plan.selection)
        guess = int(counts.argmax())
        return Votes(guess, (0,) * len(counts), stopped=label is not None and guess != label)

    @torch.no_grad()
    def extend(
        self, image: Tensor, votes: Votes, plan: SamplingPlan, seed: int, *, looks: int | None = None
    ) -> Iterator[Votes]:
        """Draw further samples of an image (C, H, W), as far as a plan or its first ``looks`` looks want them.

        Yields:
            The votes after each block; going on from any of them gives the same votes.
        """
        last = plan.looks[-1 if looks is None else looks - 1]
        if votes.finished(plan, looks):
            return
        for answers in self._answers(image, seed, "certify", votes.samples, last):
            ends = np.arange(votes.samples + 1, votes.samples + len(answers))
            cuts = np.flatnonzero((ends % BLOCK == 0) | np.isin(ends, plan.looks)) + 1
            for part in np.split(answers, cuts):
                votes = votes.with_block(np.bincount(part, minlength=len(votes.counts)), plan)
                yield votes
                if votes.finished(plan, looks):
                    return

    def _votes(self, image: Tensor, seed: int, purpose: str, samples: int) -> NDArray[np.int64]:
        """(classes,) votes of the first ``samples`` samples of a purpose."""
        answers = np.concatenate(list(self._answers(image, seed, purpose, 0, samples)))
        return np.bincount(answers, minlength=self._classes or 0)

    def _answers(
        self, image: Tensor, seed: int, purpose: str, first: int, last: int
    ) -> Iterator[NDArray[np.int64]]:
        """Yield the classes of samples ``first`` to ``last - 1``, in parts that end with a block of noise."""
        source = NoiseSource.of(image, seed)
        size = max(self.batch_size // BLOCK, 1) * BLOCK
        for start, stop in pairwise([first, *range((first // size + 1) * size, last, size), last]):
            copies = source.draws(purpose, start, stop).to(image.dtype).mul_(self.sigma).add_(image)
            parts = [self.logits(part).argmax(dim=1) for part in copies.split(self.batch_size)]
            yield torch.cat(parts).cpu().numpy()

    @contextmanager
    def _known_noise(self) -> Iterator[None]:
        with ExitStack() as stack:
            for layer in self._informed:
                stack.callback(setattr, layer, "known_noise", layer.known_noise)
                layer.known_noise = self.sigma
            yield


def _informed(model: Any) -> list[KnowsNoise]:
    parts = model.modules() if isinstance(model, nn.Module) else ()
    found: list[KnowsNoise] = [part for part in parts if isinstance(part, KnowsNoise) and part.adaptive_lam]
    if not found:
        raise InputError(
            "tell=True, and no front-end of the model takes the noise's strength (adaptive_lam above 0); leave it out."
        )
    return found


def smooth(
    model: Callable[[Tensor], Tensor],
    sigma: float,
    *,
    clip: bool = False,
    tell: bool = False,
    batch_size: int = BLOCK,
) -> SmoothedClassifier:
    """Smooth a classifier; arguments are those of :class:`SmoothedClassifier`.

    ``smooth(harden(model), 0.25)`` puts a restoring front-end between the noise and a classifier that never saw any.
    """
    return SmoothedClassifier(model, sigma, clip=clip, tell=tell, batch_size=batch_size)

"""The interface that every attack shares: checks before, proof after, accounting throughout."""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from ..configs.device import unwatched
from ..configs.errors import InputError
from ..configs.progress import Bar
from . import checks
from .access import CountingModel, Model, frozen_parameters, seeded
from .result import AttackResult
from .threat import ThreatModel, enforce, project, random_direction

PLAIN_GRADIENTS, RANDOM_SEARCH, BLACK_BOX = "plain gradients", "random search", "black-box attacks"
TRANSFER, ADAPTIVE_ATTACKS = "transfer", "adaptive attacks"

RANDOM_PROBES = 16
"""Images that are looked at for randomness."""

RANDOM_NOTE = "The model is random: equal images gave different logits on two calls."


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """An attack with its settings; data comes in through the call.

    Subclasses are frozen dataclasses whose fields are the settings, and write only ``run``. The call
    owns validation, clipping, the proof that every perturbation lies in the ball, the check of every
    success on the real forward pass, and the counts.

    Attributes:
        norms: Norms of the threats that the attack can take.
        rechecks_alone: Whether a success counts only if the image alone, in a batch of one, is misclassified too.
        refills: Whether the attack fills the places of broken images from those that wait, so that it wants many at
            once.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    rechecks_alone: ClassVar[bool] = False
    refills: ClassVar[bool] = False

    @property
    def kind(self) -> str:
        """``PLAIN_GRADIENTS``, ``RANDOM_SEARCH``, ``BLACK_BOX``, ``TRANSFER`` or ``ADAPTIVE_ATTACKS``.

        Suites compare every other kind with plain gradients, which follow the model's own gradient: what they miss
        and another kind finds is a sign of gradient masking. An attack that does not say so counts as adaptive.
        """
        return ADAPTIVE_ATTACKS

    @property
    def needs_repeatable_model(self) -> bool:
        """Whether a model that is random between equal calls misleads the attack."""
        return False

    @property
    def uses_gradients(self) -> bool:
        """Whether the attack takes gradients."""
        return True

    @property
    def needs_differentiable_model(self) -> bool:
        """Whether a model cut off from its pixels is refused."""
        return self.uses_gradients

    @abstractmethod
    def run(
        self,
        model: CountingModel,
        images: Tensor,
        labels: Tensor,
        threat: ThreatModel,
        *,
        seed: int,
        batch_size: int,
    ) -> Tensor:
        """Perturb images that the model classifies rightly.

        Args:
            model: The model behind its counter; ``model.tally.notes`` takes remarks for the result.
            images: (N, C, H, W) contiguous, in [0, 1], on the model's device.
            labels: (N,) int64.
            threat: The ball.
            seed: Seeds all randomness.
            batch_size: Most images that may pass through the model at once.

        Returns:
            Candidates inside the ball up to rounding.
        """

    @final
    def __call__(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        threat: ThreatModel,
        *,
        seed: int = 0,
        batch_size: int = 128,
        progress: bool = False,
    ) -> AttackResult:
        """Attack ``model`` on ``images``.

        Args:
            model: Any callable, usually an ``nn.Module``, from pixels in [0, 1] to logits (N, classes).
            images: (N, C, H, W) float32 or float64 in [0, 1].
            labels: (N,) integer classes.
            threat: The ball; attacks that know only some norms refuse the others.
            seed: Equal seeds and batch sizes give equal results.
            batch_size: Most images that pass through the model at once.
            progress: Show on stderr how many images have passed through the model.

        Returns:
            The outcome on the device of ``images``.

        Raises:
            InputError: Images, labels, model or threat cannot be used; the message says why.
            BallError: The attack itself broke its promise.
        """
        started = time.perf_counter()
        self._check_settings(threat, batch_size)
        with frozen_parameters(model), Bar(desc="attack", unit=" images", show=progress) as bar:
            x, y, logits = prepare(model, images, labels, batch_size)
            correct = logits.argmax(dim=1) == y
            counter = CountingModel(model, x.dtype)
            counter.tally.watch = bar.update
            counter.tally.notes += checks.chance_note(correct, logits.shape[1])
            counter.tally.notes += self._probe(model, x[:batch_size], threat)
            with unwatched():  # the images were looked at, and what the attack returns will be
                adversarial = self._run_on_correct(
                    counter, x, y, correct, threat, seed=seed, batch_size=batch_size
                )
            final_logits = forward(model, adversarial, batch_size)
            checks.check_finite(final_logits)
            predictions = final_logits.argmax(dim=1)
            success = self._confirm(counter, adversarial, y, (predictions != y) & correct) | ~correct
        for kind, count in (
            ("not finite", counter.tally.bad_gradients),
            ("zero in every pixel", counter.tally.zero_gradients),
        ):
            if odd := int(count):
                counter.tally.notes.append(f"{odd} of {counter.tally.gradients} image gradients were {kind}.")
        home = images.device
        return AttackResult(
            adversarial=adversarial.to(home),
            predictions=predictions.to(home),
            correct=correct.to(home),
            success=success.to(home),
            queries=counter.tally.queries,
            gradients=counter.tally.gradients,
            seconds=time.perf_counter() - started,
            notes=tuple(dict.fromkeys(counter.tally.notes)),
            zero_gradients=int(counter.tally.zero_gradients),
        )

    def _check_settings(self, threat: ThreatModel, batch_size: int) -> None:
        if threat.norm not in self.norms:
            raise InputError(
                f"{type(self).__name__} knows the norms {', '.join(self.norms)}, not {threat.norm!r}; "
                "choose another attack or another threat model."
            )
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; expected at least 1.")

    def _probe(self, model: Model, x: Tensor, threat: ThreatModel) -> list[str]:
        """Look at one batch for randomness and, where it matters, for a path back to the pixels."""
        if self.needs_differentiable_model:
            checks.check_gradient(model, x[:1])
        return [RANDOM_NOTE] if is_random(model, x, threat) else []

    def _confirm(self, model: CountingModel, images: Tensor, y: Tensor, broken: Tensor) -> Tensor:
        """Keep the successes that also hold in a batch of one, where the attack asks for that."""
        if not self.rechecks_alone or not broken.any():
            return broken
        confirmed = broken.clone()
        confirmed[broken] = misclassified(model.wrapped, images[broken], y[broken], 1, alone=False)
        lost = int((broken & ~confirmed).sum())
        if lost:
            model.tally.notes.append(f"{lost} successes did not hold in a batch of one and do not count.")
        return confirmed

    def _run_on_correct(
        self,
        model: CountingModel,
        x: Tensor,
        y: Tensor,
        correct: Tensor,
        threat: ThreatModel,
        *,
        seed: int,
        batch_size: int,
    ) -> Tensor:
        adversarial = x.clone()
        if not correct.any():
            return adversarial
        with seeded(seed), torch.enable_grad():
            candidates = self.run(model, x[correct], y[correct], threat, seed=seed, batch_size=batch_size)
        adversarial[correct] = enforce(x[correct], candidates, threat)
        return adversarial


@dataclass(frozen=True, kw_only=True)
class BatchwiseAttack(Attack):
    """An attack that treats batches apart; subclasses write ``run_batch``."""

    @abstractmethod
    def run_batch(
        self, model: CountingModel, images: Tensor, labels: Tensor, threat: ThreatModel, *, seed: int
    ) -> Tensor:
        """Perturb one batch; the arguments are those of ``run``."""

    @final
    def run(
        self,
        model: CountingModel,
        images: Tensor,
        labels: Tensor,
        threat: ThreatModel,
        *,
        seed: int,
        batch_size: int,
    ) -> Tensor:
        """Run ``run_batch`` over consecutive batches."""
        batches = zip(images.split(batch_size), labels.split(batch_size), strict=True)
        parts = [self.run_batch(model, x, y, threat, seed=seed).detach() for x, y in batches]
        return torch.cat(parts)


def prepare(model: Model, images: Tensor, labels: Tensor, batch_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Check model, images and labels, and bring them to the model's device.

    Returns:
        Contiguous images, int64 labels, and the logits of the clean images.

    Raises:
        InputError: One of them cannot be used.
    """
    checks.check_images(images)
    checks.check_mode(model)
    device = _device_of(model, images)
    x = images.detach().to(device).contiguous()
    with checks.foreign_errors_named(x[:batch_size]):
        logits = forward(model, x, batch_size)
    checks.check_finite(logits)
    checks.check_labels(labels, len(x), logits.shape[1])
    return x, labels.to(device=device, dtype=torch.int64), logits


def misclassified(model: Model, images: Tensor, labels: Tensor, batch_size: int, *, alone: bool) -> Tensor:
    """(N,) whether each image is misclassified in batches of many and, where ``alone``, in batches of one too."""
    wrong = forward(model, images, batch_size).argmax(dim=1) != labels
    if alone and wrong.any():
        wrong[wrong.clone()] = forward(model, images[wrong], 1).argmax(dim=1) != labels[wrong]
    return wrong


def forward(model: Model, images: Tensor, batch_size: int) -> Tensor:
    """Logits of all images, batch by batch, without gradients.

    Args:
        model: Any callable on pixels.
        images: (N, C, H, W).
        batch_size: Images per call.

    Raises:
        InputError: The model returned something else than (N, classes).
    """
    parts = []
    with torch.no_grad():
        for batch in images.split(batch_size):
            parts.append(model(batch.clone()))
            checks.check_output(parts[-1], len(batch))
    return torch.cat(parts)


def is_random(model: Model, images: Tensor, threat: ThreatModel) -> bool:
    """Whether equal calls on a few images, clean or perturbed, give logits that rounding cannot explain.

    A model may be random only away from the 256 levels of clean pixels.

    Args:
        model: Any callable on pixels.
        images: (N, C, H, W); the first 16 are looked at.
        threat: The perturbed ones are random points of this ball.
    """
    clean = images[:RANDOM_PROBES]
    with seeded(0):
        moved = project(clean, clean + random_direction(clean, threat), threat).clamp(0.0, 1.0)
        return any(
            checks.looks_random(forward(model, x, len(x)), forward(model, x, len(x))) for x in (clean, moved)
        )


def _device_of(model: Model, images: Tensor) -> torch.device:
    if isinstance(model, nn.Module):
        for tensor in itertools.chain(model.parameters(), model.buffers()):
            return tensor.device
    return images.device

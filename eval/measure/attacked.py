"""Attacked cells: one attack or a whole suite on a choice of images, and what stands where none could run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from ...attacks import Attack, OutcomeStore, SuiteResult, run_attack, run_suite, suite_attacks, suite_in
from ...attacks.checks import NotApplicable
from ...configs.errors import InputError
from ..results.records import BOUND, COMPLETE, NOT_APPLICABLE, NOT_RUN
from ..results.suites import SuiteRecord, attack_settings
from .inference import Answers, Model, classify

NO_CLASS = -1

BUDGET_NOTE = "The budget ended before this attack."


@dataclass(frozen=True)
class Attacked:
    """The answers to attacked images, and what belongs to them.

    Attributes:
        answers: Predictions and confidences; those of the clean images where no attack ran.
        status: One of the states in `eval.records`.
        details: A suite's record as JSON; else empty.
        queries: Images passed forward in this run.
        gradients: Images passed backward in this run.
        notes: Remarks.
    """

    answers: Answers
    status: str = COMPLETE
    details: str = ""
    queries: int = 0
    gradients: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Attacker:
    """Attacks one model under one plan.

    Attributes:
        model: The model, in evaluation mode.
        classes: Number of classes.
        seed: Seeds every attack.
        batch_size: Most images that pass through the model at once.
        surrogates: Models by name whose adversarial images are tried as well, by suites.
        budget: Minutes from now; when they are over no further attack or batch starts; None for no limit.
        progress: Show the attacks of a suite on stderr.
    """

    model: Model
    classes: int
    seed: int
    batch_size: int
    surrogates: Mapping[str, nn.Module] = field(default_factory=dict)
    budget: float | None = None
    progress: bool = True
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.budget is not None and not self.budget > 0:
            raise InputError(
                f"budget is {self.budget} minutes; expected a number above 0, or None for no limit."
            )

    def suite(self, attack: str) -> dict[str, Attack]:
        """The attacks of a suite's name, by name and in order; empty for a single attack."""
        name = suite_in(attack)
        return suite_attacks(name, self.surrogates) if name else {}

    def settings(self, attack: str) -> dict[str, str]:
        """Digest of the settings of each attack of a suite; empty for a single attack."""
        return attack_settings(self.suite(attack))

    def attack(self, images: Tensor, labels: Tensor, attack: str, threat: str) -> Attacked:
        """Run one attack."""
        if self._minutes_left == 0:
            return self._clean(images, NOT_RUN, BUDGET_NOTE)
        try:
            result = run_attack(
                self.model, images, labels, attack, threat, seed=self.seed, batch_size=self.batch_size
            )
        except NotApplicable as error:
            return self._clean(images, NOT_APPLICABLE, f"Not applicable: {error}")
        return Attacked(
            self._answers(result.adversarial, result.predictions, result.success, labels),
            queries=result.queries,
            gradients=result.gradients,
            notes=result.notes,
        )

    def attack_in_turn(
        self, images: Tensor, labels: Tensor, attack: str, threat: str, store: OutcomeStore
    ) -> Attacked:
        """Run a suite, going on from what the store keeps."""
        left = self._minutes_left
        result = run_suite(
            self.model,
            images,
            labels,
            threat,
            self.suite(attack),
            seed=self.seed,
            batch_size=self.batch_size,
            budget=left if left is None else max(left, 1e-9),
            store=store,
            progress=self.progress,
        )
        record = SuiteRecord.of(result, settings_digest(self.settings(attack)))
        return Attacked(
            self._answers(result.adversarial, result.predictions, result.success, labels),
            status=_status(result),
            details=record.to_text(),
            queries=sum(tally.queries for tally in result.tallies),
            gradients=sum(tally.gradients for tally in result.tallies),
            notes=tuple(dict.fromkeys(note for tally in result.tallies for note in tally.notes)),
        )

    @property
    def _minutes_left(self) -> float | None:
        if self.budget is None:
            return None
        return max(0.0, self.budget - (time.monotonic() - self.started) / 60)

    def _clean(self, images: Tensor, status: str, note: str) -> Attacked:
        return Attacked(
            classify(self.model, images.split(self.batch_size), self.classes), status, notes=(note,)
        )

    def _answers(self, adversarial: Tensor, predictions: Tensor, success: Tensor, labels: Tensor) -> Answers:
        """The attack's own word counts: an image it broke once stays broken, whatever a second pass says."""
        answers = classify(self.model, adversarial.split(self.batch_size), self.classes)
        unclear = (success & (predictions == labels)).cpu().numpy()
        found = np.where(unclear, NO_CLASS, predictions.cpu().numpy()).astype(np.int16)
        return Answers(found, answers.confidences)


def settings_digest(settings: Mapping[str, str]) -> str:
    """Digest of a whole suite: that of its last attack, which covers those before."""
    return list(settings.values())[-1] if settings else ""


def _status(result: SuiteResult) -> str:
    if result.complete:
        return COMPLETE
    return BOUND if result.tallies else NOT_RUN

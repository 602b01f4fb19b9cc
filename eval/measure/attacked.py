"""Attacked cells: one attack or a whole suite on a choice of images, and what stands where none could run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ...attacks import Attack, OutcomeStore, Suite, SuiteResult, SuiteSession, run_attack, run_suite
from ...attacks.checks import NotApplicable
from ...configs.execution import Deadline
from ..results.records import BOUND, COMPLETE, NOT_APPLICABLE, NOT_RUN
from ..results.suites import SuiteRecord, suite_digest
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
        deadline: When no further attack or batch starts.
        progress: Show the attacks of a suite on stderr.
    """

    model: Model
    classes: int
    seed: int
    batch_size: int
    deadline: Deadline
    progress: bool

    def attack(
        self, images: Tensor, labels: Tensor, suite: Suite, threat: str, store: OutcomeStore
    ) -> Attacked:
        """Run a suite, going on from what the store keeps, or a single attack."""
        if suite.checked:
            return self._run_suite(images, labels, suite, threat, store)
        (attack,) = suite.attacks.values()
        return self._run_attack(images, labels, attack, threat)

    def _run_attack(self, images: Tensor, labels: Tensor, attack: Attack, threat: str) -> Attacked:
        if self.deadline.over:
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

    def _run_suite(
        self, images: Tensor, labels: Tensor, suite: Suite, threat: str, store: OutcomeStore
    ) -> Attacked:
        left = self.deadline.minutes_left
        result = run_suite(
            self.model,
            images,
            labels,
            threat,
            suite,
            seed=self.seed,
            batch_size=self.batch_size,
            session=SuiteSession(
                budget=left if left is None else max(left, 1e-9), store=store, progress=self.progress
            ),
        )
        return Attacked(
            self._answers(result.adversarial, result.predictions, result.success, labels),
            status=_status(result),
            details=SuiteRecord.of(result, suite_digest(suite)).to_text(),
            queries=sum(tally.queries for tally in result.tallies),
            gradients=sum(tally.gradients for tally in result.tallies),
            notes=tuple(dict.fromkeys(note for tally in result.tallies for note in tally.notes)),
        )

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


def _status(result: SuiteResult) -> str:
    if result.complete:
        return COMPLETE
    return BOUND if result.tallies else NOT_RUN

"""Attacks in order, survivors only, worst case per image, resumable, with a verdict on the figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...configs.execution import Deadline, Session
from ...configs.progress import Bar
from ..access import Model, frozen_parameters
from ..autoattack import AutoAttack
from ..checks import NotApplicable, chance_note
from ..interface import (
    PLAIN_GRADIENTS,
    Attack,
    AttackResult,
    forward,
    is_random,
    misclassified,
    prepare,
)
from ..threat import ThreatModel, as_threat, enforce
from .catalogue import PROBES, Suite, suite_attacks
from .masking import (
    MaskingCheck,
    gradients_arrive,
    masking_verdict,
    nothing_beats_plain_gradients,
    probes_break_nothing_more,
)
from .outcomes import AttackTally, MemoryStore, Outcome, OutcomeStore, SuiteResult
from .probes import Prober

REFILLED = 4
"""Batches that an attack which refills its batch is given at once."""

RANDOM_EVIDENCE = (
    "The model is random: equal images gave different logits on two calls; AutoAttack's rand version, "
    "which averages gradients over calls (EOT), stood in for its standard parts."
)


@dataclass(frozen=True, kw_only=True)
class SuiteSession(Session):
    """One call of a suite that may take several.

    Attributes:
        store: Keeps outcomes between calls; None keeps none.
    """

    store: OutcomeStore | None = None


def run_suite(
    model: Model,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel | str,
    attacks: Suite | Mapping[str, Attack] | str = "standard",
    *,
    seed: int = 0,
    batch_size: int = 128,
    session: SuiteSession = SuiteSession(),
) -> SuiteResult:
    """Attack a model with everything in turn and judge the figure that is left.

    Each attack sees the images that those before left standing, in batches that do not depend on where an
    earlier run stopped. With ``"autoattack"`` as the suite the result equals AutoAttack's own standard run.

    Args:
        model: Any callable, usually an ``nn.Module`` in evaluation mode, from pixels to logits.
        images: (N, C, H, W) float images in [0, 1].
        labels: (N,) integer classes.
        threat: A threat model or its text.
        attacks: Name of a suite, attacks by name in order (see ``suite_attacks``), or a `Suite` of them.
        seed: Seeds every attack.
        batch_size: Most images that pass through the model at once.
        session: What earlier calls found, and when this one stops: once its budget is over no further batch starts,
            and the result is labelled a bound.

    Raises:
        InputError: One of the arguments cannot be used; the message says which and why.
    """
    suite = _as_suite(attacks)
    with frozen_parameters(model):
        x, y, logits = prepare(model, images, labels, batch_size)
        ball = as_threat(threat)
        random = is_random(model, x[:batch_size], ball)
        run = _Run(
            model=model,
            images=x,
            labels=y,
            threat=ball,
            seed=seed,
            batch_size=batch_size,
            deadline=session.deadline(),
            store=MemoryStore() if session.store is None else session.store,
            predictions=logits.argmax(dim=1),
            classes=logits.shape[1],
        )
        chosen = _for_random_model(suite.attacks, run.skipped) if random else suite.attacks
        run.attack_all(chosen, progress=session.progress)
        checks = run.checks(suite, random=random) if suite.checked else []
        return run.result(images.device, checks)


def _as_suite(attacks: Suite | Mapping[str, Attack] | str) -> Suite:
    if isinstance(attacks, Suite):
        return attacks
    return Suite(suite_attacks(attacks) if isinstance(attacks, str) else dict(attacks))


def _for_random_model(attacks: Mapping[str, Attack], skipped: dict[str, str]) -> dict[str, Attack]:
    """AutoAttack's rand version, which averages gradients, in place of the attacks that a random model misleads."""
    kept = {name: attack for name, attack in attacks.items() if not attack.needs_repeatable_model}
    for name in attacks:
        if name not in kept:
            skipped[name] = "The model is random: AutoAttack's rand version was used instead."
    return {"autoattack-rand": AutoAttack(version="rand")} | kept if len(kept) < len(attacks) else kept


@dataclass(kw_only=True)
class _Run:
    """The state of one suite on its way through the attacks."""

    model: Model
    images: Tensor
    labels: Tensor
    threat: ThreatModel
    seed: int
    batch_size: int
    deadline: Deadline
    store: OutcomeStore
    predictions: Tensor
    classes: int
    tallies: list[AttackTally] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    complete: bool = True

    def __post_init__(self) -> None:
        self.correct = self.predictions == self.labels
        self.adversarial = self.images.clone()
        self.broken_by: list[str | None] = [None if right else "clean" for right in self.correct.tolist()]

    def attack_all(self, attacks: Mapping[str, Attack], *, progress: bool) -> None:
        """Run the attacks in order until none, no image or no time is left."""
        with Bar(attacks.items(), desc="suite", unit="attack", show=progress) as bar:
            for name, attack in bar:
                standing = self._standing()
                bar.set_postfix_str(f"{name} on {len(standing)}")
                if not len(standing) or not self.complete:
                    break
                if self.threat.norm not in attack.norms:
                    self.skipped[name] = f"It knows the norms {', '.join(attack.norms)} only."
                    continue
                try:
                    self._attack(name, attack, standing)
                except NotApplicable as error:
                    self.skipped[name] = str(error)
                except torch.OutOfMemoryError:
                    raise
                except RuntimeError as error:
                    self.failed[name] = str(error)

    def _attack(self, name: str, attack: Attack, standing: Tensor) -> None:
        results: list[AttackResult] = []
        entered = broken = 0
        for batch in standing.split(self.batch_size * (REFILLED if attack.refills else 1)):
            indices = batch.tolist()
            kept = self.store.load(name, str(self.threat), indices)
            if len(kept) < len(indices):
                if self.deadline.over:
                    self.complete = False
                    break
                results.append(self._run_batch(attack, batch))
                kept = dict(zip(indices, _outcomes(results[-1]), strict=True))
                self.store.save(name, str(self.threat), kept)
            entered += len(indices)
            broken += sum(self._record(name, index, kept[index]) for index in indices)
        if entered:
            self.tallies.append(_tally(name, attack.kind, entered, broken, results))

    def _run_batch(self, attack: Attack, batch: Tensor) -> AttackResult:
        x, y = self.images[batch], self.labels[batch]
        return attack(self.model, x, y, self.threat, seed=self.seed, batch_size=self.batch_size)

    def _record(self, name: str, index: int, outcome: Outcome) -> bool:
        if outcome.broken:
            self.broken_by[index] = name
            self.predictions[index] = outcome.prediction
            if outcome.adversarial is not None:
                self.adversarial[index] = outcome.adversarial.to(self.adversarial)
        return outcome.broken

    def _standing(self) -> Tensor:
        alive = [index for index, name in enumerate(self.broken_by) if name is None]
        return torch.tensor(alive, dtype=torch.int64, device=self.images.device)

    def checks(self, suite: Suite, *, random: bool) -> list[MaskingCheck]:
        """Judge what was found; what the probes break counts like what attacks break."""
        kinds = {tally.kind for tally in self.tallies}
        kinds |= {attack.kind for name, attack in suite.attacks.items() if name in self.skipped}
        compared = self._comparisons() if PLAIN_GRADIENTS in kinds else ()
        checks = [*compared, *self._failures(random)]
        return [*self._probes(suite.probe_images), *checks]

    def result(self, device: torch.device, checks: Sequence[MaskingCheck]) -> SuiteResult:
        """Return the results with the verdict of these checks."""
        success = torch.tensor([name is not None for name in self.broken_by])
        return SuiteResult(
            threat=self.threat,
            correct=self.correct.to(device),
            success=success.to(device),
            broken_by=tuple(self.broken_by),
            adversarial=self.adversarial.to(device),
            predictions=self.predictions.to(device),
            tallies=tuple(self.tallies),
            skipped=self.skipped | self.failed,
            complete=self.complete,
            verdict=masking_verdict(checks),
        )

    def _probes(self, count: int) -> list[MaskingCheck]:
        """The checks that need only a sample of images; their absence is a failed check too."""
        sample = self.correct.nonzero().squeeze(1)[:count]
        if not len(sample):
            return []
        if self.deadline.over:
            evidence = "The budget ended before the masking checks."
            return [MaskingCheck("masking checks were made", False, evidence, 0.0)]
        try:
            return self._probed(sample, self._standing()[:count])
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            return [
                MaskingCheck("masking checks were made", False, f"The masking checks failed: {error}", 0.0)
            ]

    def _probed(self, sample: Tensor, standing: Tensor) -> list[MaskingCheck]:
        """Checks of a sample and of images left standing, and whether they broke more than the suite."""
        prober = self._prober(sample)
        checks, extra = prober.checks(), 0
        if len(standing):
            left = self._prober(standing)
            checks += left.checks_of_standing()
            extra += self._record_probes(standing, left.worst)
        extra += self._record_probes(sample, prober.worst)
        return [*checks, probes_break_nothing_more(extra, len(sample))]

    def _prober(self, sample: Tensor) -> Prober:
        return Prober(
            model=self.model,
            images=self.images[sample],
            labels=self.labels[sample],
            threat=self.threat,
            seed=self.seed,
            batch_size=self.batch_size,
        )

    def _record_probes(self, indices: Tensor, worst: Tensor) -> int:
        """Let what probes broke count where it holds on the model itself; how many fell to them alone."""
        alone = torch.tensor([self.broken_by[index] is None for index in indices.tolist()])
        indices, worst = indices[alone], worst[alone]
        if not len(indices):
            return 0
        worst = enforce(self.images[indices], worst, self.threat)
        broken = misclassified(self.model, worst, self.labels[indices], self.batch_size, alone=True)
        predictions = forward(self.model, worst, self.batch_size).argmax(dim=1)
        for index, fooled, prediction, image in zip(
            indices.tolist(), broken.tolist(), predictions.tolist(), worst, strict=True
        ):
            self._record(PROBES, index, Outcome(fooled, prediction, image))
        count = int(broken.sum())
        if count:
            self.tallies.append(AttackTally(PROBES, PROBES, len(indices), count, 0, 0, 0.0, ()))
        return count

    def _comparisons(self) -> Iterator[MaskingCheck]:
        """One check for each kind of attack that followed the plain ones."""
        plain = [tally for tally in self.tallies if tally.kind == PLAIN_GRADIENTS]
        received = sum(tally.gradients for tally in plain)
        if received and len(self._standing()):
            yield gradients_arrive(sum(tally.zero_gradients for tally in plain), received)
        for kind in dict.fromkeys(tally.kind for tally in self.tallies):
            if kind != PLAIN_GRADIENTS:
                extra = sum(tally.broken for tally in self.tallies if tally.kind == kind)
                yield nothing_beats_plain_gradients(kind, extra, int(self.correct.sum()))

    def _failures(self, random: bool) -> Iterator[MaskingCheck]:
        for name, why in self.failed.items():
            yield MaskingCheck("attacks ran to their end", False, f"{name} failed: {why}", 0.0)
        if random:
            yield MaskingCheck("answers are repeatable", False, RANDOM_EVIDENCE, 0.0)
        for note in chance_note(self.correct, self.classes):
            yield MaskingCheck(
                "clean accuracy is above chance", False, note, float(self.correct.double().mean())
            )


def _outcomes(result: AttackResult) -> Iterator[Outcome]:
    for index, broken in enumerate(result.success.tolist()):
        image = result.adversarial[index].cpu() if broken else None
        yield Outcome(broken, int(result.predictions[index]), image)


def _tally(name: str, kind: str, entered: int, broken: int, results: list[AttackResult]) -> AttackTally:
    return AttackTally(
        name=name,
        kind=kind,
        entered=entered,
        broken=broken,
        queries=sum(result.queries for result in results),
        gradients=sum(result.gradients for result in results),
        seconds=sum(result.seconds for result in results),
        notes=tuple(dict.fromkeys(note for result in results for note in result.notes)),
        zero_gradients=sum(result.zero_gradients for result in results),
    )

"""Results of a suite: the outcome of one image under one attack, the worst case of each, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ..result import Accuracies
from ..threat import ThreatModel
from .masking import Verdict


@dataclass(frozen=True, eq=False)
class Outcome:
    """One image under one attack.

    Attributes:
        broken: Whether the attack succeeded on the real forward pass.
        prediction: The class of the adversarial image.
        adversarial: (C, H, W), the adversarial image if it succeeded; a store may drop it (``None``).
    """

    broken: bool
    prediction: int
    adversarial: Tensor | None = None


class OutcomeStore(Protocol):
    """Keeps outcomes so that a second run, or a killed one, goes on where it stopped.

    A store stands for one model, one data set, one seed and one batch size; what else would change outcomes
    is in the arguments.
    """

    def load(self, attack: str, threat: str, images: Sequence[int]) -> Mapping[int, Outcome]:
        """The outcomes kept for these images, by index; those of which nothing is kept are absent."""
        ...

    def save(self, attack: str, threat: str, outcomes: Mapping[int, Outcome]) -> None:
        """Keep the outcomes of all images of a batch, by index; called when the batch is done."""
        ...


class MemoryStore:
    """Keeps outcomes for the life of the object."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, int], Outcome] = {}

    def load(self, attack: str, threat: str, images: Sequence[int]) -> dict[int, Outcome]:
        """The outcomes kept for these images."""
        keys = ((image, (attack, threat, image)) for image in images)
        return {image: self._kept[key] for image, key in keys if key in self._kept}

    def save(self, attack: str, threat: str, outcomes: Mapping[int, Outcome]) -> None:
        """Keep outcomes."""
        self._kept |= {(attack, threat, image): outcome for image, outcome in outcomes.items()}

    def __len__(self) -> int:
        return len(self._kept)


@dataclass(frozen=True)
class AttackTally:
    """One attack's share of a suite.

    Attributes:
        name: Name of the attack.
        kind: Kind of the attack, as in `Attack.kind`; ``PROBES`` for the measurements behind the checks.
        entered: Images that it was tried on: those left standing by the attacks before.
        broken: Images among them that it broke.
        queries: Images passed forward in this run; what an earlier run did is not counted again.
        gradients: Images passed backward in this run.
        seconds: Time taken in this run.
        notes: Notes of the attack.
        zero_gradients: Images passed backward in this run whose gradient came out as zero.
    """

    name: str
    kind: str
    entered: int
    broken: int
    queries: int
    gradients: int
    seconds: float
    notes: tuple[str, ...]
    zero_gradients: int = 0


@dataclass(frozen=True, eq=False)
class SuiteResult(Accuracies):
    """Outcome of a suite on N images.

    Attributes:
        threat: The ball.
        correct: (N,) whether the clean image was classified rightly.
        success: (N,) whether any attack broke the image; true wherever ``correct`` is false.
        broken_by: For each image the first attack that broke it, ``"clean"`` if it was misclassified
            unattacked, ``None`` if it is not broken.
        adversarial: (N, C, H, W), broken images as broken, the others clean.
        predictions: (N,) classes of ``adversarial``.
        tallies: The attacks that ran, in order.
        skipped: Attacks that could not run, and why.
        complete: False if the budget ended the run: then the figure is the best bound so far.
        verdict: Whether the figure may be believed.
    """

    threat: ThreatModel
    correct: Tensor
    success: Tensor
    broken_by: tuple[str | None, ...]
    adversarial: Tensor
    predictions: Tensor
    tallies: tuple[AttackTally, ...]
    skipped: Mapping[str, str]
    complete: bool
    verdict: Verdict

    @property
    def label(self) -> str:
        """The figure with all that belongs to it, in one line."""
        figure = f"{100 * self.robust_accuracy:.1f} % of {len(self.success)} images at {self.threat}"
        bound = "worst case of the suite" if self.complete else "best bound within the budget"
        return f"{figure} ({bound}; {self.verdict})"

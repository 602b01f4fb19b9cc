"""What a suite of attacks found: the worst case for every image, and whether to believe it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from .masking import Verdict
from .threat import ThreatModel


@dataclass(frozen=True)
class AttackTally:
    """One attack's share of a suite.

    Attributes:
        name: Its name.
        entered: Images that it was tried on: those left standing by the attacks before.
        broken: Images among them that it broke.
        queries: Images passed forward in this run; what an earlier run did is not counted again.
        gradients: Images passed backward in this run.
        seconds: Time taken in this run.
        notes: What the attack had to say.
    """

    name: str
    entered: int
    broken: int
    queries: int
    gradients: int
    seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SuiteResult:
    """Outcome of a suite on N images.

    Attributes:
        threat: The ball.
        correct: (N,) whether the clean image was classified rightly.
        success: (N,) whether any attack broke the image; true wherever ``correct`` is false.
        broken_by: For each image the first attack that broke it, ``"clean"`` if it was misclassified
            unattacked, ``None`` if it still stands.
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
    def clean_accuracy(self) -> float:
        """Share of images classified rightly unattacked, 0 to 1."""
        return float(self.correct.double().mean())

    @property
    def robust_accuracy(self) -> float:
        """Share of images that no attack broke, 0 to 1: an upper bound on the true robust accuracy."""
        return 1.0 - float(self.success.double().mean())

    @property
    def label(self) -> str:
        """The figure with all that belongs to it, in one line."""
        figure = f"{100 * self.robust_accuracy:.1f} % of {len(self.success)} images at {self.threat}"
        bound = "worst case of the suite" if self.complete else "best bound within the budget"
        return f"{figure} ({bound}; {self.verdict})"

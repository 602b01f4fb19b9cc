"""What a suite of attacks said beside its predictions, in the form in which the results store keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from ..attacks import SuiteResult

NOT_ASSESSED = "not assessed"


@dataclass(frozen=True)
class SuiteRecord:
    """A suite's verdict with its evidence, and which attack broke how many.

    Attributes:
        settings: Digest of all its attacks and their settings, in order.
        verdict: ``"trusted"`` or ``"not trusted because ..."``.
        checks: Name, whether it was passed, and evidence of each masking check.
        broken: Attack, images that it was tried on, images that it broke; in order.
        skipped: Attacks that could not run, and why.
        misclassified: Images misclassified without any attack.
    """

    settings: str
    verdict: str
    checks: Sequence[tuple[str, bool, str]]
    broken: Sequence[tuple[str, int, int]]
    skipped: Mapping[str, str]
    misclassified: int

    @classmethod
    def of(cls, result: SuiteResult, settings: str) -> SuiteRecord:
        """Record a suite's result."""
        return cls(
            settings=settings,
            verdict=str(result.verdict),
            checks=[(check.name, check.passed, check.evidence) for check in result.verdict.checks],
            broken=[(tally.name, tally.entered, tally.broken) for tally in result.tallies],
            skipped=dict(result.skipped),
            misclassified=int((~result.correct).sum()),
        )

    def to_text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> SuiteRecord:
        """Read back what `to_text` wrote."""
        return cls(**json.loads(text))


def verdict_text(details: str) -> str:
    """The verdict in a cell's details; ``"not assessed"`` for an attack outside a suite."""
    return SuiteRecord.from_text(details).verdict if details else NOT_ASSESSED


def attribution_text(details: str) -> str:
    """Which attack broke how many, e.g. ``"clean 3, fgsm 40 of 97, pgd-10 12 of 57"``; empty without a suite."""
    if not details:
        return ""
    record = SuiteRecord.from_text(details)
    parts = [f"{name} {broken} of {entered}" for name, entered, broken in record.broken if broken]
    return ", ".join([f"clean {record.misclassified}", *parts])

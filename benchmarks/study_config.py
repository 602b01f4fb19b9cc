"""A study: several comparisons over a common base, in order of importance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from warplca.configs import ComparisonConfig, EvaluationPlan, InputError, from_dict
from warplca.configs.errors import unknown_name
from warplca.configs.load import merge

PRESETS = str(Path(__file__).parent / "presets" / "study")


@dataclass(frozen=True)
class StudyConfig:
    """Comparisons that share a base; each is a table of the study.

    Attributes:
        common: What the parts share, as in :class:`ComparisonConfig`.
        parts: Name of each part and what it changes, nested keys; ``arms`` replaces the common ones.
            Most important first.
        judged: Suites of attacks whose verdict tells whether the figures under attack can be trusted: measured once
            for each part on test images, on its first seed's networks, in a store of its own (``verdicts.sqlite``).
        data: A source for ``load_dataset``, for every part.
    """

    common: dict[str, Any]
    parts: dict[str, dict[str, Any]]
    judged: EvaluationPlan = field(default_factory=EvaluationPlan)
    data: str = "cifar10-subset"

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError("the study has no parts; name at least one.")
        self.comparisons()

    def comparisons(self) -> dict[str, ComparisonConfig]:
        """Return the comparison of each part.

        Raises:
            InputError: If a part does not fit together; the message names it.
        """
        return {name: self._comparison(name) for name in self.parts}

    def _comparison(self, name: str) -> ComparisonConfig:
        part = self.parts[name]
        values = merge(self.common, part, {"data": self.data})
        if "arms" in part:
            values["arms"] = part["arms"]
        return from_dict(ComparisonConfig, values, where=f"part {name!r}")

    def only(self, parts: Sequence[str]) -> StudyConfig:
        """Return the study of these parts alone, in their order.

        Raises:
            InputError: If there is no such part.
        """
        for part in parts:
            if part not in self.parts:
                raise unknown_name("part", part, self.parts, where="the study")
        return replace(self, parts={part: self.parts[part] for part in parts})

    def rounds(self) -> Iterator[tuple[str, ComparisonConfig]]:
        """Yield every part with one seed, in order, then those with two, and so on: the main rows come first."""
        comparisons = self.comparisons()
        for count in range(1, max(len(comparison.seeds) for comparison in comparisons.values()) + 1):
            for name, comparison in comparisons.items():
                if count <= len(comparison.seeds):
                    yield name, replace(comparison, seeds=tuple(comparison.seeds)[:count])

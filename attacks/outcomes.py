"""What happened to one image under one attack, and where a suite keeps it between runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


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

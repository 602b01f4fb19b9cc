"""What happened to one image under one attack, and where a suite keeps it between runs."""

from __future__ import annotations

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

    def load(self, attack: str, threat: str, image_index: int) -> Outcome | None:
        """The outcome kept for an image, or ``None``."""
        ...

    def save(self, attack: str, threat: str, image_index: int, outcome: Outcome) -> None:
        """Keep an outcome; called for every image of a batch when the batch is done."""
        ...


class MemoryStore:
    """Keeps outcomes for the life of the object."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, int], Outcome] = {}

    def load(self, attack: str, threat: str, image_index: int) -> Outcome | None:
        """The outcome kept for an image, or ``None``."""
        return self._kept.get((attack, threat, image_index))

    def save(self, attack: str, threat: str, image_index: int, outcome: Outcome) -> None:
        """Keep an outcome."""
        self._kept[attack, threat, image_index] = outcome

    def __len__(self) -> int:
        return len(self._kept)

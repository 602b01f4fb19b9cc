"""How work is carried out in one call, as frozen values: for how long, where, and whether it shows its progress."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Deadline:
    """When a budget is over, on the clock of ``time.monotonic``; None for never."""

    at: float | None

    @property
    def over(self) -> bool:
        """Whether nothing further may start."""
        return self.minutes_left == 0

    @property
    def minutes_left(self) -> float | None:
        """Rest of the budget in minutes; None for no limit."""
        return None if self.at is None else max(0.0, (self.at - time.monotonic()) / 60)


@dataclass(frozen=True, kw_only=True)
class Session:
    """One call of resumable work: nothing here changes a result, only how much of it this call reaches.

    Attributes:
        budget: Minutes; when they are over nothing further starts, and a later call goes on. None for no limit.
        progress: Show a progress bar on stderr.
    """

    budget: float | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        if self.budget is not None and not self.budget > 0:
            raise InputError(
                f"budget is {self.budget} minutes; expected a number above 0, or None for no limit."
            )

    def deadline(self) -> Deadline:
        """When the budget is over if it starts now."""
        return Deadline(None if self.budget is None else time.monotonic() + 60 * self.budget)


@dataclass(frozen=True, kw_only=True)
class Execution(Session):
    """Device, precision and budget of a measurement.

    Attributes:
        device: Device to compute on; None means that of the model.
        tf32: Whether NVIDIA GPUs may round float32 to TF32; what is measured so carries a note.
    """

    device: torch.device | str | None = None
    tf32: bool = False

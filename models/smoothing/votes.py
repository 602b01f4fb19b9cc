"""Counts of one image so far: enough to go on sampling where a killed run stopped."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .statistics import SamplingPlan, radius_of

ABSTAINED = -1


@dataclass(frozen=True)
class Votes:
    """The votes of an image's noisy copies.

    Attributes:
        guess: The class that the selection chose.
        counts: (classes,) votes of the samples after it, as far as they were drawn.
        hits: Votes for the guess at each planned look that was reached.
        stopped: Whether the image was given up.
    """

    guess: int
    counts: tuple[int, ...]
    hits: tuple[int, ...] = ()
    stopped: bool = False

    @property
    def samples(self) -> int:
        """Samples drawn after the selection."""
        return sum(self.counts)

    def finished(self, plan: SamplingPlan, looks: int | None = None) -> bool:
        """Whether no more samples are wanted, for the first ``looks`` looks of a plan or for all."""
        return self.stopped or len(self.hits) >= (len(plan.looks) if looks is None else looks)

    def with_block(self, counts: NDArray[np.int64], plan: SamplingPlan) -> Votes:
        """Add the votes of a block of samples, which ends at the next look at the latest."""
        added = tuple(int(one + other) for one, other in zip(self.counts, counts, strict=True))
        votes = replace(self, counts=added)
        if votes.samples == plan.looks[len(self.hits)]:
            votes = replace(votes, hits=(*self.hits, added[self.guess]))
        if len(votes.hits) < len(plan.looks) and plan.hopeless(added[self.guess], votes.samples):
            votes = replace(votes, stopped=True)
        return votes

    def certificate(self, plan: SamplingPlan, sigma: float) -> tuple[int, float]:
        """Return the class and its L2 radius; -1 and 0 where nothing is proven."""
        bound = plan.bound(self.hits)
        return (self.guess, radius_of(bound, sigma)) if bound > 0.5 else (ABSTAINED, 0.0)

    def to_text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read back what ``to_text`` wrote."""
        known = json.loads(text)
        return cls(known["guess"], tuple(known["counts"]), tuple(known["hits"]), known["stopped"])

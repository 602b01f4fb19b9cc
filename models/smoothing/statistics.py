"""Statistics of counts of noisy copies: Clopper-Pearson bounds, radii, planned looks, and when to give an image up.

Cohen, Rosenfeld and Kolter, "Certified adversarial robustness via randomized smoothing", ICML 2019: where the base
classifier answers c on a share p > 1/2 of Gaussian copies of an image, the smoothed classifier answers c on every
image within sigma * Phi^-1(p) of it in L2. The share is bounded from samples that did not choose c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ...configs.errors import InputError, at_least

FAILURE = 0.001
"""Probability, for each image, that its radius or its predicted class is wrong."""

SELECTION = 100
"""Samples that choose the class; others, drawn after them, prove it."""

HOPELESS = 1e-4
"""An image is given up where a share of one half would give so few hits with less than this probability."""


@dataclass(frozen=True)
class SamplingPlan:
    """Number of samples of an image, and the looks at them: fixed in advance.

    Each look at the radius spends an equal part of the failure probability, so that the best of all looks holds.
    Samples added after an unplanned look would prove less than they seem to.

    Attributes:
        looks: Samples drawn in all by each planned look, rising; one number for a single look at the end.
        selection: Samples that choose the class beforehand.
        failure: Failure probability of an image, over all looks together.
    """

    looks: tuple[int, ...]
    selection: int = SELECTION
    failure: float = FAILURE

    @classmethod
    def of(
        cls, samples: int | Sequence[int], *, selection: int = SELECTION, failure: float = FAILURE
    ) -> SamplingPlan:
        """Make a plan from a number of samples, or from the numbers at planned looks.

        Raises:
            InputError: A number is below 1, or the numbers do not rise.
        """
        looks = (samples,) if isinstance(samples, int) else tuple(int(count) for count in samples)
        if not looks or any(later <= earlier for earlier, later in pairwise(looks)):
            raise InputError(
                f"samples are {list(looks)}; expected one number, or the numbers at planned looks, rising."
            )
        at_least("samples", looks[0], 1)
        at_least("selection", selection, 1)
        check_failure(failure)
        return cls(looks, selection, failure)

    @property
    def largest_bound(self) -> float:
        """The share that would be proven if every sample hit."""
        return self.bound(self.looks)

    def bound(self, hits: Sequence[int]) -> float:
        """Return the best lower bound on the share of a class, 0 without any look.

        Args:
            hits: Samples of that class in all at each look that was reached.
        """
        failure = self.failure / len(self.looks)
        bounds = lower_bounds(hits, self.looks[: len(hits)], failure)
        return float(bounds.max(initial=0.0))

    def hopeless(self, hits: int, samples: int) -> bool:
        """Return whether an image should be given up, which costs nothing but its own radius.

        Either no look ahead can prove a majority any more, or a majority has become implausible.
        """
        ahead = [look for look in self.looks if look > samples]
        failure = self.failure / len(self.looks)
        reachable = lower_bounds([hits + look - samples for look in ahead], ahead, failure)
        return bool((reachable <= 0.5).all()) or float(stats.binom.cdf(hits, samples, 0.5)) < HOPELESS


def check_failure(failure: float) -> None:
    """Refuse what is no failure probability."""
    if not 0.0 < failure < 0.5:
        raise InputError(
            f"failure is {failure}; give a probability above 0 and below one half, such as 0.001."
        )


def lower_bounds(hits: ArrayLike, samples: ArrayLike, failure: float) -> NDArray[np.float64]:
    """Clopper and Pearson's (1934) one-sided lower bounds on shares.

    Args:
        hits: (n,) successes.
        samples: (n,) trials.
        failure: Probability with which a bound may lie above the true share.
    """
    k, n = np.asarray(hits, dtype=np.float64), np.asarray(samples, dtype=np.float64)
    return np.where(k > 0, stats.beta.ppf(failure, np.maximum(k, 1), n - k + 1), 0.0)


def radius_of(bound: float, sigma: float) -> float:
    """Return the L2 radius, in pixels, that a share of at least ``bound`` proves; 0 up to one half."""
    return float(sigma * stats.norm.ppf(bound)) if bound > 0.5 else 0.0


def majority(counts: ArrayLike, failure: float) -> int:
    """Return the class that has the most votes, or -1 where the second one might have as many.

    The two-sided binomial test on the two leading classes (Hung and Fithian, Annals of Statistics 2019), as in Cohen et
    al.; the class is wrong with at most the failure probability.

    Args:
        counts: (classes,) votes.
        failure: Failure probability.
    """
    votes = np.asarray(counts)
    first, second = np.argsort(-votes, kind="stable")[:2]
    together = int(votes[first] + votes[second])
    if together == 0 or stats.binomtest(int(votes[first]), together).pvalue > failure:
        return -1
    return int(first)

"""Intervals and paired tests for accuracies.

Within one cell the images are independent: Wilson's interval and the exact McNemar test apply. Cells
of one model share their images, so anything averaged over cells is resampled image by image (the
clusters). Trained networks of one method are compared over seeds with Student's t.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ...configs.errors import InputError


class Interval(NamedTuple):
    """An estimate with the bounds of its confidence interval, in the estimate's own unit."""

    mean: float
    low: float
    high: float


def wilson_interval(correct: int, images: int, *, level: float = 0.95) -> Interval:
    """Wilson's score interval for a proportion ``correct / images`` (Wilson, JASA 1927).

    Args:
        correct: Successes, 0 to ``images``.
        images: Trials, at least 1.
        level: Confidence level between 0 and 1.
    """
    if images < 1 or not 0 <= correct <= images:
        raise InputError(
            f"{correct} correct of {images} images: expected 0 <= correct <= images, images >= 1."
        )
    bounds = stats.binomtest(correct, images).proportion_ci(confidence_level=level, method="wilson")
    return Interval(correct / images, float(bounds.low), float(bounds.high))


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided exact McNemar test: p-value of ``gained`` against ``lost`` discordant images.

    Under the null hypothesis each discordant image falls either way with probability one half. Without any
    discordant image p is 1.
    """
    if gained < 0 or lost < 0:
        raise InputError(f"discordant counts {gained} and {lost}: expected whole numbers of at least 0.")
    if gained + lost == 0:
        return 1.0
    return float(stats.binomtest(gained, gained + lost, 0.5).pvalue)


def paired_interval(differences: ArrayLike, *, level: float = 0.95) -> Interval:
    """Conservative interval of a mean difference of which few images have a share.

    The share of images that differ and where in [-1, 1] these lie on average have Clopper-Pearson intervals (Biometrika
    1934) at half the error each; the product of the two is the mean, so its interval covers at least at its
    level, however rare the images. Exact where images differ by 1 or not at all; of smaller differences their sum
    stands for the count, which is conservative, because none of their means vary more.

    Args:
        differences: (images,) model minus baseline, from -1 to 1.
        level: Confidence level between 0 and 1.
    """
    values = _image_means(differences)
    unequal = values[values != 0]
    half = (1 + level) / 2
    share = exact_interval(unequal.size, values.size, level=half)
    ends = (-1.0, 1.0)
    if unequal.size:
        split = exact_interval(float((1 + unequal).sum() / 2), unequal.size, level=half)
        ends = (2 * split.low - 1, 2 * split.high - 1)
    products = [size * end for size in (share.low, share.high) for end in ends]
    return Interval(float(values.mean()), min(products), max(products))


def exact_interval(total: float, images: int, *, level: float = 0.95) -> Interval:
    """Clopper and Pearson's interval of the mean of values between 0 and 1, by their sum.

    Args:
        total: The sum: successes, or of values in between, whose mean varies less than that of as many successes.
        images: Values, at least 1.
        level: Confidence level between 0 and 1.
    """
    if images < 1 or not 0 <= total <= images:
        raise InputError(f"a sum of {total} over {images} images: expected 0 <= sum <= images, images >= 1.")
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, total, images - total + 1) if total > 0 else 0.0
    high = stats.beta.isf(tail, total + 1, images - total) if total < images else 1.0
    return Interval(total / images, float(low), float(high))


def holm(pvalues: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down adjustment of p-values for a family of tests (Holm, Scand. J. Statist. 1979)."""
    values = np.asarray(pvalues, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    scaled = values[order] * np.arange(values.size, 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def cluster_bootstrap(
    per_image: ArrayLike, *, level: float = 0.95, draws: int = 4000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of a mean over images, each image one cluster.

    Args:
        per_image: (images,) each image's own mean over its cells, or (images, cells).
        level: Confidence level between 0 and 1.
        draws: Bootstrap samples.
        seed: Seed of the resampling.
    """
    values, counts = np.unique(_image_means(per_image), return_counts=True)
    images = int(counts.sum())
    rng = np.random.default_rng(seed)
    # Images with equal values are exchangeable, so a resample is a multinomial draw over distinct values.
    samples = rng.multinomial(images, counts / images, size=draws) @ values / images
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values @ counts / images), float(low), float(high))


def cluster_permutation(differences: ArrayLike, *, draws: int = 20000, seed: int = 0) -> float:
    """Two-sided paired permutation test clustered by image: p-value of a mean difference.

    Under the null hypothesis the two models may be exchanged for each image (in all cells at once), which
    flips the sign of that image's mean difference. The p-value counts the observed arrangement as one of
    the draws, so it is never below 1 / (draws + 1).

    Args:
        differences: (images,) or (images, cells), model minus baseline.
        draws: Random sign patterns.
        seed: Seed of the patterns.
    """
    means = _image_means(differences)
    sizes, counts = np.unique(np.abs(means), return_counts=True)
    rng = np.random.default_rng(seed)
    # Of the images that share a magnitude, a binomial number keeps the positive sign.
    positive = rng.binomial(counts, 0.5, size=(draws, counts.size))
    sums = (2 * positive - counts) @ sizes
    observed = abs(means.sum())
    tolerance = 1e-9 * max(1.0, float(sizes @ counts))
    return float((1 + np.count_nonzero(np.abs(sums) >= observed - tolerance)) / (draws + 1))


def seed_interval(accuracies: Sequence[float], *, level: float = 0.95) -> Interval:
    """Mean accuracy over training seeds, Student's t interval cut to [0, 1]; its bounds are NaN below two seeds."""
    array = np.asarray(accuracies, dtype=np.float64)
    if array.size == 0:
        raise InputError("no values: an interval over seeds needs at least one trained network.")
    mean = float(array.mean())
    if array.size < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = float(stats.t.ppf((1 + level) / 2, array.size - 1) * array.std(ddof=1) / np.sqrt(array.size))
    return Interval(mean, max(mean - half, 0.0), min(mean + half, 1.0))


def welch(
    scores: Sequence[float], reference: Sequence[float], *, level: float = 0.95
) -> tuple[Interval, float]:
    """Welch's t-test of a difference of means over training seeds: the difference's interval, and p.

    Without any spread on either side p is 1 for equal means and 0 otherwise.
    """
    a, b = np.asarray(scores, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if min(a.size, b.size) < 2:
        raise InputError(f"{a.size} and {b.size} seeds: Welch's test needs at least two on both sides.")
    difference = float(a.mean() - b.mean())
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        return Interval(difference, difference, difference), float(difference == 0)
    result = stats.ttest_ind(a, b, equal_var=False)
    pvalue: Any = result[1]
    bounds = result.confidence_interval(level)
    return Interval(difference, float(bounds.low), float(bounds.high)), float(pvalue)


def calibration_error(confidences: ArrayLike, correct: ArrayLike, *, bins: int = 15) -> float:
    """Expected calibration error of top-1 confidences (Guo et al., ICML 2017), 0 to 1.

    sum over bins of (share of the images) * |accuracy - mean confidence|, with equally wide bins on (0, 1].

    Args:
        confidences: (images,) top-1 probabilities.
        correct: (images,) booleans.
        bins: Number of bins.
    """
    confidence = np.asarray(confidences, dtype=np.float64)
    hits = np.asarray(correct, dtype=np.float64)
    if confidence.size == 0:
        raise InputError("no images: the calibration error needs at least one.")
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(index, weights=hits - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / confidence.size)


def _image_means(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or array.ndim not in (1, 2):
        raise InputError(f"values of shape {array.shape}: expected (images,) or (images, cells), not empty.")
    # Rounding joins equal means that differ in the last bits of their sums.
    return np.round(array if array.ndim == 1 else array.mean(axis=1), 12)

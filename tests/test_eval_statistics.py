"""Intervals and tests against closed forms, brute force and independent libraries."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torchmetrics.classification import MulticlassCalibrationError

from warplca.configs.errors import InputError
from warplca.eval.compare.statistics import (
    calibration_error,
    cluster_bootstrap,
    cluster_permutation,
    exact_interval,
    holm,
    mcnemar_exact,
    paired_interval,
    seed_interval,
    welch,
    wilson_interval,
)

Z = 1.959963984540054


@pytest.mark.parametrize(("correct", "images"), [(0, 7), (7, 7), (3, 10), (731, 1000), (1, 1)])
def test_wilson_is_the_closed_form(correct: int, images: int) -> None:
    share = correct / images
    centre = (share + Z**2 / (2 * images)) / (1 + Z**2 / images)
    half = Z / (1 + Z**2 / images) * math.sqrt(share * (1 - share) / images + Z**2 / (4 * images**2))
    interval = wilson_interval(correct, images)
    assert interval == pytest.approx((share, max(centre - half, 0), min(centre + half, 1)), abs=1e-12)


def test_wilson_refuses_impossible_counts() -> None:
    with pytest.raises(InputError, match="5 correct of 4 images"):
        wilson_interval(5, 4)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_sums_the_binomial_tail(gained: int, lost: int) -> None:
    total, low = gained + lost, min(gained, lost)
    tail = sum(math.comb(total, k) for k in range(low + 1)) / 2**total
    assert mcnemar_exact(gained, lost) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)
    assert mcnemar_exact(gained, lost) == mcnemar_exact(lost, gained)


def _holm_by_hand(values: list[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, running = [0.0] * len(values), 0.0
    for step, index in enumerate(order):
        running = max(running, min(1.0, (len(values) - step) * values[index]))
        adjusted[index] = running
    return adjusted


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_the_step_down_rule_between_raw_and_bonferroni(values: list[float]) -> None:
    adjusted = holm(values)
    assert adjusted == pytest.approx(_holm_by_hand(values))
    assert (adjusted >= np.asarray(values) - 1e-15).all()
    assert (adjusted <= np.minimum(1, np.asarray(values) * len(values)) + 1e-15).all()


def test_holm_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_permutation_matches_all_sign_patterns() -> None:
    rng = np.random.default_rng(3)
    differences = rng.integers(-2, 3, size=(11, 3)) / 2
    means = differences.mean(axis=1)
    sums = np.array([means @ signs for signs in itertools.product([-1, 1], repeat=len(means))])
    exact = np.mean(np.abs(sums) >= abs(means.sum()) - 1e-9)
    assert cluster_permutation(differences, draws=200_000) == pytest.approx(exact, abs=0.005)


def test_permutation_of_one_cell_is_mcnemar() -> None:
    differences = np.array([1] * 19 + [-1] * 7 + [0] * 50)
    assert cluster_permutation(differences, draws=200_000) == pytest.approx(mcnemar_exact(19, 7), abs=0.003)


def test_permutation_without_any_difference_is_one() -> None:
    assert cluster_permutation(np.zeros((5, 4))) == 1.0


def test_clustering_by_image_sees_that_cells_repeat_each_other() -> None:
    # Fifteen copies of one cell hold no more evidence than the cell itself.
    one = np.array([1] * 9 + [-1] * 3 + [0] * 20)
    copies = np.repeat(one[:, None], 15, axis=1)
    assert cluster_permutation(copies, seed=1) == pytest.approx(cluster_permutation(one, seed=1), abs=0.01)
    single, repeated = cluster_bootstrap(one), cluster_bootstrap(copies)
    assert repeated == pytest.approx(single, abs=1e-12)


def test_bootstrap_agrees_with_plain_resampling_and_with_scipy() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 2, size=(83, 7)).astype(float)
    means = scores.mean(axis=1)
    plain = means[rng.integers(0, 83, size=(40_000, 83))].mean(axis=1)
    expected = np.quantile(plain, [0.025, 0.975])
    interval = cluster_bootstrap(scores, draws=40_000)
    assert interval.mean == pytest.approx(scores.mean())
    assert interval[1:] == pytest.approx(expected, abs=0.003)
    oracle = stats.bootstrap((means,), np.mean, method="percentile", random_state=np.random.default_rng(1))
    assert interval[1:] == pytest.approx(oracle.confidence_interval, abs=0.004)


@pytest.mark.parametrize("sizes", [(1.0,), (1 / 3, 2 / 3, 1.0)])
@pytest.mark.parametrize(("share", "images"), [(0.02, 100), (0.3, 60)])
def test_the_paired_interval_covers_rare_differences_too(
    share: float, images: int, sizes: tuple[float, ...]
) -> None:
    rng = np.random.default_rng(7)
    truth = share * (0.7 - 0.3) * np.mean(sizes)
    hits = 0
    for _ in range(400):
        sign = rng.choice([1.0, -1.0, 0.0], p=[0.7 * share, 0.3 * share, 1 - share], size=images)
        interval = paired_interval(sign * rng.choice(sizes, size=images))
        assert interval.low <= interval.mean <= interval.high
        hits += interval.low <= truth <= interval.high
    assert hits / 400 >= 0.95


def test_the_paired_interval_without_discordant_images_has_the_width_of_a_rare_event() -> None:
    limit = 1 - 0.0125 ** (1 / 100)
    assert paired_interval(np.zeros(100)) == pytest.approx((0.0, -limit, limit))


@pytest.mark.parametrize(("total", "images"), [(0, 7), (2, 100), (7, 7)])
def test_the_exact_interval_is_scipys_of_counts(total: int, images: int) -> None:
    oracle = stats.binomtest(total, images).proportion_ci(0.9, "exact")
    assert exact_interval(total, images, level=0.9)[1:] == pytest.approx((oracle.low, oracle.high))
    with pytest.raises(InputError, match="a sum of 8 over 7 images"):
        exact_interval(8, 7)


def test_the_exact_interval_covers_rare_means_of_several_networks() -> None:
    rng = np.random.default_rng(8)
    hits = 0
    for _ in range(400):
        scores = (rng.random((2, 100)) < 0.02).mean(axis=0)
        interval = exact_interval(scores.sum(), scores.size)
        hits += interval.low <= 0.02 <= interval.high
    assert hits / 400 >= 0.95


def test_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for trial in range(300):
        difficulty = rng.beta(2, 1, size=(200, 1))
        interval = cluster_bootstrap(rng.random((200, 5)) < difficulty, seed=trial, draws=1000)
        hits += interval.low <= 2 / 3 <= interval.high
    assert 0.91 <= hits / 300 <= 0.98


def test_permutation_keeps_its_level_under_the_null() -> None:
    rng = np.random.default_rng(6)
    rejected = 0
    for trial in range(400):
        shared = rng.random((60, 1)) < 0.5  # images differ in difficulty, models do not
        first, second = (rng.random((60, 5)) < np.where(shared, 0.9, 0.3) for _ in range(2))
        rejected += cluster_permutation(first.astype(float) - second, draws=500, seed=trial) <= 0.05
    assert 0.02 <= rejected / 400 <= 0.08


def test_seed_interval_is_students_t() -> None:
    values = [0.71, 0.74, 0.69, 0.735]
    oracle = stats.ttest_1samp(values, 0).confidence_interval()
    assert seed_interval(values) == pytest.approx((np.mean(values), oracle.low, oracle.high))
    assert math.isnan(seed_interval([0.5]).low)
    assert (seed_interval([0.0, 0.01, 0.03]).low, seed_interval([1.0, 0.99, 0.97]).high) == (0.0, 1.0)
    with pytest.raises(InputError, match="at least one trained network"):
        seed_interval([])


def test_welch_is_the_textbook_formula() -> None:
    a, b = [0.7, 0.72, 0.75], [0.6, 0.66, 0.61, 0.64]
    va, vb = np.var(a, ddof=1) / 3, np.var(b, ddof=1) / 4
    freedom = (va + vb) ** 2 / (va**2 / 2 + vb**2 / 3)
    difference = np.mean(a) - np.mean(b)
    interval, pvalue = welch(a, b)
    assert pvalue == pytest.approx(2 * stats.t.sf(difference / math.sqrt(va + vb), freedom))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(va + vb)
    assert interval == pytest.approx((difference, difference - half, difference + half))


def test_welch_without_spread() -> None:
    assert welch([0.5, 0.5], [0.5, 0.5]) == ((0.0, 0.0, 0.0), 1.0)
    assert welch([0.75, 0.75], [0.5, 0.5])[1] == 0.0


def test_calibration_error_matches_torchmetrics() -> None:
    rng = np.random.default_rng(2)
    logits = torch.from_numpy(rng.normal(size=(500, 7)) * 3)
    labels = torch.from_numpy(rng.integers(0, 7, size=500))
    probabilities = logits.softmax(dim=1)
    confidences, predictions = probabilities.max(dim=1)
    oracle = MulticlassCalibrationError(num_classes=7, n_bins=15)(probabilities, labels)
    ours = calibration_error(confidences.numpy(), (predictions == labels).numpy())
    assert ours == pytest.approx(float(oracle), abs=1e-6)


def test_calibration_error_by_hand() -> None:
    assert calibration_error([0.9, 0.9, 0.6, 1.0], [True, False, True, True], bins=10) == pytest.approx(
        0.5 * abs(0.5 - 0.9) + 0.25 * abs(1 - 0.6)
    )

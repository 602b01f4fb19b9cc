"""The arithmetic of the studies in benchmarks/: intervals, equal iterations, choices of lambda, noise."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import common
import convergence
import curves
import lambda_choice
import noises

from warplca.frontend import raised_lam


def test_interval_is_the_bootstrap_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 900)
    mean, low, high = common.interval(values)
    assert mean == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 30, rel=0.08)
    assert common.interval(np.full(7, 3.0)) == pytest.approx((3.0, 3.0, 3.0))


def test_kept_runs_are_not_repeated(tmp_path: Path) -> None:
    calls = []

    def compute() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"a": np.arange(3)}

    for _ in range(2):
        assert np.array_equal(common.kept(tmp_path, "key", compute)["a"], np.arange(3))
    assert len(calls) == 1
    layer = torch.nn.Linear(2, 2)
    before = common.fingerprint(layer, 3)
    assert common.fingerprint(layer, 3) == before
    with torch.no_grad():
        layer.weight[0, 0] += 1e-6
    assert common.fingerprint(layer, 3) != before


def test_equal_iteration_inverts_a_power_law() -> None:
    marks = np.array(curves.LONGER, dtype=float)
    energy = 500 - 60 * np.log(marks)
    for iteration in (1, 7, 33, 640, 1999):
        assert convergence.equal_iteration(energy, 500 - 60 * np.log(iteration)) == pytest.approx(
            iteration, rel=1e-9
        )
    assert convergence.equal_iteration(energy, energy[-1] - 1) == np.inf


def test_saving_at_equal_psnr() -> None:
    lam = np.array(convergence.SWEEP)
    quality, density = 30 - 5 * np.log(lam), 0.02 / lam
    # PSNR 30 lies at lambda 1, where 2 % are active; the reference needs 2.5 %
    assert convergence.saving(quality, density, 30.0, 0.025) == pytest.approx(0.2)
    assert np.isnan(convergence.saving(quality, density, 90.0, 0.025))


def _trial(noise: np.ndarray, best: np.ndarray) -> lambda_choice.Trial:
    logarithm = np.log(np.array(lambda_choice.LAMS))[:, None]
    return lambda_choice.Trial(30 - (logarithm - np.log(best)[None]) ** 2, noise)


def test_best_lambda_is_the_top_of_the_parabola() -> None:
    trial = _trial(np.full(4, 0.1), np.full(4, 0.777))
    assert lambda_choice.best_lam(trial) == pytest.approx(0.777, rel=1e-6)


def test_fitted_rule_recovers_the_rule() -> None:
    generator = np.random.default_rng(0)
    trials = []
    for level in (0.05, 0.2, 0.5, 1.0):
        noise = level * generator.uniform(0.8, 1.2, 30)
        trials.append(_trial(noise, raised_lam(0.2, 1.4, torch.from_numpy(noise)).flatten().numpy()))
    rule = lambda_choice.fitted_rule(trials)
    assert rule.lam == pytest.approx(0.2, rel=0.12)
    assert rule.strength == pytest.approx(1.4, rel=0.06)


def test_noise_has_the_strength_it_names() -> None:
    gray = torch.full((4, 3, 64, 64), 0.5)
    noisy = noises.gaussian(gray, 25, seed=0)
    assert float(noisy.std()) == pytest.approx(25 / 255, rel=0.02)
    assert torch.equal((noisy * 255).round() / 255, noisy)
    assert torch.equal(noisy, noises.gaussian(gray, 25, seed=0))
    hit = noises.impulse(gray, 0.1, seed=0)
    assert float((hit != 0.5).float().mean()) == pytest.approx(0.1, rel=0.05)
    assert float((hit == 1.0).float().mean()) == pytest.approx(0.05, rel=0.1)

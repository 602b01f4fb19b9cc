"""Every threshold against a brute-force minimiser of its cost."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from warplca.configs import InputError
from warplca.frontend import THRESHOLDS, Threshold
from warplca.frontend.sparse.threshold import get_threshold


@settings(max_examples=80, deadline=None)
@given(st.floats(0, 1), st.floats(0.05, 2), st.floats(-4, 4), st.booleans())
def test_threshold_minimises_its_cost(alpha, lam, state, rectified):
    threshold = Threshold(alpha=alpha, rectified=rectified)
    if abs(abs(state) - lam) < 1e-3:  # a tie: both sides cost the same
        return
    candidates = torch.tensor(np.linspace(0 if rectified else -4, 4, 80001))
    cost = torch.where(
        candidates != 0, 0.5 * (1 - alpha) ** 2 * lam**2 + alpha * lam * candidates.abs(), torch.zeros(())
    )
    best = candidates[(0.5 * (state - candidates) ** 2 + cost).argmin()]
    found = threshold(torch.tensor(state, dtype=torch.float64), lam)
    assert float(found) == pytest.approx(float(best), abs=1.1e-4)


def test_named_thresholds_in_closed_form():
    u = torch.tensor([-2.0, -0.6, 0.0, 0.4, 0.5, 0.6, 2.0])
    assert THRESHOLDS["hard"](u, 0.5).tolist() == pytest.approx([0, 0, 0, 0, 0, 0.6, 2.0])
    assert THRESHOLDS["soft"](u, 0.5).tolist() == pytest.approx([0, 0, 0, 0, 0, 0.1, 1.5], abs=1e-6)
    assert THRESHOLDS["hard-signed"](u, 0.5).tolist() == pytest.approx([-2, -0.6, 0, 0, 0, 0.6, 2])
    assert THRESHOLDS["soft-signed"](u, 0.5).tolist() == pytest.approx(
        [-1.5, -0.1, 0, 0, 0, 0.1, 1.5], abs=1e-6
    )
    gamma = THRESHOLDS["smooth"].gamma
    expected = [max(x, 0) / (1 + math.exp(-gamma * (x - 0.5))) for x in u.tolist()]
    assert THRESHOLDS["smooth"](u, 0.5).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", sorted(THRESHOLDS))
def test_number_and_tensor_lam_agree(name):
    u = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(THRESHOLDS[name](u, 0.3), THRESHOLDS[name](u, torch.tensor(0.3)))


@pytest.mark.parametrize("name", sorted(THRESHOLDS))
def test_cost_of_a_code(name):
    threshold, lam = THRESHOLDS[name], 0.5
    code = torch.tensor([0.0, 1.5, 2.0])
    per_unit = 0.5 * (1 - threshold.alpha) ** 2 * lam**2
    expected = [0.0, per_unit + threshold.alpha * lam * 1.5, per_unit + threshold.alpha * lam * 2.0]
    assert threshold.cost(code, lam).tolist() == pytest.approx(expected)


def test_bad_thresholds_are_refused():
    with pytest.raises(InputError, match="unknown threshold 'sotf'; did you mean 'soft'"):
        get_threshold("sotf")
    with pytest.raises(InputError, match="alpha of the threshold is 2"):
        Threshold(alpha=2)
    with pytest.raises(InputError, match="gamma of the threshold is 0"):
        Threshold(gamma=0)

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import root_scalar
from torch import Tensor

from warplca.attacks import ThreatModel
from warplca.attacks.threat import BallError, enforce, project, scale_into_ball

NORMS = ["linf", "l2", "l1"]


def centres_and_candidates(spread: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    images = torch.rand(6, 2, 5, 3, generator=generator, dtype=torch.float64)
    return images, images + spread * torch.randn(images.shape, generator=generator, dtype=torch.float64)


def soft_threshold_at_radius(point: np.ndarray, radius: float) -> np.ndarray:
    """Nearest point of the l1 ball by its optimality condition: shrink all by one shift, found by bisection."""
    magnitude = np.abs(point)
    bracket = (0.0, float(magnitude.max()))
    found = root_scalar(lambda t: np.maximum(magnitude - t, 0).sum() - radius, bracket=bracket, xtol=1e-14)
    return np.sign(point) * np.maximum(magnitude - found.root, 0)


def test_l1_projection_equals_its_optimality_condition() -> None:
    generator = np.random.default_rng(5)
    for radius in (0.3, 1.0, 4.0):
        point = generator.normal(size=7)
        centre = torch.zeros(1, 7, dtype=torch.float64)
        ours = project(centre, torch.from_numpy(point)[None], ThreatModel("l1", radius))[0].numpy()
        expected = point if np.abs(point).sum() <= radius else soft_threshold_at_radius(point, radius)
        np.testing.assert_allclose(ours, expected, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("method", [project, scale_into_ball])
def test_moved_points_end_on_the_sphere_and_inner_points_stay(norm: str, method) -> None:
    images, candidates = centres_and_candidates(0.2)
    distances = ThreatModel(norm, 1.0).distance(candidates, images)
    threat = ThreatModel(norm, float(distances.median()))
    moved = method(images, candidates, threat)
    after = threat.distance(moved, images)
    torch.testing.assert_close(after, distances.clamp_max(threat.epsilon), rtol=1e-12, atol=1e-12)
    inside = distances <= threat.epsilon
    torch.testing.assert_close(moved[inside], candidates[inside], rtol=0, atol=1e-15)


@pytest.mark.parametrize("norm", NORMS)
def test_rounding_is_repaired_to_the_promise(norm: str) -> None:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(8, 3, 32, 32, generator=generator)
    direction = torch.randn(images.shape, generator=generator)
    epsilon = {"linf": 8 / 255, "l2": 5.0, "l1": 300.0}[norm]
    threat = ThreatModel(norm, epsilon)
    scale = (epsilon * (1 + 2e-5) / threat.distance(images + direction, images)).float().view(-1, 1, 1, 1)
    kept = enforce(images, images + scale * direction, threat)
    assert kept.dtype == images.dtype
    assert float(threat.distance(kept, images).max()) <= epsilon + 1e-6
    assert kept.min() >= 0
    assert kept.max() <= 1


def test_an_attack_that_leaves_the_ball_or_returns_nan_is_a_bug() -> None:
    images = torch.full((2, 1, 3, 3), 0.5)
    with pytest.raises(BallError, match=r"left its ball: distance 0\.2 for linf 0\.1"):
        enforce(images, images + 0.2, ThreatModel("linf", 0.1))
    with pytest.raises(BallError, match="gradient may not be finite"):
        enforce(images, images * float("nan"), ThreatModel("linf", 0.1))

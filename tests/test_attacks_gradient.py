"""FGSM and PGD against closed forms on a linear model, where the worst case is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from warplca.attacks import ThreatModel, run_attack
from warplca.attacks.gradient_descent import FGSM, PGD
from warplca.configs.errors import InputError

SHAPE = (2, 5, 7)
DUAL = {"linf": 1, "l2": 2, "l1": float("inf")}


class TwoClasses(nn.Module):
    """Logits (w.x, 0): class 0 has margin w.x + b."""

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.weight = nn.Parameter(torch.randn(SHAPE, generator=generator, dtype=torch.float64))
        self.bias = bias

    def margin(self, images: Tensor) -> Tensor:
        return (images - 0.5).flatten(1) @ self.weight.flatten() + self.bias

    def forward(self, images: Tensor) -> Tensor:
        margin = self.margin(images)
        return torch.stack([margin, torch.zeros_like(margin)], dim=1)


def grey_images(count: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return 0.5 + 0.01 * (torch.rand(count, *SHAPE, generator=generator, dtype=torch.float64) - 0.5)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_fgsm_equals_its_closed_form(norm: str) -> None:
    model, images = TwoClasses(bias=15.0).eval(), grey_images()
    weight, epsilon = model.weight.detach(), 0.1
    step = {"linf": weight.sign(), "l2": weight / weight.norm(), "l1": weight / weight.abs().sum()}[norm]
    result = run_attack(model, images, torch.zeros(5, dtype=torch.int64), FGSM(), ThreatModel(norm, epsilon))
    torch.testing.assert_close(result.adversarial, images - epsilon * step, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("random_start", [True, False])
def test_pgd_reaches_the_worst_case_of_a_linear_model(norm: str, random_start: bool) -> None:
    model, images, epsilon = TwoClasses(bias=15.0).eval(), grey_images(), 0.3
    attack = PGD(steps=100, random_start=random_start)
    result = run_attack(model, images, torch.zeros(5, dtype=torch.int64), attack, ThreatModel(norm, epsilon))
    with torch.no_grad():
        drop = model.margin(images) - model.margin(result.adversarial)
    worst = epsilon * torch.linalg.vector_norm(model.weight.detach().flatten(), DUAL[norm])
    assert (drop <= worst * (1 + 1e-9)).all()
    assert (drop >= worst * 0.98).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_pgd_breaks_exactly_the_images_whose_margin_is_within_reach(norm: str) -> None:
    epsilon, count = 0.1, 9
    model, images = TwoClasses().eval(), grey_images(1).expand(count, *SHAPE)
    reach = float(epsilon * torch.linalg.vector_norm(model.weight.detach().flatten(), DUAL[norm]))
    shifts = torch.linspace(-0.8, 0.8, count, dtype=torch.float64)
    with torch.no_grad():
        start = float(model.margin(images[:1]))
    model.bias = torch.where(shifts == 0, 2.0, 1.0 + shifts) * reach - start  # pyright: ignore[reportAttributeAccessIssue]
    images = images + torch.zeros(count, 1, 1, 1, dtype=torch.float64)
    result = PGD(steps=60)(model, images, torch.zeros(count, dtype=torch.int64), ThreatModel(norm, epsilon))
    assert result.correct.all()
    assert result.success.tolist() == (shifts < 0).tolist()


def test_restarts_never_lose_a_success_and_skip_the_broken() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 5 * 7, 4)).eval()
    images = torch.rand(20, 3, 7, 9)
    labels = model(images).argmax(dim=1)
    one, many = (run_attack(model, images, labels, PGD(steps=5, restarts=r), "linf 0.03") for r in (1, 4))
    assert (many.success | ~one.success).all()
    assert 0 < int(one.success.sum()) < 20
    assert one.gradients == 100
    assert many.gradients < 400


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"restarts": 0}, "restarts=0"),
        ({"relative_step": -1.0}, "relative_step=-1.0"),
    ],
)
def test_impossible_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PGD(**settings)

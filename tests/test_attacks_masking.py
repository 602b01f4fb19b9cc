"""Each masking check against cases whose answer is known, and the measurements behind them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from warplca.attacks import ThreatModel, masking_verdict
from warplca.attacks.gradient_descent import ascend
from warplca.attacks.suite.masking import (
    accuracy_falls_to_zero,
    correlation,
    cross_entropy_is_felt,
    gradients_agree,
    gradients_arrive,
    gradients_flow,
    loss_rises,
    many_steps_beat_one,
    nothing_beats_plain_gradients,
    probes_break_nothing_more,
    steps_do_what_gradients_say,
)
from warplca.attacks.suite.probes import Prober
from warplca.attacks.threat import direction


def flags(*true: int, size: int = 100) -> Tensor:
    result = torch.zeros(size, dtype=torch.bool)
    result[list(true)] = True
    return result


@pytest.mark.parametrize(
    ("check", "passed", "value", "words"),
    [
        (gradients_flow(torch.ones(100), torch.ones(100)), True, 0.0, "0 of 100"),
        (gradients_flow(torch.ones(100), (~flags(1, 2, 3)).float()), False, 0.03, "3 of 100"),
        (gradients_flow(torch.ones(100), torch.full((100,), 1e-9)), False, 1.0, "100 of 100"),
        (gradients_flow(torch.ones(100), torch.full((100,), float("nan"))), False, 1.0, "100 of 100"),
        (gradients_agree(torch.tensor([0.9, 0.95, 0.2])), True, 0.9, "0.90"),
        (gradients_agree(torch.tensor([0.9, 0.1, 0.2])), False, 0.2, "0.20"),
        (many_steps_beat_one(flags(1, 2, 3), flags(1, 2, 3, 4)), True, 0.0, "broke 0 of 100"),
        (many_steps_beat_one(flags(1, 2, 3), flags(4)), False, 0.03, "broke 3 of 100"),
        (many_steps_beat_one(flags(1, 2), flags(4)), True, 0.02, "broke 2 of 100"),
        (loss_rises(flags(*range(9), size=10)), True, 0.9, "9 of 10"),
        (loss_rises(flags(*range(8), size=10)), False, 0.8, "8 of 10"),
        (
            steps_do_what_gradients_say(-torch.ones(3), torch.tensor([-0.9, -0.4, 1.0])),
            True,
            0.4,
            "0.40 of the change",
        ),
        (
            steps_do_what_gradients_say(-torch.ones(3), torch.tensor([-0.9, -0.3, 1.0])),
            False,
            0.3,
            "0.30 of the change",
        ),
        (steps_do_what_gradients_say(torch.zeros(3), torch.zeros(3)), False, 0.0, "3 images"),
        (cross_entropy_is_felt((~flags(7)).float()), True, 0.01, "1 of the 100"),
        (cross_entropy_is_felt((~flags(7, 8, 9)).float()), False, 0.03, "3 of the 100"),
        (gradients_arrive(2, 100), True, 0.02, "2 of 100"),
        (gradients_arrive(3, 100), False, 0.03, "3 of 100"),
        (probes_break_nothing_more(1, 64), True, 1 / 64, "1 of 64"),
        (probes_break_nothing_more(2, 64), False, 2 / 64, "2 of 64"),
        (accuracy_falls_to_zero([0.1, 0.4], [0.5, 0.0]), True, 0.0, "50 % at 0.1, 0 % at 0.4"),
        (accuracy_falls_to_zero([0.1, 0.4], [0.5, 0.3]), False, 0.3, "30 % at 0.4"),
        (nothing_beats_plain_gradients("transfer", 1, 20), True, 0.05, "Transfer broke 1 of 20"),
        (nothing_beats_plain_gradients("random search", 3, 100), False, 0.03, "Random search broke 3"),
    ],
)
def test_a_check_decides_by_its_figure(check, passed: bool, value: float, words: str) -> None:
    assert check.passed is passed
    assert check.value == pytest.approx(value)
    assert words in check.evidence


def test_the_verdict_needs_every_check_and_names_the_failed_ones() -> None:
    good = gradients_agree(torch.ones(3))
    bad = loss_rises(flags(size=4))
    assert masking_verdict([good]).trusted
    verdict = masking_verdict([good, bad])
    assert not verdict.trusted
    assert verdict.reasons == (bad.evidence,)
    assert str(verdict) == "not trusted because The loss rose along the attack for 0 of 4 images."
    assert str(masking_verdict([good])) == "trusted"
    assert not masking_verdict([]).trusted


def test_correlation_equals_numpy_and_is_zero_for_constants() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 20, 3, generator=generator)
    for column in range(3):
        expected = torch.corrcoef(torch.stack([a[:, column], b[:, column]]))[0, 1]
        assert correlation(a, b)[column].item() == pytest.approx(expected.item(), abs=1e-6)
    assert correlation(torch.ones(5, 1), torch.randn(5, 1)).tolist() == [0.0]


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_ascent_reaches_the_maximum_of_a_linear_objective(norm: str, dual: int) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(2, 5, 7, generator=generator)
    images = torch.full((3, 2, 5, 7), 0.5)
    threat = ThreatModel(norm, 0.2)  # pyright: ignore[reportArgumentType]
    for candidates, _ in ascend(lambda x: (x * weight).flatten(1).sum(dim=1), images, threat, steps=30):
        assert float(threat.distance(candidates, images).max()) <= 0.2 + 1e-6
    gain = ((candidates - images) * weight).flatten(1).sum(dim=1)
    worst = 0.2 * torch.linalg.vector_norm(weight.flatten(), dual)
    assert (gain > 0.98 * worst).all()


def test_l1_steps_have_unit_length_and_go_to_the_largest_slopes() -> None:
    gradient = torch.arange(1.0, 101.0).view(1, 1, 10, 10)
    step = direction(gradient, "l1")
    assert float(step.abs().sum()) == pytest.approx(1.0)
    assert int((step > 0).sum()) == 5
    assert (step.flatten()[-5:] > 0).all()
    assert torch.equal(direction(torch.zeros(1, 1, 4, 4), "l1"), torch.zeros(1, 1, 4, 4))


class TwoClasses(nn.Module):
    """Margin w.x, optionally rounded so finely or coarsely that its gradient lies or dies."""

    def __init__(self, kind: str = "honest") -> None:
        super().__init__()
        self.weight = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(2))
        self.kind = kind

    def forward(self, images: Tensor) -> Tensor:
        shifted = images - 0.5
        margin = (shifted * self.weight).flatten(1).sum(dim=1)
        if self.kind == "flat":
            margin = margin.round()
        if self.kind == "lying":
            margin = 2 * margin.detach() - margin
        return torch.stack([margin, torch.zeros_like(margin)], dim=1)


def probed(kind: str, norm: str = "linf", epsilon: float = 0.02) -> dict[str, bool]:
    model = TwoClasses(kind).eval()
    direction_up = model.weight.sign() * 0.03
    images = (0.5 + direction_up + 0.02 * torch.rand(12, 3, 6, 6)).clamp(0, 1)
    threat = ThreatModel(norm, epsilon)  # pyright: ignore[reportArgumentType]
    prober = Prober(model=model, images=images, labels=torch.zeros(12, dtype=torch.int64), threat=threat)
    return {check.name: check.passed for check in prober.checks()}


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.02), ("l2", 0.2), ("l1", 1.5)])
def test_an_honest_model_passes_every_probe(norm: str, epsilon: float) -> None:
    results = probed("honest", norm, epsilon)
    assert len(results) == 5
    assert all(results.values())


def test_flat_gradients_are_seen_at_once() -> None:
    assert probed("flat") == {"gradients flow": False}


def test_lying_gradients_disagree_with_differences() -> None:
    results = probed("lying")
    assert results["gradients flow"]
    assert not results["gradients agree with differences"]
    assert not results["loss rises along the attack"]

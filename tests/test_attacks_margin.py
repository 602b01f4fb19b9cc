"""The margin attack against closed forms, and its promise that scales and shifts of logits are nothing to it."""

from __future__ import annotations

import pytest
import torch
from stripes import QUIET_SUITE
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from warplca.attacks import ThreatModel, run_attack, run_suite
from warplca.attacks.interface import is_random
from warplca.attacks.margin import ANY, MarginAttack, ascend_margins, lead
from warplca.attacks.registry import ATTACKS
from warplca.configs.errors import InputError


class Linear(nn.Module):
    """Logits linear in the pixels: what a ball can do to them is known."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.weight = torch.randn(classes, 3 * 5 * 7, generator=torch.Generator().manual_seed(4))
        self.passes: list[int] = []
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        self.passes.append(len(images))
        return (images - 0.5).flatten(1) @ self.weight.T


def labelled(model: nn.Module, count: int = 20) -> tuple[Tensor, Tensor]:
    images = 0.3 + 0.4 * torch.rand(count, 3, 5, 7, generator=torch.Generator().manual_seed(5))
    return images, model(images).argmax(dim=1)


def test_lead_is_by_how_much_the_goal_exceeds_the_true_class() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]])
    assert lead(logits, torch.tensor([0, 0]), torch.tensor([ANY, ANY])).tolist() == [-1.0, 5.0]
    assert lead(logits, torch.tensor([0, 0]), torch.tensor([1, 2])).tolist() == [-2.0, 4.0]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_linear_network_falls_exactly_where_its_margin_is_within_reach(norm: str) -> None:
    model = Linear()
    images, labels = labelled(model)
    difference = model.weight[labels][:, None] - model.weight[None]
    reach = torch.linalg.vector_norm(difference, 1 if norm == "linf" else 2, dim=2)
    gaps = model(images).gather(1, labels[:, None]) - model(images)
    needed = torch.where(reach > 0, gaps / reach, torch.inf).amin(dim=1)
    epsilon = float(needed.median())
    result = run_attack(model, images, labels, "margin", ThreatModel(norm, epsilon))  # pyright: ignore[reportArgumentType]
    clear = (needed - epsilon).abs() > 0.05 * epsilon
    assert result.success[clear].tolist() == (needed < epsilon)[clear].tolist()
    assert 5 < int(result.success.sum()) < 15


@pytest.mark.parametrize("change", [lambda z: 1e4 * z, lambda z: 1e-20 * z, lambda z: z + 300])
def test_scales_and_shifts_of_the_logits_change_nothing(change) -> None:
    model = Linear()
    images, labels = labelled(model)
    plain, changed = (
        run_attack(network, images, labels, "margin", ThreatModel("l2", 0.06))
        for network in (model, lambda x: change(model(x)))
    )
    assert changed.success.tolist() == plain.success.tolist()
    assert 0 < int(plain.success.sum()) < len(images)


def test_broken_images_leave_the_batch_and_others_take_their_places() -> None:
    model = Linear()
    images, labels = labelled(model)
    goals = torch.full_like(labels[:, None], ANY)
    model.passes.clear()
    walks = ascend_margins(
        model, images, labels, ThreatModel("linf", 0.5), goals, steps=30, batch_size=8, random_start=False
    )
    assert walks.broken.all()
    assert walks.risen.all()
    assert max(model.passes) == 8
    assert sum(model.passes) < 20 * 4
    model.passes.clear()
    walks = ascend_margins(
        model, images, labels, ThreatModel("linf", 1e-6), goals.repeat(1, 2), steps=3, batch_size=8
    )
    assert not walks.broken.any()
    assert model.passes == [8] * 20


def test_two_classes_have_no_goal_beside_the_margin_and_settings_are_checked() -> None:
    model = Linear(classes=2)
    images, labels = labelled(model)
    result = MarginAttack(steps=3)(model, images, labels, ThreatModel("linf", 1e-7))
    assert result.gradients == 4 * int(result.correct.sum())
    with pytest.raises(InputError, match="steps=0, targets=3"):
        MarginAttack(steps=0)


def test_zero_gradients_are_counted() -> None:
    images, labels = labelled(Linear())
    result = run_attack(lambda x: Linear()(x).round() + 0 * x.sum(), images, labels, "pgd-10", "linf 0.001")
    assert result.zero_gradients == result.gradients > 0
    assert (
        f"{result.gradients} of {result.gradients} image gradients were zero in every pixel." in result.notes
    )


def test_randomness_between_the_levels_of_pixels_is_seen() -> None:
    images = torch.randint(0, 256, (4, 3, 5, 7), generator=torch.Generator().manual_seed(0)) / 255

    def noisy_between(x: Tensor) -> Tensor:
        off = ((255 * x - (255 * x).round()).abs() > 1e-3).any()
        return Linear()(x) + (0.1 * torch.randn(len(x), 4) if off else 0)

    threat = ThreatModel("linf", 0.01)
    assert torch.equal(noisy_between(images), noisy_between(images))
    assert is_random(noisy_between, images, threat)
    assert not is_random(Linear(), images, threat)


class NoRowTwice(TorchFunctionMode):
    """Assert that no assignment writes one row twice: a GPU would mix what is written."""

    seen = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen |= func is Tensor.__setitem__
        if func is Tensor.__setitem__ and isinstance(args[1], Tensor) and args[1].dtype != torch.bool:
            assert args[1].unique().numel() == args[1].numel()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "suite", ["quick", {name: ATTACKS[name]() for name in ("margin-all", "square", "carlini-wagner")}]
)
def test_no_attack_writes_an_image_twice_at_once(suite) -> None:
    model = Linear()
    images, labels = labelled(model)
    with NoRowTwice() as watch:
        result = run_suite(model, images, labels, "l2 0.06", suite, batch_size=64, session=QUIET_SUITE)
    assert watch.seen
    assert 0 < int(result.success.sum()) < len(images)


def test_of_several_walks_that_break_an_image_one_is_kept_whole() -> None:
    model = Linear()
    images, labels = labelled(model)
    goals = torch.full_like(labels[:, None], ANY).repeat(1, 5)
    threat = ThreatModel("l2", 0.3)
    with NoRowTwice():
        walks = ascend_margins(model, images, labels, threat, goals, steps=10, batch_size=100)
    assert walks.broken.all()
    assert (model(walks.found).argmax(1) != labels).all()
    assert (threat.distance(walks.found, images) <= 0.3 + 1e-6).all()

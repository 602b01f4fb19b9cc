"""Models that no one here wrote: whatever they do, a suite names it, and never breaks off or flatters."""

from __future__ import annotations

import pytest
import torch
from stripes import QUIET_SUITE
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from toy_defences import SIZE, gradient, through

from warplca.attacks import Suite, run_attack, run_suite, suite_attacks
from warplca.attacks.adaptive.modules import ThroughModules
from warplca.configs.errors import InputError

CHEAP = ("fgsm", "bpda-smooth", "bpda-calls", "bpda-modules", "bpda-modules-coarse", "noise")


class WritesIntoItsInput(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mul_(0.5).add_(0.25)


class RoundsInPlace(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mul_(7).round_().div_(7)


class Reentrant(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        return checkpoint(self.inner, images, use_reentrant=True)  # pyright: ignore[reportReturnType]


class FailsInLargeBatches(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        if images.requires_grad and len(images) > 4:
            raise RuntimeError("no kernel for so many images")
        return self.inner(images)


def linear(*first: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *first, nn.Conv2d(3, 6, 3, 2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(72, 5)
    ).eval()


def own_labels(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images.clone()).argmax(dim=1)


def pictures(count: int = 12) -> Tensor:
    return torch.rand(count, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("first", [(), (WritesIntoItsInput(),), (RoundsInPlace(),)])
def test_modules_that_write_in_place_are_attacked_and_change_no_image(first: tuple[nn.Module, ...]) -> None:
    model, images = linear(*first), pictures()
    labels, before = own_labels(model, images), images.clone()
    chosen = {name: attack for name, attack in suite_attacks("standard").items() if name in CHEAP}
    result = run_suite(model, images, labels, "linf 0.1", chosen, session=QUIET_SUITE)
    assert torch.equal(images, before)
    assert result.clean_accuracy == 1.0
    assert result.robust_accuracy < 0.5
    assert "bpda-smooth" in result.skipped
    assert not any("in-place" in reason for reason in result.skipped.values())


def test_a_rounding_module_that_works_in_place_is_looked_through() -> None:
    straight, images = linear(), pictures(4)
    rounded = nn.Sequential(RoundsInPlace(), straight).eval()
    grid = (images * 7).round() / 7
    torch.testing.assert_close(
        gradient(through(ThroughModules(), rounded, images), images), gradient(straight, grid)
    )


def test_a_model_that_cannot_be_differentiated_is_named_and_not_trusted() -> None:
    model, images = Reentrant(linear()).eval(), pictures()
    result = run_suite(model, images, own_labels(model, images), "linf 0.1", "quick", session=QUIET_SUITE)
    assert "cannot be differentiated along this path: When use_reentrant=True" in result.skipped["fgsm"]
    assert not result.verdict.trusted
    with pytest.raises(InputError, match="cannot be differentiated"):
        run_attack(model, images, own_labels(model, images), "pgd", "linf 0.1")


def test_an_attack_that_fails_half_way_costs_the_trust_but_not_the_run() -> None:
    model, images = FailsInLargeBatches(linear()).eval(), pictures()
    chosen = {name: attack for name, attack in suite_attacks("quick").items() if name in ("fgsm", "noise")}
    result = run_suite(
        model,
        images,
        own_labels(model, images),
        "linf 0.01",
        Suite(chosen, probe_images=4),
        batch_size=12,
        session=QUIET_SUITE,
    )
    assert result.skipped["fgsm"] == "no kernel for so many images"
    assert "fgsm failed: no kernel for so many images" in str(result.verdict)
    assert [tally.name for tally in result.tallies] == ["noise", "probes"]


def test_accuracy_at_chance_is_never_trusted() -> None:
    model, images = linear(), pictures(40)
    labels = (own_labels(model, images) + 1) % 5
    labels[:4] = own_labels(model, images)[:4]
    fgsm = {"fgsm": suite_attacks("quick")["fgsm"]}
    result = run_suite(model, images, labels, "linf 0.01", fgsm, session=QUIET_SUITE)
    assert "Only 4 of 40 clean images are classified rightly; guessing among 5 classes gets 8" in str(
        result.verdict
    )

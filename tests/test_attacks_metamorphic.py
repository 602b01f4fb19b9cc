"""A network in disguise has the same answers, hence the same robustness: the same figure, or no trust in another."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from disguises import DISGUISES, MedianFiltered, with_folded_norms, with_softplus
from patterns import classifier, task, trained
from stripes import QUIET_SUITE
from torch import Tensor, nn

from warplca.attacks import SuiteResult, run_suite
from warplca.attacks.suite.masking import allowance

IMAGES = 32

FAST = ("times 10,000", "winner raised", "rippled", "lying")
"""What the fast tests look at, on one network."""


def with_norms(activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    plain = classifier(activation)
    return nn.Sequential(plain[0], nn.BatchNorm2d(24), plain[1], plain[2], nn.BatchNorm2d(32), *plain[3:])


NETWORKS = {
    "plain": lambda: trained(classifier()),
    "adversarially trained": lambda: trained(classifier(), radius=0.03),
    "batch norm": lambda: trained(with_norms()),
    "tanh": lambda: trained(classifier(nn.Tanh)),
}
RADII = {"adversarially trained": 0.035}


@cache
def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name]().requires_grad_(False)


@cache
def right_images(name: str) -> tuple[Tensor, Tensor]:
    images, labels = task(3 * IMAGES, seed=2)
    images = (255 * images).round() / 255
    right = network(name)(images).argmax(dim=1) == labels
    return images[right][:IMAGES], labels[right][:IMAGES]


@cache
def judged(name: str) -> SuiteResult:
    return judge(network(name), name)


def judge(model: nn.Module, name: str) -> SuiteResult:
    threat = f"linf {RADII.get(name, 0.025)}"
    return run_suite(model.eval(), *right_images(name), threat, "quick", session=QUIET_SUITE)


def left(result: SuiteResult) -> int:
    return int((~result.success).sum())


def check_disguise(name: str, disguise: str) -> None:
    plain, model = judged(name), DISGUISES[disguise](network(name))
    images, labels = right_images(name)
    result = judge(model, name)
    spare = allowance(len(images))
    assert not result.verdict.trusted or abs(left(result) - left(plain)) <= spare, str(result.verdict)
    with torch.no_grad():
        transferred = int((model(plain.adversarial).argmax(dim=1) == labels).sum())
    assert not result.verdict.trusted or left(result) <= transferred + spare


@pytest.mark.parametrize("disguise", FAST)
def test_a_disguise_gives_the_same_figure_or_no_trust(disguise: str) -> None:
    assert judged("plain").verdict.trusted, str(judged("plain").verdict)
    assert 0.2 < judged("plain").robust_accuracy < 0.8
    check_disguise("plain", disguise)


@pytest.mark.slow
@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_disguise_of_every_network(name: str, disguise: str) -> None:
    check_disguise(name, disguise)


@pytest.mark.parametrize(
    "disguise",
    [pytest.param(name, marks=pytest.mark.slow) for name in ("times 10", "times 100", "times 10,000")]
    + ["winner raised", pytest.param("a millionth", marks=pytest.mark.slow)],
)
def test_scales_and_raised_winners_get_the_true_figure(disguise: str) -> None:
    result = judge(DISGUISES[disguise](network("plain")), "plain")
    assert abs(left(result) - left(judged("plain"))) <= allowance(IMAGES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "disguise", ["rippled", "rounded", "lying", "detached", "cut off the levels", "random off the levels"]
)
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_that_lead_astray_cost_the_trust(name: str, disguise: str) -> None:
    assert not judge(DISGUISES[disguise](network(name)), name).verdict.trusted


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_honest_networks_are_trusted(name: str) -> None:
    assert judged(name).verdict.trusted, str(judged(name).verdict)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["softplus", "folded norms", "median filter", "double", "all raised"])
def test_honest_changes_are_trusted(kind: str) -> None:
    model = {
        "softplus": lambda: with_softplus(network("plain")),
        "folded norms": lambda: with_folded_norms(network("batch norm")),
        "median filter": lambda: MedianFiltered(network("plain")),
        "double": lambda: DISGUISES["double"](network("plain")),
        "all raised": lambda: DISGUISES["all raised"](network("plain")),
    }[kind]()
    result = judge(model, "batch norm" if kind == "folded norms" else "plain")
    assert result.verdict.trusted, str(result.verdict)
    if kind == "folded norms":
        assert left(result) == left(judged("batch norm"))

"""Every attack of every suite on every arm and on a stranger's network: what runs, what finds nothing to do."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from frontends import SECTIONS
from torch import nn

from warplca.attacks import SUITES, as_attack, find_iterative_layers, run_attack
from warplca.attacks.adaptive.code_attack import CodeAttack
from warplca.attacks.adaptive.ensemble import ADAPTIVE, ViewAttack
from warplca.attacks.adaptive.layers import LayerView
from warplca.attacks.adaptive.views import EstimatedView, SmoothedView
from warplca.attacks.autoattack import AutoAttack
from warplca.attacks.checks import NotApplicable
from warplca.attacks.gradient_free import AdditiveNoise
from warplca.attacks.interface import Attack
from warplca.attacks.margin import MarginAttack
from warplca.attacks.minimisation import HopSkipJump
from warplca.models import create_classifier

NAMES = tuple(dict.fromkeys(name for names in SUITES.values() for name in names))

LAYER_ATTACKS = {"code"} | {
    name
    for name, make in ADAPTIVE.items()
    if isinstance(attack := make(), ViewAttack) and isinstance(attack.view, LayerView)
}
"""What goes through the cycles of an iterative layer, and so has no object elsewhere."""

LOOKING_THROUGH = {name for name in NAMES if name.startswith("bpda-calls") or name.startswith("bpda-modules")}

GATES = {"gates-smooth", "gates-open", "gates-closed"}

NOTHING_TO_WORK_ON = {
    "none": LAYER_ATTACKS | GATES,
    "conv": LAYER_ATTACKS | GATES,
    "lca": {"unroll", "bpda-predictor"} | GATES,
    "warp-lca": {"unroll"} | GATES,
    "equaliser": LAYER_ATTACKS | GATES,
    "gated": LAYER_ATTACKS,
    "stranger": LAYER_ATTACKS | LOOKING_THROUGH | GATES,
}
"""For each arm the attacks that say that they find nothing; every other one must run."""


def build(arm: str) -> nn.Module:
    torch.manual_seed(0)
    if arm == "stranger":
        layers = nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 7 * 8, 5)
        return nn.Sequential(*layers).eval()
    section = {"name": "contrast", "gate": [0.0, 0.9]} if arm == "gated" else SECTIONS[arm]
    return create_classifier("resnet10_slim", section, 5).eval()


def shortened(attack: Attack) -> Attack:
    """The attack with as little work as shows that it runs."""
    small = {MarginAttack: {"steps": 2}, CodeAttack: {"steps": 2}, AdditiveNoise: {"repeats": 2}}
    if isinstance(attack, AutoAttack):
        return dataclasses.replace(attack, target_classes=1, square_queries=4)
    if isinstance(attack, HopSkipJump):
        return dataclasses.replace(attack, steps=1, evaluations=2)
    if isinstance(attack, ViewAttack):
        views = {EstimatedView: EstimatedView(samples=1), SmoothedView: SmoothedView(samples=1)}
        view = views.get(type(attack.view), attack.view)
        return dataclasses.replace(attack, view=view, inner=MarginAttack(steps=2, targets=1))
    return dataclasses.replace(attack, **small.get(type(attack), {}))


def check(arm: str, names: tuple[str, ...]) -> None:
    model = build(arm)
    images = torch.rand(3, 3, 16, 18, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
    silent = set()
    for name in names:
        try:
            result = run_attack(model, images, labels, shortened(as_attack(name)), "linf 0.001")
            assert result.queries + result.gradients > 0, name
        except NotApplicable:
            silent.add(name)
    assert silent == NOTHING_TO_WORK_ON[arm] & set(names)


@pytest.mark.parametrize("arm", ["stranger", "warp-lca"])
def test_every_attack_of_the_quick_suite_and_every_adaptive_one_runs_where_it_has_an_object(arm: str) -> None:
    assert bool(find_iterative_layers(build(arm))) == (arm == "warp-lca")
    check(arm, tuple(name for name in NAMES if name in SUITES["quick"] or name in ADAPTIVE))


@pytest.mark.slow
@pytest.mark.parametrize("arm", NOTHING_TO_WORK_ON)
def test_every_attack_of_every_suite_runs_on_every_arm(arm: str) -> None:
    check(arm, NAMES)

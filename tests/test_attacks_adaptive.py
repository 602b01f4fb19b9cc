"""Adaptive attacks keep the attack's promises."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_defences import Quantiser, defended, gradient, labelled, pictures, through

from warplca.attacks import (
    ThreatModel,
    Transfer,
    as_attack,
    find_iterative_layers,
    run_attack,
)
from warplca.attacks.access import CountingModel
from warplca.attacks.adaptive.code_attack import CodeAttack, _foreign_codes
from warplca.attacks.adaptive.ensemble import ADAPTIVE, Ensemble, ViewAttack
from warplca.attacks.adaptive.layers import LayerView
from warplca.attacks.adaptive.modules import ThroughModules
from warplca.attacks.adaptive.views import EstimatedView, SmoothedView
from warplca.attacks.autoattack import AutoAttack
from warplca.attacks.checks import NotApplicable
from warplca.configs.errors import InputError


def quick(name: str) -> Any:
    attack = as_attack(name)
    if isinstance(attack, ViewAttack):
        view = attack.view
        if isinstance(view, EstimatedView):
            view = EstimatedView(samples=3)
        if isinstance(view, SmoothedView):
            view = SmoothedView(samples=2)
        few = {"target_classes": 1} if isinstance(attack.inner, AutoAttack) else {"steps": 10}
        return ViewAttack(view=view, inner=dataclasses.replace(attack.inner, **few))
    return CodeAttack(steps=6, targets=1) if isinstance(attack, CodeAttack) else attack


@pytest.mark.parametrize(
    ("name", "norm"),
    [(name, "linf") for name in sorted(ADAPTIVE) if not name.startswith("gates")]  # these: test_harden.py
    + [(name, norm) for name in ("bpda-smooth", "bpda-calls", "code") for norm in ("l2", "l1")],
)
def test_every_adaptive_attack_keeps_its_promises(name: str, norm: str) -> None:
    model = defended(mode="detach" if name == "unroll" else "unroll")
    images, labels = labelled(model)
    threat = ThreatModel(norm, {"linf": 0.1, "l2": 1.5, "l1": 15.0}[norm])  # pyright: ignore[reportArgumentType]
    result = quick(name)(model, images, labels, threat, batch_size=6)
    assert float(threat.distance(result.adversarial, images).max()) <= threat.epsilon + 1e-6
    assert torch.equal(result.adversarial[0], images[0])
    with torch.no_grad():
        wrong_alone = torch.cat([model(x[None]).argmax(dim=1) for x in result.adversarial]) != labels
    assert torch.equal(result.success, wrong_alone)
    assert result.queries > len(images)


def test_views_reach_through_a_quantiser_before_the_layer() -> None:
    model, images = defended(), pictures()
    attack = ViewAttack(view=LayerView(threshold="smooth"))
    counted = CountingModel(model, images.dtype)
    ours = gradient(attack._stand_in(counted, images[:1]), images)
    behind = model[1:]  # pyright: ignore[reportIndexIssue]
    expected = gradient(through(LayerView(threshold="smooth"), behind, images), Quantiser()(images))
    torch.testing.assert_close(ours, expected)
    assert counted.tally.queries > 0


def test_views_break_what_plain_gradients_cannot_even_attack() -> None:
    model = defended()
    images, labels = labelled(model, 12)
    model = nn.Sequential(Quantiser(cut=True), *model[1:]).eval()  # pyright: ignore[reportIndexIssue]
    with pytest.raises(NotApplicable, match="carry no gradient"):
        run_attack(model, images, labels, "apgd-ce", "linf 0.1")
    noise = run_attack(model, images, labels, "noise", "linf 0.1")
    view = run_attack(model, images, labels, "bpda-calls", "linf 0.1")
    assert view.robust_accuracy < noise.robust_accuracy


def test_without_a_front_end_layer_views_say_so() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(189, 5)).eval()
    with pytest.raises(NotApplicable, match="holds no iterative layer"):
        run_attack(model, *labelled(model), "bpda-smooth", "linf 0.1")

    class Bare(nn.Module):
        gradient_mode, iterations = "unroll", 2

        def forward(self, x: Tensor) -> Tensor:
            return x

    bare = nn.Sequential(Bare(), *model).eval()
    with pytest.raises(NotApplicable, match="Bare lacks 'threshold'"):
        run_attack(bare, *labelled(bare), "bpda-smooth", "linf 0.1")


def test_an_ensemble_is_never_weaker_than_its_first_part_and_names_the_breakers() -> None:
    model = defended()
    images, labels = labelled(model, 10)
    parts = tuple((name, quick(name)) for name in ("unroll", "bpda-smooth", "bpda-modules", "code"))
    together = Ensemble(parts=parts)(model, images, labels, ThreatModel("linf", 0.03))
    first = parts[1][1](model, images, labels, ThreatModel("linf", 0.03))
    assert (together.success | ~first.success).all()
    assert not any(note.startswith("unroll") for note in together.notes)
    counted = sum(int(note.split()[2]) for note in together.notes if " broke " in note)
    assert counted == int(together.success.sum()) - 1


def test_transfer_uses_the_surrogate_and_counts_on_the_model() -> None:
    model = defended(quantised=False)
    images, labels = labelled(model, 12)
    same = run_attack(model, images, labels, Transfer(source=model, name="itself"), "linf 0.05")
    direct = run_attack(model, images, labels, AutoAttack(part="apgd-ce"), "linf 0.05")
    assert same.robust_accuracy <= direct.robust_accuracy + 0.1
    assert same.gradients == 0
    assert same.queries <= 4 * 11
    with pytest.raises(InputError, match="the surrogate 'raw' is in training mode"):
        Transfer(source=nn.Linear(2, 2), name="raw")


def test_foreign_codes_are_the_nearest_of_another_class() -> None:
    codes = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    labels = torch.tensor([0, 0, 1, 1])
    goals = _foreign_codes(codes, labels, 3)
    assert [goal.squeeze(1).tolist() for goal in goals] == [[3.0, 3.0, 1.0, 1.0], [7.0, 7.0, 0.0, 0.0]]
    assert _foreign_codes(codes, torch.zeros(4), 2) == []


def test_the_code_attack_moves_codes() -> None:
    model = defended(quantised=False)
    images, labels = labelled(model)
    result = CodeAttack(steps=10, targets=0)(model, images, labels, ThreatModel("linf", 0.02))
    noisy = images + 0.02 * torch.randn_like(images).sign()
    layer: Any = find_iterative_layers(model)[0]
    with torch.no_grad():
        clean, moved, blind = layer(images), layer(result.adversarial), layer(noisy.clamp(0, 1))
    assert (moved - clean)[1:].square().sum() > 1.5 * (blind - clean)[1:].square().sum()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SmoothedView(sigma=0.0), "sigma=0.0"),
        (lambda: EstimatedView(samples=0), "samples=0"),
        (lambda: ThroughModules(coarseness=-1.0), "coarseness is -1.0"),
        (lambda: CodeAttack(steps=0), "steps=0"),
        (lambda: Transfer(source=nn.Linear(2, 2).eval(), restarts=0), "restarts=0"),
    ],
)
def test_impossible_settings_are_named(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()

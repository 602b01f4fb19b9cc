"""Views keep a model's values and give the gradients they promise; adaptive attacks keep the attack's promises."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warplca.attacks import (
    ThreatModel,
    Transfer,
    as_attack,
    find_iterative_layers,
    iterative_settings,
    run_attack,
)
from warplca.attacks.adaptive import ADAPTIVE, Ensemble
from warplca.attacks.autoattack import AutoAttack
from warplca.attacks.checks import NotApplicable
from warplca.attacks.code_attack import CodeAttack, _foreign_codes
from warplca.attacks.counting import CountingModel
from warplca.attacks.function_view import LookThroughCalls
from warplca.attacks.gradient_breaks import ThroughModules, suspicious_modules
from warplca.attacks.layer_views import LayerView
from warplca.attacks.sampled_views import EstimatedView, SmoothedView
from warplca.attacks.view_attack import ViewAttack
from warplca.attacks.views import View
from warplca.configs.errors import InputError

SIZE = (3, 7, 9)
LAM = 0.3


class HardThreshold:
    rectified = True

    def __call__(self, state: Tensor, lam: Any) -> Tensor:
        return F.threshold(state, lam, 0.0)


class ToyLayer(nn.Module):
    """A convolutional LCA in a few lines, with a predictor that may be cut off."""

    def __init__(self, *, mode: str = "unroll", cut_predictor: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        atoms = torch.randn(8, 3, 3, 3, generator=generator)
        self.atoms = nn.Parameter(atoms / atoms.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
        self.predictor = nn.Conv2d(3, 8, 3, padding=1)
        self.threshold = HardThreshold()
        self.gradient_mode, self.iterations, self.cut_predictor = mode, 3, cut_predictor

    def initial_state(self, images: Tensor) -> Tensor | None:
        predicted = 3 * self.predictor(images)
        return predicted.detach() if self.cut_predictor else predicted

    def forward(self, images: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient_mode != "detach"):
            state = self.initial_state(images)
            if state is None:
                state = torch.zeros(len(images), 8, *images.shape[2:])
            for _ in range(self.iterations):
                code = self.threshold(state, LAM)
                residual = images - F.conv_transpose2d(code, self.atoms, padding=1)
                state = state + 0.05 * (F.conv2d(residual, self.atoms, padding=1) + code - state)
            return self.threshold(state, LAM)


class Quantiser(nn.Module):
    def __init__(self, *, cut: bool = False) -> None:
        super().__init__()
        self.cut = cut

    def forward(self, images: Tensor) -> Tensor:
        rounded = (images * 7).round() / 7
        return rounded.detach() if self.cut else rounded


def defended(*, quantised: bool = True, **settings: Any) -> nn.Module:
    torch.manual_seed(3)
    layer = ToyLayer(**settings)
    head = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2), nn.Flatten(), nn.Linear(8 * 3 * 4, 5))
    first = [Quantiser()] if quantised else []
    network = nn.Sequential(*first, layer, head).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network


def pictures(count: int = 6) -> Tensor:
    return torch.rand(count, *SIZE, generator=torch.Generator().manual_seed(1))


def gradient(model: Any, images: Tensor) -> Tensor:
    leaf = images.clone().requires_grad_()
    weights = torch.linspace(-1, 1, 5)
    return torch.autograd.grad((model(leaf) * weights).sum(), leaf)[0]


def through(view: View, model: nn.Module, images: Tensor) -> Any:
    return view.surrogate(CountingModel(model, images.dtype), images[:1])


LAYER_VIEWS = [
    LayerView(threshold="identity"),
    LayerView(threshold="smooth"),
    LayerView(threshold="smooth", cycles=0),
    LayerView(cycles=3),
    LayerView(cycles=1 / 3),
    LayerView(threshold="smooth", cycles=3, start="cold"),
    LayerView(gradient_mode="implicit", threshold="smooth"),
]
VIEWS = [
    *LAYER_VIEWS,
    ThroughModules(),
    ThroughModules(coarseness=0.3),
    SmoothedView(),
    EstimatedView(),
    LookThroughCalls(),
]


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_a_view_changes_gradients_and_nothing_else(view: View) -> None:
    model, images = defended(), pictures()
    layer = find_iterative_layers(model)[0]
    before = dict(layer.__dict__)
    surrogate = through(view, model, images)
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(surrogate(images), expected)
    leaf = images.clone().requires_grad_()
    torch.testing.assert_close(surrogate(leaf).detach(), expected, rtol=1e-5, atol=1e-6)
    assert layer.__dict__ == before
    assert all(not module._forward_hooks for module in model.modules())


def test_unrolling_undoes_detach() -> None:
    images = pictures()
    expected = gradient(defended(quantised=False), images)
    hidden = defended(quantised=False, mode="detach")
    torch.testing.assert_close(gradient(through(LayerView(), hidden, images), images), expected)
    torch.testing.assert_close(gradient(through(LookThroughCalls(), hidden, images), images), expected)
    with pytest.raises(NotApplicable, match="differentiated by 'unroll' already"):
        through(LayerView(), defended(), images)


def test_looking_through_calls_restores_a_cut_predictor() -> None:
    images = pictures()
    whole, cut = defended(quantised=False), defended(quantised=False, cut_predictor=True)
    expected = gradient(whole, images)
    assert not torch.allclose(gradient(cut, images), expected, rtol=0.1)
    torch.testing.assert_close(gradient(through(LookThroughCalls(), cut, images), images), expected)
    with pytest.raises(NotApplicable, match="cuts its gradient nowhere"):
        through(LookThroughCalls(), whole, images)


def test_the_identity_threshold_of_one_cycle_is_a_linear_step() -> None:
    images, layer = pictures(), ToyLayer()
    layer.requires_grad_(False)
    layer.iterations = 1
    cotangent = torch.randn(6, 8, 7, 9, generator=torch.Generator().manual_seed(5))
    surrogate = through(LayerView(threshold="identity"), nn.Sequential(layer), images)
    leaf = images.clone().requires_grad_()
    ours = torch.autograd.grad(surrogate(leaf), leaf, cotangent)[0]

    def linear(x: Tensor) -> Tensor:
        state = 3 * layer.predictor(x)
        residual = x - F.conv_transpose2d(state, layer.atoms, padding=1)
        return state + 0.05 * F.conv2d(residual, layer.atoms, padding=1)

    torch.testing.assert_close(ours, torch.autograd.grad(linear(leaf), leaf, cotangent)[0])


def test_predictor_only_differentiates_the_smoothed_prediction() -> None:
    images, model = pictures(), defended(quantised=False)
    layer, head = model[0], model[1]  # pyright: ignore[reportIndexIssue]

    def by_hand(x: Tensor) -> Tensor:
        state = 3 * layer.predictor(x)
        code = state.relu() * torch.sigmoid(4 * (state.abs() / LAM - 1))
        return head(layer(x).detach() + code - code.detach())

    ours = gradient(through(LayerView(threshold="smooth", cycles=0), model, images), images)
    torch.testing.assert_close(ours, gradient(by_hand, images))


def test_a_cold_start_goes_past_the_predictor_and_predictor_only_needs_it() -> None:
    images, model = pictures(), defended(quantised=False)
    cold = LayerView(threshold="smooth", start="cold", cycles=2)
    before = gradient(through(cold, model, images), images)
    with torch.no_grad():
        model[0].predictor.weight.mul_(0)  # pyright: ignore[reportIndexIssue]
    torch.testing.assert_close(gradient(through(cold, model, images), images), before)
    attack = ViewAttack(view=LayerView(threshold="smooth", cycles=0))
    with pytest.raises(NotApplicable, match="no gradient reaches the pixels"):
        attack(model, *labelled(model), ThreatModel("linf", 0.1))


def test_rounding_is_looked_through_exactly() -> None:
    images, model = pictures(), defended()
    expected = gradient(model[1:], Quantiser()(images))  # pyright: ignore[reportIndexIssue]
    for view in (ThroughModules(), LookThroughCalls()):
        torch.testing.assert_close(gradient(through(view, model, images), images), expected)


def test_suspects_are_the_innermost_blocking_and_the_home_made_modules() -> None:
    images = pictures()
    for cut in (False, True):
        quantiser = Quantiser(cut=cut)
        honest = nn.Conv2d(3, 3, 3, padding=1)
        model = nn.Sequential(
            nn.Sequential(honest, nn.ReLU(), quantiser), nn.Flatten(), nn.Linear(189, 4)
        ).eval()
        assert suspicious_modules(model, images[:1]) == [quantiser]
    assert suspicious_modules(nn.Sequential(honest, nn.ReLU()), images[:1]) == []
    assert suspicious_modules(lambda x: x, images[:1]) == []


class TripleSlope(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (3 * x).detach()


def test_coarse_slopes_are_exact_for_elementwise_linear_modules() -> None:
    images = pictures()
    model = nn.Sequential(TripleSlope(), nn.Flatten(), nn.Linear(189, 5)).eval()
    model.requires_grad_(False)
    straight = gradient(through(ThroughModules(), model, images), images)
    torch.manual_seed(0)
    coarse = gradient(through(ThroughModules(coarseness=0.5), model, images), images)
    torch.testing.assert_close(coarse, 3 * straight, rtol=1e-3, atol=1e-5)


def test_sampled_gradients_of_a_linear_model_are_its_own() -> None:
    images = pictures(2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(189, 5)).eval().requires_grad_(False)
    exact = gradient(model, images)
    torch.testing.assert_close(gradient(through(SmoothedView(), model, images), images), exact)
    torch.manual_seed(0)
    estimated = gradient(through(EstimatedView(samples=3000), model, images), images)
    assert (F.cosine_similarity(estimated.flatten(1), exact.flatten(1)) > 0.95).all()


def test_settings_of_layers_hold_for_the_block_only() -> None:
    model = defended()
    layer = find_iterative_layers(model)[0]
    with iterative_settings(model, gradient_mode="implicit", iterations=9) as layers:
        assert layers == [layer]
        assert (layer.gradient_mode, layer.iterations) == ("implicit", 9)
    assert (layer.gradient_mode, layer.iterations) == ("unroll", 3)
    with pytest.raises(InputError, match="unknown gradient mode 'unrol'.*did you mean 'unroll'"):
        iterative_settings(model, gradient_mode="unrol").__enter__()
    with pytest.raises(InputError, match="iterations is 0"):
        iterative_settings(model, iterations=0).__enter__()
    assert find_iterative_layers(lambda x: x) == []


def quick(name: str) -> Any:
    attack = as_attack(name)
    if isinstance(attack, ViewAttack):
        view = attack.view
        if isinstance(view, EstimatedView):
            view = EstimatedView(samples=3)
        if isinstance(view, SmoothedView):
            view = SmoothedView(samples=2)
        return ViewAttack(view=view, inner=dataclasses.replace(attack.inner, target_classes=1))
    return CodeAttack(steps=6, targets=1) if isinstance(attack, CodeAttack) else attack


def labelled(model: nn.Module, count: int = 6) -> tuple[Tensor, Tensor]:
    images = pictures(count)
    with torch.no_grad():
        logits = model(images)
    labels = logits.argmax(dim=1)
    labels[0] = logits[0].argmin()
    return images, labels


@pytest.mark.parametrize(
    ("name", "norm"),
    [(name, "linf") for name in sorted(ADAPTIVE)]
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

"""Views keep a model's values and give the gradients they promise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toy_defences import LAM, Quantiser, ToyLayer, defended, gradient, labelled, pictures, through

from warplca.attacks import (
    ThreatModel,
    find_iterative_layers,
    iterative_settings,
)
from warplca.attacks.adaptive.ensemble import ViewAttack
from warplca.attacks.adaptive.layers import LayerView
from warplca.attacks.adaptive.modules import ThroughModules, suspicious_modules
from warplca.attacks.adaptive.views import EstimatedView, LookThroughCalls, SmoothedView, View
from warplca.attacks.checks import NotApplicable
from warplca.configs.errors import InputError

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

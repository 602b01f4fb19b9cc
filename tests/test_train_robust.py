"""Adversarial weight perturbation and nuclear-norm training against the authors' procedures, written out."""

import copy

import pytest
import torch
import torch.nn.functional as F
from stripes import section
from test_train_losses import Linear, Shift, batch

from warplca.attacks import ThreatModel
from warplca.configs import InputError, TrainConfig, from_dict
from warplca.models import create_classifier
from warplca.train import AdversarialLoss, Batch, InnerAttack, MartLoss, TradesLoss, build_loss
from warplca.train.adversarial import NuclearLoss, nuclear_norm


def small(frontend="conv"):
    torch.manual_seed(0)
    options = {"channels": (8, 8, 16, 16)}
    return create_classifier("resnet10_slim", section(frontend), backbone_options=options).train()


def some(count=6):
    numbers = torch.Generator().manual_seed(1)
    return Batch(torch.rand(count, 3, 17, 13, generator=numbers), torch.arange(count))


@pytest.mark.parametrize("kind", [AdversarialLoss, TradesLoss, MartLoss])
def test_perturbed_weights_are_the_authors_and_are_put_back(kind):
    """Their code: move a copy's weights by gamma |w| g / |g|, take the gradient there, move them back."""
    model, data, gamma = small(), some(), 0.05
    twin = copy.deepcopy(model)
    before = {name: value.clone() for name, value in model.named_parameters()}
    result = kind(attack=Shift(0.02), weight_perturbation=gamma)(model, data)
    result.loss.backward()
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())

    plain = kind(attack=Shift(0.02))
    scratch = copy.deepcopy(twin)
    first = plain(scratch, data).loss
    first.backward()
    with torch.no_grad():
        for weight, other in zip(twin.backbone.parameters(), scratch.backbone.parameters(), strict=True):
            if weight.ndim > 1:
                weight.add_(gamma * weight.norm() * other.grad / (other.grad.norm() + 1e-20))
    expected = plain(twin, data)
    expected.loss.backward()
    assert result.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    assert result.loss > first  # worse weights
    for (name, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-5, msg=name)
    for (name, mine), theirs in zip(model.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, msg=name)  # running statistics saw one pass


@pytest.mark.parametrize("name", ["pgd", "fast", "n-fgsm", "trades", "mart", "nuat"])
def test_every_loss_on_attacked_images_takes_perturbed_weights(name):
    data = some()
    losses = {}
    for share in (0.0, 1e-6, 0.02):
        values = {"loss": {"name": name, "weight_perturbation": share}, "validation_images": 1}
        torch.manual_seed(5)
        losses[share] = build_loss(from_dict(TrainConfig, values, where="test"))(small("warp-lca"), data).loss
    assert losses[1e-6].item() == pytest.approx(losses[0.0].item(), rel=1e-3)
    assert losses[0.02] > losses[0.0]


def test_weights_that_learn_nothing_stay_where_they_are():
    model, data = small(), some()
    for parameter in model.backbone.parameters():
        parameter.requires_grad_(False)
    model.backbone.fc.weight.requires_grad_(True)
    loss = AdversarialLoss(attack=Shift(0.0), weight_perturbation=0.01)(model, data).loss
    loss.backward()
    assert model.backbone.fc.weight.grad.abs().sum() > 0
    assert model.backbone.conv1.weight.grad is None


def test_mistakes_about_perturbed_weights_are_explained():
    for share in (-0.1, 1.0):
        with pytest.raises(InputError, match=f"loss.weight_perturbation is {share}; give 0"):
            from_dict(TrainConfig, {"loss": {"name": "pgd", "weight_perturbation": share}}, where="test")
    with pytest.raises(InputError, match="weight_perturbation"):
        from_dict(TrainConfig, {"loss": {"name": "standard", "weight_perturbation": 0.1}}, where="test")
    values = {"loss": {"name": "nuat", "beta": -1}, "validation_images": 1}
    with pytest.raises(InputError, match=r"loss.beta is -1"):
        from_dict(TrainConfig, values, where="test")


@pytest.mark.parametrize("shape", [(64, 10), (7, 3), (4, 10), (1, 5)])
def test_the_nuclear_norm_is_that_of_the_singular_values(shape):
    numbers = torch.Generator().manual_seed(3)
    matrix = torch.randn(shape, generator=numbers, dtype=torch.float64)
    exact, own = matrix.clone().requires_grad_(), matrix.clone().requires_grad_()
    expected, found = torch.linalg.matrix_norm(exact, ord="nuc"), nuclear_norm(own)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    expected.backward()
    found.backward()
    torch.testing.assert_close(own.grad, exact.grad, atol=1e-5, rtol=1e-5)
    # One singular value is tiny, as of logits that hardly move.
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values[-1] = 1e-7
    degenerate = (left * values) @ right
    norm = degenerate.norm().item()
    assert nuclear_norm(degenerate).item() == pytest.approx(values.sum().item(), abs=1e-3 * norm)
    zero = torch.zeros(shape, requires_grad=True)
    nuclear_norm(zero).backward()
    assert torch.equal(zero.grad, torch.zeros(shape))


def test_nuclear_training_is_the_authors_formula():
    model, data, delta = Linear(), batch(), 0.05
    natural, adversarial = model(data.images).float(), model(data.images + delta).float()
    norm = torch.linalg.matrix_norm(natural - adversarial, ord="nuc") / len(natural)
    expected = F.cross_entropy(natural, data.labels) + 4.0 * norm
    assert NuclearLoss(attack=Shift(delta))(model, data).loss.item() == pytest.approx(
        expected.item(), rel=1e-4
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_attack_may_begin_at_a_corner_of_half_the_ball(norm):
    images = torch.full((5, 3, 9, 7), 0.5)
    attack = InnerAttack(threat=ThreatModel(norm, 0.1), steps=1, step_size=0.0, start="corner")
    offset = (attack(small(), images, lambda x: x.sum()) - images).flatten(1)
    length = offset.abs() if norm == "linf" else offset.norm(dim=1)
    assert torch.allclose(length, torch.full_like(length, 0.05), atol=1e-6)
    assert abs(float(offset.sign().mean())) < 0.1

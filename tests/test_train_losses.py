"""Losses against closed forms, brute force and the authors' own formulas."""

import math
from dataclasses import dataclass, fields

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from stripes import section
from torch import nn

from warplca.attacks import ThreatModel
from warplca.configs import InputError, TrainConfig, from_dict
from warplca.configs.extensions import LOSSES
from warplca.frontend import Encoding
from warplca.models import Inspection, create_classifier
from warplca.train import AdversarialLoss, Batch, InnerAttack, MartLoss, TradesLoss, build_loss
from warplca.train.adversarial import boosted_cross_entropy, kl_divergence
from warplca.train.losses import ConsistencyLoss, NoisyLoss, StandardLoss, jensen_shannon, register_loss
from warplca.train.perturb import cross_entropy_ascent, frozen_statistics

EPSILON = 0.1


class Linear(nn.Module):
    """A linear classifier with the interface of ours."""

    def __init__(self, classes=3, size=(2, 3, 5), seed=0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        pixels = math.prod(size)
        self.weight = nn.Parameter(torch.randn(classes, pixels, generator=generator, dtype=torch.float64))

    def forward(self, images):
        return images.flatten(1) @ self.weight.T

    def inspect(self, images):
        return Inspection(self(images), Encoding(images))


def batch(count=7, classes=3, size=(2, 3, 5), seed=1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 + 0.4 * torch.rand(count, *size, generator=generator, dtype=torch.float64)
    return Batch(images, torch.randint(classes, (count,), generator=generator))


class Shift:
    """Stands in for an attack: a known shift."""

    def __init__(self, delta) -> None:
        self.delta = delta

    def __call__(self, model, images, objective):
        return images + self.delta


logits_lists = st.lists(st.lists(st.floats(-8, 8), min_size=4, max_size=4), min_size=2, max_size=5)


@given(logits_lists)
@settings(max_examples=50, deadline=None)
def test_kl_divergence_is_its_sum_over_classes(rows):
    p = torch.tensor(rows, dtype=torch.float64)
    q = p.flip(0)
    brute = [
        sum(a * math.log(a / b) for a, b in zip(x.tolist(), y.tolist(), strict=True))
        for x, y in zip(p.softmax(1), q.softmax(1), strict=True)
    ]
    assert kl_divergence(p, q).tolist() == pytest.approx(brute, abs=1e-9)


@given(logits_lists)
@settings(max_examples=50, deadline=None)
def test_jensen_shannon_is_the_entropy_of_the_mean_less_the_mean_entropy(rows):
    views = tuple(torch.tensor([row], dtype=torch.float64) for row in rows)
    probabilities = torch.cat([view.softmax(1) for view in views])
    entropy = lambda p: -(p * p.log()).sum(-1)  # noqa: E731
    expected = entropy(probabilities.mean(0)) - entropy(probabilities).mean()
    assert jensen_shannon(views).item() == pytest.approx(expected.item(), abs=1e-9)


def test_jensen_shannon_of_certain_and_different_views_is_the_log_of_their_number():
    certain = tuple(torch.tensor([row]) for row in ([99.0, 0, 0], [0, 99.0, 0], [0, 0, 99.0]))
    assert jensen_shannon(certain).item() == pytest.approx(math.log(3), abs=1e-6)


@given(logits_lists)
@settings(max_examples=50, deadline=None)
def test_boosted_cross_entropy_by_brute_force(rows):
    logits = torch.tensor(rows, dtype=torch.float64)
    for label in range(4):
        labels = torch.full((len(rows),), label)
        brute = [
            -math.log(p[label]) - math.log(1 - max(v for k, v in enumerate(p) if k != label))
            for p in logits.softmax(1).tolist()
        ]
        assert boosted_cross_entropy(logits, labels).tolist() == pytest.approx(brute, abs=1e-6)


def test_boosted_cross_entropy_stays_finite_where_a_rival_is_certain():
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    loss = boosted_cross_entropy(logits, torch.tensor([1])).sum()
    loss.backward()
    assert loss.item() == pytest.approx(200.0 + 200.0 - math.log(2), rel=1e-5)
    assert torch.isfinite(logits.grad).all()


def test_trades_is_the_authors_formula():
    """Their code: cross entropy + beta / batch * KLDivLoss(sum)(log_softmax(adversarial), softmax(natural))."""
    model, data, delta = Linear(), batch(), 0.05
    natural, adversarial = model(data.images), model(data.images + delta)
    divergence = F.kl_div(
        adversarial.float().log_softmax(1), natural.float().softmax(1), reduction="sum"
    ) / len(natural)
    expected = F.cross_entropy(natural.float(), data.labels) + 6.0 * divergence
    result = TradesLoss(attack=Shift(delta), beta=6.0)(model, data)
    assert result.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_mart_is_the_authors_formula():
    model, data, delta = Linear(), batch(), 0.05
    natural, adversarial = (model(x).float().softmax(1) for x in (data.images, data.images + delta))
    top = adversarial.argsort(dim=1)
    rival = torch.where(top[:, -1] == data.labels, top[:, -2], top[:, -1])
    bce = F.cross_entropy(model(data.images + delta).float(), data.labels) + F.nll_loss(
        (1.0001 - adversarial + 1e-12).log(), rival
    )
    divergence = F.kl_div((adversarial + 1e-12).log(), natural, reduction="none").sum(1)
    true = natural.gather(1, data.labels[:, None])[:, 0]
    expected = bce + 5.0 * (divergence * (1.0000001 - true)).mean()
    result = MartLoss(attack=Shift(delta), beta=5.0)(model, data)
    assert result.loss.item() == pytest.approx(
        expected.item(), rel=2e-3
    )  # they add 1e-4 inside the logarithm


def test_without_perturbation_trades_is_the_standard_loss():
    model, data = Linear(), batch()
    plain = StandardLoss(label_smoothing=0.1)(model, data).loss
    assert torch.equal(TradesLoss(attack=Shift(0.0), beta=6.0, label_smoothing=0.1)(model, data).loss, plain)
    same_views = Batch(data.images, data.labels, (data.images, data.images))
    consistent = ConsistencyLoss(beta=12.0, label_smoothing=0.1)(model, same_views)
    assert consistent.loss.item() == pytest.approx(plain.item(), abs=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_attack_reaches_the_optimum_of_a_linear_model(norm):
    """For two classes the worst point of the ball is the centre plus epsilon along the dual direction."""
    model, data = Linear(classes=2), batch(classes=2)
    attack = InnerAttack(threat=ThreatModel(norm, EPSILON), steps=40, step_size=EPSILON / 4)
    attacked = attack(model, data.images, cross_entropy_ascent(model, data.labels))
    slope = model.weight[1 - data.labels] - model.weight[data.labels]
    away = slope.sign() if norm == "linf" else slope / slope.norm(dim=1, keepdim=True)
    optimum = data.images + EPSILON * away.view_as(data.images)
    assert torch.allclose(attacked, optimum, atol=1e-3)
    assert attack.threat.distance(attacked, data.images).max() <= EPSILON + 1e-6


def test_one_step_of_fast_training_is_clipped_to_the_ball():
    model, data = Linear(), batch()
    recipe = TrainConfig(validation_images=1, **sections({"name": "fast", "threat": "linf 0.1"}))
    loss = build_loss(recipe)
    assert isinstance(loss, AdversarialLoss)
    assert (loss.attack.steps, loss.attack.step_size) == (1, pytest.approx(0.125))
    attacked = loss.attack(model, data.images, cross_entropy_ascent(model, data.labels))
    assert attacked.sub(data.images).abs().max() <= 0.1 + 1e-9
    assert attacked.min() >= 0.0
    assert attacked.max() <= 1.0


def sections(loss):
    return {"loss": from_dict(TrainConfig, {"loss": loss, "validation_images": 1}, where="test").loss}


@pytest.mark.parametrize("name", sorted(LOSSES.items()))
@pytest.mark.parametrize("threat", ["linf 8/255", "l2 0.5"])
@pytest.mark.parametrize("frontend", ["conv", "warp-lca"])
def test_every_loss_reaches_every_parameter_through_the_front_end(name, threat, frontend):
    torch.manual_seed(0)
    model = create_classifier(
        "resnet10_slim", section(frontend), backbone_options={"channels": (8, 8, 16, 16)}
    )
    augment = {"policy": "augmix"} if name == "jsd" else {}
    known = {field.name for field in fields(LOSSES.get(name).Settings)}
    settings = {key: value for key, value in {"threat": threat, "steps": 2}.items() if key in known}
    values = {
        "loss": {"name": name, **settings},
        "augment": augment,
        "validation_images": 1,
    }
    images = torch.rand(4, 3, 17, 13)
    views = (images.flip(3), images.flip(2)) if name == "jsd" else ()
    before = {key: value.clone() for key, value in model.state_dict().items() if "running" in key}
    teacher = create_classifier("resnet10_slim").eval().requires_grad_(False)
    loss = build_loss(from_dict(TrainConfig, values, where="test"), teacher=teacher)
    result = loss(model.train(), Batch(images, torch.arange(4), views))
    result.loss.backward()
    assert torch.isfinite(result.loss)
    assert result.logits.shape == (4, 10)
    missing = [
        key for key, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()
    ]
    assert missing == []
    assert any(not torch.equal(model.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize("loss", [TradesLoss, MartLoss])
def test_losses_with_attacks_move_running_statistics_by_their_own_passes_alone(loss):
    model = create_classifier("resnet10_slim", {"name": "conv", "features": 8}).train()
    attack = InnerAttack(threat=ThreatModel("linf", 0.1), steps=3, step_size=0.05)
    loss(attack=attack)(model, Batch(torch.rand(4, 3, 16, 16), torch.arange(4)))
    assert int(model.backbone.bn1.num_batches_tracked) == 2  # the image and its attacked version


def test_the_divergence_of_trades_is_climbed_on_the_function_it_starts_from():
    model = create_classifier(
        "resnet10_slim", {"name": "conv", "features": 8}, backbone_options={"drop_rate": 0.5}
    ).train()
    images = torch.rand(4, 3, 16, 16)
    attack = InnerAttack(threat=ThreatModel("linf", 0.1), steps=1, step_size=0.05)
    ascent = TradesLoss(attack=attack).ascent(model, Batch(images, torch.arange(4)))
    with frozen_statistics(model):
        torch.testing.assert_close(ascent(images), torch.zeros(()), atol=1e-5, rtol=0)


def test_n_fgsm_steps_by_epsilon_from_noise_of_twice_the_radius_and_is_not_projected():
    """x + eta + epsilon sign(gradient at x + eta), eta uniform in 2 epsilon (de Jorge et al. 2022, algorithm 1)."""
    model, given_batch = Linear(), batch()
    loss = build_loss(TrainConfig(**sections({"name": "n-fgsm", "threat": "linf 0.05"}), validation_images=1))
    torch.manual_seed(3)
    noise = 0.1 * (2 * torch.rand_like(given_batch.images) - 1)
    start = (given_batch.images + noise).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy_ascent(model, given_batch.labels)(start), start)
    expected = (start.detach() + 0.05 * gradient.sign()).clamp(0, 1)
    torch.manual_seed(3)
    attacked = loss.attack(model, given_batch.images, cross_entropy_ascent(model, given_batch.labels))
    torch.testing.assert_close(attacked, expected)
    assert 0.05 < float((attacked - given_batch.images).abs().max()) <= 0.15 + 1e-6


def test_a_loss_of_ones_own_is_one_class():
    @dataclass(frozen=True)
    class MarginSettings:
        margin: float = 2.0

    @register_loss("test-margin")
    @dataclass(frozen=True, kw_only=True)
    class MarginLoss(StandardLoss):
        Settings = MarginSettings
        smooths_labels = False
        margin: float

        def __call__(self, model, batch):
            logits, figures = self.classify(model, batch.images)
            return self.result(F.multi_margin_loss(logits, batch.labels, margin=self.margin), logits, figures)

    try:
        recipe = from_dict(TrainConfig, {"loss": {"name": "test-margin", "margin": 3}}, where="test")
        model = create_classifier("resnet10_slim", {"name": "conv", "features": 8})
        result = build_loss(recipe)(model, Batch(torch.rand(2, 3, 16, 16), torch.tensor([1, 2])))
        assert recipe.label_smoothing == 0.0
        assert float(result.loss) > 0.0
        with pytest.raises(InputError, match="label_smoothing is 0.1, and the loss 'test-margin' has none"):
            from_dict(TrainConfig, {"loss": "test-margin", "label_smoothing": 0.1}, where="test")
        with pytest.raises(InputError, match=r"loss\.margins"):
            from_dict(TrainConfig, {"loss": {"name": "test-margin", "margins": 3}}, where="test")
    finally:
        LOSSES._classes.pop("test-margin")


def test_wrong_threats_are_explained():
    with pytest.raises(
        InputError, match="train.loss.threat is 'l1 12'; adversarial training here takes linf or l2"
    ):
        build_loss(TrainConfig(**sections({"name": "pgd", "threat": "l1 12"})))
    with pytest.raises(InputError, match="threat model 'linf' cannot be read"):
        build_loss(TrainConfig(**sections({"name": "pgd", "threat": "linf"})))


def test_noisy_copies_leave_the_pixel_range_and_their_loss_is_the_papers():
    """Cohen et al. 2019; Jeong and Shin 2020: cross entropy + beta E[KL(m || p)] + H(m) / 2."""
    model, given_batch, copies, sigma = Linear(), batch(), 2, 0.5
    torch.manual_seed(5)
    noisy = given_batch.images.repeat(copies, 1, 1, 1)
    noisy = noisy + sigma * torch.randn_like(noisy)
    assert noisy.min() < 0.0
    assert noisy.max() > 1.0
    logits = model(noisy)
    entropy = F.cross_entropy(logits.float(), given_batch.labels.repeat(copies))
    torch.manual_seed(5)
    plain = NoisyLoss(sigma=sigma, copies=copies)(model, given_batch)
    assert float(plain.loss) == pytest.approx(float(entropy), rel=1e-6)
    p = torch.stack([part.softmax(1) for part in logits.chunk(copies)])
    mean = p.mean(0)
    terms = [F.kl_div(part.log(), mean, reduction="batchmean") for part in p]
    expected = entropy + 7.0 * sum(terms) / copies - 0.5 * (mean * mean.log()).sum(1).mean()
    torch.manual_seed(5)
    held = NoisyLoss(sigma=sigma, copies=copies, beta=7.0)(model, given_batch)
    assert float(held.loss) == pytest.approx(float(expected), rel=1e-5)
    (gradient,) = torch.autograd.grad(held.loss, [model.weight])
    assert gradient.isfinite().all()


def test_certain_predictions_cost_no_divergence_and_no_nan():
    model = Linear()
    model.weight.data *= 1e4
    result = NoisyLoss(sigma=1e-6, copies=2, beta=10.0)(model, batch())
    assert result.loss.isfinite()
    assert float(result.figures["divergence"]) == pytest.approx(0.0, abs=1e-4)


def test_losses_for_smoothing_refuse_what_they_do_not_use():
    for values, message in (
        (
            {"name": "gaussian", "beta": 3.0},
            r"unknown key 'loss.beta' in test \(loss gaussian\).*Known: loss.sigma",
        ),
        ({"name": "pgd", "sigma": 0.25}, r"unknown key 'loss.sigma' in test \(loss pgd\)"),
        ({"name": "consistency", "sigma": 0.0}, "loss.sigma is 0.0; give a number above 0"),
    ):
        with pytest.raises(InputError, match=message):
            from_dict(TrainConfig, {"loss": values}, where="test")
    loss = build_loss(from_dict(TrainConfig, {"loss": {"name": "consistency"}}, where="test"))
    assert (loss.sigma, loss.beta, loss.copies) == (0.25, 10.0, 2)

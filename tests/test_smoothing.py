"""Smoothed classifiers: exact on a linear one, the same in any order, and refused where the theorem does not hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from frontends import SECTIONS
from scipy import stats
from torch import Tensor, nn

from warplca.configs import InputError
from warplca.models import create_classifier, smooth
from warplca.models.smoothing.statistics import SamplingPlan, lower_bounds, majority, radius_of
from warplca.models.smoothing.votes import Votes

SHAPE = (3, 5, 7)


class Linear(nn.Module):
    """Two classes on either side of a plane: closed form for every share and radius."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        weight = torch.randn(math.prod(SHAPE), generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(-0.5 * weight.sum().detach())
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        score = images.flatten(1) @ self.weight + self.bias
        return torch.stack([-score, score], dim=1)

    def margin(self, images: Tensor) -> Tensor:
        """Distance to the plane, signed."""
        return ((images.flatten(1) @ self.weight + self.bias) / self.weight.norm()).detach()


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def test_radii_are_exact_on_a_linear_classifier() -> None:
    model, images = Linear(), pictures(12)
    exact = model.margin(images)
    proven = smooth(model, 0.25).certify(images, samples=20_000, seed=3)
    sure = proven.label >= 0
    assert sure.sum() >= 8
    assert torch.equal(proven.label[sure], (exact > 0).long()[sure])
    assert (proven.radius[sure] <= exact.abs()[sure] + 1e-6).all()
    shares = stats.norm.cdf(exact.abs().numpy() / 0.25)
    near = sure.numpy() & (shares < 0.97)  # far from where all samples hit
    assert near.sum() >= 3
    assert np.allclose(proven.radius.numpy()[near], exact.abs().numpy()[near], rtol=0.15, atol=0.01)
    assert (proven.radius[~sure] == 0).all()
    assert not proven.radius.isnan().any()
    assert smooth(model, 0.25).predict(images, samples=2000, seed=3)[sure].equal(proven.label[sure])


def test_bounds_and_radii_are_clopper_and_pearsons() -> None:
    for hits, samples in ((0, 10), (10, 10), (9_900, 10_000), (6, 11)):
        expected = stats.binomtest(hits, samples, alternative="greater").proportion_ci(0.999, "exact").low
        assert lower_bounds([hits], [samples], 0.001)[0] == pytest.approx(expected, abs=1e-12)
    assert radius_of(0.5, 0.25) == radius_of(0.1, 0.25) == 0.0
    assert radius_of(stats.norm.cdf(2.0), 0.25) == pytest.approx(0.5)
    assert SamplingPlan.of(100).largest_bound == pytest.approx(0.001 ** (1 / 100))


@pytest.mark.parametrize("looks", [(500,), pytest.param((100, 500, 2000), marks=pytest.mark.slow)])
def test_bounds_cover_the_true_shares_as_often_as_promised(looks: tuple[int, ...]) -> None:
    """1,000 simulated images at a failure probability of 0.02, with every planned look and every early stop."""
    rng = np.random.default_rng(5)
    plan = SamplingPlan.of(looks, failure=0.02)
    wrong = 0
    for share in rng.uniform(0.5, 1.0, 1000):
        votes = Votes(0, (0, 0))
        while not votes.finished(plan):
            size = min(100, plan.looks[len(votes.hits)] - votes.samples)
            hits = rng.binomial(size, share)
            votes = votes.with_block(np.array([hits, size - hits]), plan)
        wrong += plan.bound(votes.hits) > share
    assert wrong <= stats.binom.ppf(0.999, 1000, 0.02)
    assert wrong >= 1 or len(looks) > 1  # the bound is not idle


def test_a_class_without_a_share_above_one_half_is_proven_in_no_more_images_than_promised() -> None:
    rng = np.random.default_rng(6)
    plan = SamplingPlan.of(500, failure=0.02)
    proven = 0
    for _ in range(1000):
        votes = Votes(0, (0, 0))
        while not votes.finished(plan):
            hits = rng.binomial(100, 0.5)
            votes = votes.with_block(np.array([hits, 100 - hits]), plan)
        proven += votes.certificate(plan, 1.0)[0] == 0
    assert 0 < proven <= stats.binom.ppf(0.999, 1000, 0.02)


def test_looks_share_the_failure_probability() -> None:
    once, twice = SamplingPlan.of(1000), SamplingPlan.of([100, 1000])
    assert twice.bound([90, 990]) < once.bound([990])
    assert twice.bound([90, 990]) == pytest.approx(float(lower_bounds([990], [1000], 0.0005)[0]))
    assert twice.bound([100, 600]) == pytest.approx(float(lower_bounds([100], [100], 0.0005)[0]))
    assert twice.bound([]) == 0.0


def test_an_image_is_given_up_only_where_nothing_can_be_proven_or_no_majority_is_plausible() -> None:
    plan = SamplingPlan.of(1000)
    assert not plan.hopeless(50, 100)
    assert plan.hopeless(25, 100)
    assert plan.hopeless(449, 900)
    full = Votes(0, (449 + 100, 451), (549,))  # even if every sample had hit
    assert full.certificate(plan, 1.0) == (0, 0.0) or full.certificate(plan, 1.0)[0] == -1


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((60, 40, 0), -1), ((80, 20, 0), 0), ((0, 0, 0), -1), ((1, 3, 96), 2), ((50, 50), -1)],
)
def test_a_class_is_predicted_only_where_the_votes_decide(counts: tuple[int, ...], expected: int) -> None:
    assert majority(counts, 0.001) == expected


def test_counts_do_not_depend_on_order_batches_or_interruptions() -> None:
    model, images = Linear().double(), pictures(6).double()
    plan = SamplingPlan.of([150, 770])
    whole = smooth(model, 0.3, batch_size=100).certify(images, samples=plan.looks, seed=4)
    for batch_size, order in ((7, torch.arange(6)), (400, torch.arange(5, -1, -1))):
        other = smooth(model, 0.3, batch_size=batch_size).certify(images[order], samples=plan.looks, seed=4)
        assert torch.equal(other.counts, whole.counts[order])
        assert torch.equal(other.radius, whole.radius[order])
    smoothed = smooth(model, 0.3)
    smoothed.check(images)
    for number, image in enumerate(images):
        votes = smoothed.select(image, plan, 4)
        while not votes.finished(plan):  # stopped after every block, kept as text
            votes = Votes.from_text(next(smoothed.extend(image, votes, plan, 4)).to_text())
        assert votes.counts == tuple(whole.counts[number].tolist())
    assert not torch.equal(
        smooth(model, 0.3).certify(images, samples=plan.looks, seed=5).counts, whole.counts
    )


def test_labels_save_samples_and_give_up_only_the_wrongly_classified() -> None:
    model, images = Linear(), pictures(8)
    smoothed = smooth(model, 0.1)
    plain = smoothed.certify(images, samples=300)
    labels = (model.margin(images) > 0).long()
    labels[0] = 1 - labels[0]
    labelled = smoothed.certify(images, samples=300, labels=labels)
    right = plain.label == labels
    assert (labelled.label[0], labelled.radius[0], labelled.counts[0].sum()) == (-1, 0, 0)
    assert torch.equal(labelled.radius[right], plain.radius[right])


class _Drop(Linear):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(nn.functional.dropout(images, 0.5))


class _Company(Linear):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images - images.mean(dim=0))


class _Order(Linear):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * torch.arange(1, len(images) + 1)[:, None]


class _Counter(Linear):
    calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(images) + self.calls


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        (_Drop, "on a second call"),
        (_Company, "in smaller batches"),
        (_Order, "in another order"),
        (_Counter, "call"),
    ],
)
def test_what_is_no_fixed_function_of_one_image_is_refused(kind: type[Linear], where: str) -> None:
    with pytest.raises(InputError, match=f"no fixed function of one image: .*{where}"):
        smooth(kind().eval(), 0.25).certify(pictures(3), samples=10)


def test_mistakes_are_sentences() -> None:
    model, images = Linear().eval(), pictures(3)
    for call, message in (
        (lambda: smooth(model, 0.0), "sigma is 0.0; give a number above 0"),
        (lambda: smooth(model, math.nan), "sigma is nan"),
        (lambda: smooth(smooth(model, 1.0), 1.0), "got SmoothedClassifier; expected a callable"),
        (lambda: smooth(model, 0.25, tell=True), "no front-end of the model takes the noise's strength"),
        (lambda: smooth(model, 0.25)(images), "has no logits; call .predict or .certify"),
        (lambda: smooth(model, 0.25).certify(images * 255, samples=10), "pixels range from"),
        (lambda: smooth(model, 0.25).certify(images, samples=[100, 100]), "samples are .100, 100.; expected one"),
        (lambda: smooth(model, 0.25).certify(images, samples=0), "samples is 0; give at least 1"),
        (lambda: smooth(model, 0.25).certify(images, samples=9, failure=0.5), "failure is 0.5"),
        (lambda: smooth(model, 0.25).certify(images, samples=9, labels=torch.zeros(2)), r"labels have shape \(2,\)"),
        (lambda: smooth(model.train(), 0.25).predict(images, samples=9), "training mode; call model.eval"),
        (lambda: smooth(lambda x: x, 0.25).predict(images, samples=9), "expected logits of shape"),
        (lambda: smooth(lambda x: x.flatten(1) / 0, 0.25).predict(images, samples=9), "NaN or infinite logits"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            call()
        model.eval()
    assert smooth(model.eval(), 0.25).certify(images[:0], samples=9).radius.shape == (0,)


@pytest.mark.parametrize("name", ["none", "conv", "lca", "warp-lca", "reconstruction", "chain"])
def test_our_classifiers_take_noisy_pixels_from_smooth_and_from_nobody_else(name: str) -> None:
    model = create_classifier("resnet10_slim", SECTIONS[name]).eval()
    images = torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    proven = smooth(model, 0.5).certify(images, samples=120)
    assert proven.counts.shape == (2, 10)
    with pytest.raises(InputError, match="pixels range from"):
        model(images + 0.5 * torch.randn_like(images))


def test_nothing_is_clipped_unless_asked_for() -> None:
    seen: list[Tensor] = []

    def model(images: Tensor) -> Tensor:
        seen.append(images)
        return images.flatten(1)[:, :2]

    for clip in (False, True):
        seen.clear()
        smooth(model, 0.5, clip=clip).predict(pictures(2), samples=50)
        pixels = torch.cat([images.flatten() for images in seen])
        assert (pixels.min() < -0.5) != clip
        assert (pixels.max() > 1.5) != clip


def test_a_front_end_may_be_given_the_strength_of_the_noise() -> None:
    section = {**SECTIONS["lca"], "adaptive_lam": 1.5}
    model = create_classifier("resnet10_slim", section).eval()
    image = torch.full((1, 3, 32, 32), 0.5)
    noisy = (image + 0.2 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    layer = model.frontend
    lams = []
    layer.register_forward_hook(lambda *_: lams.append(layer.image_lam(layer.standardise(noisy)).item()))
    informed = smooth(model, 0.2, tell=True)
    informed.logits(noisy)
    std = float(noisy.std(correction=0))
    assert lams[-1] == pytest.approx(math.hypot(layer.lam, 1.5 * 0.2 / std), rel=1e-5)
    assert layer.known_noise is None
    model(noisy)
    assert lams[-1] == pytest.approx(math.hypot(layer.lam, 1.5 * 0.2 / std), rel=0.2)  # an estimate
    assert lams[-1] != lams[-2]

"""The equaliser: its transform, its bands, its gains by hand, what it learns and when, and that it travels."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dctn
from stripes import section

from warplca.configs import ComparisonConfig, InputError, from_dict
from warplca.configs.recipe import AverageConfig
from warplca.frontend import standardise
from warplca.frontend.equaliser import CENTRES, Equaliser, band_weights, cosines, transformed
from warplca.models import create_classifier, load_checkpoint, save_checkpoint
from warplca.train.optim import WeightAverage
from warplca.train.perturb import frozen_statistics

SIZES = [(32, 32), (13, 22), (7, 5), (3, 1)]


def photographs(count: int, height: int = 32, width: int = 32, seed: int = 0) -> torch.Tensor:
    """Random images whose amplitudes fall with frequency."""
    noise = torch.randn(count, 3, height, width, generator=torch.manual_seed(seed))
    smooth = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    return (0.5 + 0.3 * smooth + 0.05 * noise).clamp(0, 1)


def learned(strength: float, images: torch.Tensor) -> Equaliser:
    """An equaliser that has seen these images."""
    equaliser = Equaliser(strength=strength)
    equaliser(images)
    return equaliser.eval()


@pytest.mark.parametrize("size", SIZES)
def test_the_transform_is_scipys_and_its_transpose_its_inverse(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.manual_seed(0))
    rows, columns = cosines(size[0], x), cosines(size[1], x)
    spectrum = transformed(x, rows, columns)
    np.testing.assert_allclose(spectrum, dctn(x.numpy(), axes=(2, 3), norm="ortho"), atol=1e-12)
    torch.testing.assert_close(transformed(spectrum, rows.T, columns.T), x)


def band_shares(height: int, width: int) -> np.ndarray:
    """Each frequency's shares in the bands, (height width, bands), one number after the other."""
    shares = np.zeros((height * width, len(CENTRES)))
    for row, column in itertools.product(range(height), range(width)):
        frequency = max(math.hypot(row / (2 * height), column / (2 * width)), CENTRES[0])
        above = next((i for i, centre in enumerate(CENTRES) if frequency < centre), len(CENTRES))
        place = row * width + column
        if above == len(CENTRES):
            shares[place, -1] = 1.0
        else:
            part = math.log(frequency / CENTRES[above - 1]) / math.log(CENTRES[above] / CENTRES[above - 1])
            shares[place, above - 1 : above + 1] = 1.0 - part, part
    return shares


@pytest.mark.parametrize("size", SIZES)
def test_bands_are_triangles_over_the_logarithm_of_the_frequency(size):
    weights = band_weights(*size, torch.zeros(1, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(weights, band_shares(*size), atol=1e-12)
    np.testing.assert_allclose(weights.sum(1), 1.0)


@pytest.mark.parametrize("size", [(32, 32), (13, 22)])
def test_gains_are_those_of_the_formula(size):
    images = photographs(6, *size)
    equaliser = learned(0.8, images)
    spectra = dctn(standardise(images).images.double().numpy(), axes=(2, 3), norm="ortho")
    shares = band_shares(*size)
    amplitudes = np.zeros((6, len(CENTRES)))
    for image, band in itertools.product(range(6), range(len(CENTRES))):
        magnitude = np.abs(spectra[image]).mean(0).ravel()[1:]
        amplitudes[image, band] = (magnitude * shares[1:, band]).sum() / shares[1:, band].sum()
    usual = amplitudes.mean(0)
    np.testing.assert_allclose(equaliser.usual, usual, rtol=1e-4)
    gain = (1.3 * usual / (amplitudes + 0.3 * usual)) ** 0.8
    wanted = spectra * (gain @ shares.T).reshape(6, 1, *size)
    seen = dctn(standardised_as(equaliser(images), images), axes=(2, 3), norm="ortho")
    np.testing.assert_allclose(seen, wanted, atol=2e-4)


def standardised_as(outputs: torch.Tensor, inputs: torch.Tensor) -> np.ndarray:
    """Outputs in the units of their standardised inputs."""
    units = standardise(inputs)
    return ((outputs - units.mean) / units.std).double().numpy()


@given(fade=st.floats(0.1, 0.9))
def test_what_blur_takes_from_a_band_is_given_back_in_part(fade):
    images = photographs(4)
    equaliser = learned(1.0, images)
    rows = cosines(32, images)
    bands = band_weights(32, 32, images)

    def detail(x):
        return (
            transformed(standardise(x).images, rows, rows).abs().flatten(2)[:, :, bands[:, -1] > 0.9].mean()
        )

    kept = (1.0 - (1.0 - fade) * bands[:, -1]).reshape(32, 32)
    blurred = 0.5 + transformed(transformed(images - 0.5, rows, rows) * kept, rows.T, rows.T)
    assert detail(blurred) < detail(equaliser(blurred)) < detail(images)


def test_untrained_it_changes_nothing_and_it_learns_in_training_mode_alone():
    images = photographs(5, 13, 22)
    equaliser = Equaliser(strength=1.0)
    torch.testing.assert_close(equaliser.eval()(images), images)
    equaliser.train()
    with frozen_statistics(equaliser):
        equaliser(images)
    assert equaliser.usual.sum() == 0.0
    equaliser(images)
    first = equaliser.usual.clone()
    equaliser.eval()(photographs(5, 13, 22, seed=1))
    assert torch.equal(equaliser.usual, first)


def test_a_batch_moves_what_it_learned_by_a_hundredth():
    first, second = photographs(5), photographs(3, seed=1) ** 2
    equaliser = learned(1.0, first)
    before, other = equaliser.usual.clone(), learned(1.0, second).usual
    equaliser.train()(second)
    torch.testing.assert_close(equaliser.usual, before + 0.01 * (other - before))


def test_a_batch_that_is_not_finite_shows():
    equaliser = learned(1.0, photographs(4))
    equaliser.train()(torch.full((1, 3, 32, 32), float("nan")))
    assert torch.isnan(equaliser.eval()(photographs(1))).all()


def test_batch_norm_is_measured_behind_what_was_learned():
    torch.manual_seed(0)
    model = create_classifier("resnet10_slim", "equaliser")
    average = WeightAverage(model, AverageConfig(kind="swa", start=0.0), total_steps=2)
    model(photographs(8))
    average.update(model, 1)
    batches = [photographs(8, seed=seed) for seed in (1, 2)]
    once = {name: value.clone() for name, value in average.model(batches).state_dict().items()}
    assert torch.equal(once["frontend.usual"], model.state_dict()["frontend.usual"])
    again = average.model(batches).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in once.items())


@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_precision_costs_no_more_than_its_rounding(dtype, error):
    images = photographs(4)
    equaliser = learned(1.0, images)
    exact = equaliser(images)
    rounded = equaliser.to(dtype)(images.to(dtype))
    assert rounded.dtype == dtype
    torch.testing.assert_close(rounded.float(), exact, atol=error, rtol=0)


def test_constant_and_tiny_images_stay_finite_with_their_gradients():
    equaliser = learned(1.0, photographs(4))
    for shape in [(1, 3, 32, 32), (2, 3, 2, 2), (1, 3, 1, 1)]:
        images = torch.full(shape, 0.25, requires_grad=True)
        seen = equaliser(images)
        torch.testing.assert_close(seen, images)
        (seen * torch.rand(shape)).sum().backward()
        assert images.grad is not None
        assert torch.isfinite(images.grad).all()


def test_gradients_are_those_of_finite_differences():
    equaliser = learned(1.0, photographs(4)).double()
    assert torch.autograd.gradcheck(equaliser, photographs(1, 6, 5).double().requires_grad_())


@pytest.mark.parametrize("arm", [None, "conv", "lca"])
def test_every_arm_sees_equalised_images_and_its_checkpoint_answers_alike(arm, tmp_path):
    torch.manual_seed(0)
    equaliser = Equaliser(strength=1.0)
    before = [section("lca", output="reconstruction")] if arm == "lca" else []
    behind = [section("conv")] if arm == "conv" else []
    model = create_classifier("resnet10_slim", [*before, equaliser, *behind])
    model(photographs(8, seed=1))
    images = photographs(3)
    assert (equaliser.eval()(images) - images).abs().max() > 0.01
    model.eval()
    seen = images
    for part in model.frontend if before or behind else [equaliser]:
        seen = part(seen)
    seen = seen if behind else standardise(seen).images
    torch.testing.assert_close(model(images), model.backbone(seen))
    save_checkpoint(model, tmp_path / "c")
    assert torch.equal(load_checkpoint(tmp_path / "c")(images), model(images))


@pytest.mark.parametrize("strength", [-0.5, 1.5, float("nan")])
def test_mistakes_are_explained_before_anything_is_built(strength):
    values = {
        "arms": {"a": {}, "b": {"model": {"frontend": {"name": "equaliser", "strength": strength}}}},
        "baseline": "a",
    }
    with pytest.raises(
        InputError, match=r"arm 'b'.*strength is .*; give (a number above 0, at most 1|one)\."
    ):
        from_dict(ComparisonConfig, values, where="study.yaml")
    with pytest.raises(InputError, match=r"strength is .*; give (a number above 0, at most 1|one)\."):
        Equaliser(strength=strength)
    with pytest.raises(InputError, match="front-end 1 of 2 outputs features, which the next cannot take"):
        create_classifier("resnet10_slim", ["lca", "equaliser"])

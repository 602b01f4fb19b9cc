"""The equaliser: its transform, its bands, its gains by hand, what it learns and when, and that it travels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dctn

from warplca.configs import InputError
from warplca.frontend import standardise
from warplca.frontend.equaliser import CENTRES, Equaliser, band_weights, cosines, transformed
from warplca.models import create_classifier, load_checkpoint, save_checkpoint
from warplca.train.perturb import still

SIZES = [(32, 32), (13, 22), (7, 5), (3, 1)]


def photographs(count: int, height: int = 32, width: int = 32, seed: int = 0) -> torch.Tensor:
    """Random images whose amplitudes fall with frequency."""
    noise = torch.randn(count, 3, height, width, generator=torch.manual_seed(seed))
    smooth = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    return (0.5 + 0.3 * smooth + 0.05 * noise).clamp(0, 1)


def learned(strength: float, images: torch.Tensor) -> Equaliser:
    """An equaliser that has seen these images."""
    equaliser = Equaliser(strength)
    equaliser(images)
    return equaliser.eval()


@pytest.mark.parametrize("size", SIZES)
def test_the_transform_is_scipys_and_its_transpose_its_inverse(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.manual_seed(0))
    rows, columns = cosines(size[0], x), cosines(size[1], x)
    spectrum = transformed(x, rows, columns)
    np.testing.assert_allclose(spectrum, dctn(x.numpy(), axes=(2, 3), norm="ortho"), atol=1e-12)
    torch.testing.assert_close(transformed(spectrum, rows.T, columns.T), x)


@pytest.mark.parametrize("size", SIZES)
def test_bands_share_out_every_frequency_and_peak_at_their_centres(size):
    weights = band_weights(*size, torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(weights.sum(1), torch.ones(size[0] * size[1], dtype=torch.float64))
    assert weights.min() >= 0.0
    if size == (32, 32):
        for band, centre in enumerate(CENTRES[1:], 1):
            place = round(64 * centre)
            if math.isclose(place, 64 * centre) and place < 32:
                assert weights[place, band] == pytest.approx(1.0)  # the horizontal wave of that frequency


def test_gains_are_those_of_the_formula():
    images = photographs(6)
    equaliser = learned(0.8, images)
    x = standardise(images).images.double().numpy()
    spectra = dctn(x, axes=(2, 3), norm="ortho")
    weights = band_weights(32, 32, torch.zeros(1, dtype=torch.float64)).numpy()
    amplitudes = np.zeros((6, len(CENTRES)))
    for image in range(6):
        for band in range(len(CENTRES)):
            shares = weights[1:, band]
            magnitude = np.abs(spectra[image]).mean(0).ravel()[1:]
            amplitudes[image, band] = (magnitude * shares).sum() / shares.sum()
    usual = amplitudes.mean(0)
    np.testing.assert_allclose(equaliser.usual, usual, rtol=1e-4)
    gain = (1.3 * usual / (amplitudes + 0.3 * usual)) ** 0.8
    wanted = spectra * (gain @ weights.T).reshape(6, 1, 32, 32)
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
    spectrum = transformed(images - 0.5, rows, rows)
    bands = band_weights(32, 32, images)
    lost = (1.0 - (1.0 - fade) * bands[:, -1]).reshape(32, 32)
    blurred = 0.5 + transformed(spectrum * lost, rows.T, rows.T)

    def detail(x):
        return (
            transformed(standardise(x).images, rows, rows).abs().flatten(2)[:, :, bands[:, -1] > 0.9].mean()
        )

    assert detail(blurred) < detail(equaliser(blurred)) < 1.3 / 0.3 * detail(blurred)


def test_untrained_it_changes_nothing_and_it_learns_in_training_mode_alone():
    images = photographs(5, 13, 22)
    equaliser = Equaliser(1.0)
    torch.testing.assert_close(equaliser.eval()(images), images)
    equaliser.train()
    with still(equaliser):
        equaliser(images)
    assert equaliser.usual.sum() == 0.0
    for image in images:
        equaliser(image[None])
    by_one = equaliser.usual.clone()
    torch.testing.assert_close(learned(1.0, images).usual, by_one)
    equaliser.eval()(photographs(5, 13, 22, seed=1))
    assert torch.equal(equaliser.usual, by_one)


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
    options = {"features": 8, "kernel_size": 5, "iterations": 2, "lam": 0.1}
    output = "reconstruction" if arm == "lca" else "code"
    model = create_classifier("resnet10_slim", arm, output=output, equalise=1.0, **options)
    model(photographs(8, seed=1))
    images = photographs(3)
    assert model.eval().equaliser is not None
    if arm == "lca":
        seen = standardise(model.equaliser(model.frontend(images))).images
    else:
        seen = model.frontend(model.equaliser(images)) if arm else standardise(model.equaliser(images)).images
    torch.testing.assert_close(model(images), model.backbone(seen))
    save_checkpoint(model, tmp_path / "c")
    assert torch.equal(load_checkpoint(tmp_path / "c")(images), model(images))


def test_mistakes_are_explained():
    with pytest.raises(InputError, match=r"equalise is 1.5; give 0 \(off\) to 1."):
        create_classifier("resnet10_slim", equalise=1.5)
    with pytest.raises(InputError, match="the backbone sees a code; set output: reconstruction"):
        create_classifier("resnet10_slim", "lca", equalise=1.0)

"""Each corruption against a slow, literal version of its definition or a closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from warplca.data import corrupt
from warplca.data.corruptions import blur, pixelwise
from warplca.data.corruptions.generate import random_stream

GENERATOR = np.random.default_rng(3)
IMAGES = GENERATOR.integers(0, 256, (3, 13, 18, 3), dtype=np.uint8)


def streams(count: int = 3) -> list[np.random.RandomState]:
    return [random_stream(0, "test", 1, index) for index in range(count)]


def grey(level: int, count: int = 40) -> np.ndarray:
    return np.full((count, 32, 32, 3), level, dtype=np.uint8)


# Noise: mean and spread on constant images; truncation to bytes takes half a level off the mean.


@pytest.mark.parametrize(
    ("name", "severity", "spread"),
    [
        ("gaussian_noise", 2, 0.06),
        ("speckle_noise", 3, 0.12 * 120 / 255),
        ("shot_noise", 4, math.sqrt(120 / 255 / 75)),
    ],
)
def test_noise_has_the_published_spread(name: str, severity: int, spread: float):
    values = corrupt(grey(120), name, severity=severity).astype(float) / 255
    assert values.mean() == pytest.approx((120 - 0.5) / 255, abs=4 * spread / math.sqrt(values.size))
    assert values.std() == pytest.approx(spread, rel=0.02)
    channels = values.reshape(-1, 3)
    assert np.abs(np.corrcoef(channels.T) - np.eye(3)).max() < 0.03


def test_noise_follows_the_pixel_as_its_kind_demands():
    ratio = {
        name: corrupt(grey(160), name, severity=1).std() / corrupt(grey(40), name, severity=1).std()
        for name in ("gaussian_noise", "shot_noise", "speckle_noise")
    }
    assert ratio["gaussian_noise"] == pytest.approx(1, rel=0.03)
    assert ratio["shot_noise"] == pytest.approx(2, rel=0.03)
    assert ratio["speckle_noise"] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize(("severity", "amount"), enumerate((0.01, 0.02, 0.03, 0.05, 0.07), start=1))
def test_impulses_hit_the_published_share_of_channel_values(severity: int, amount: float):
    values = corrupt(grey(120), "impulse_noise", severity=severity)
    deviation = math.sqrt(amount / values.size)
    assert set(np.unique(values)) == {0, 120, 255}
    assert (values == 0).mean() == pytest.approx(amount / 2, abs=4 * deviation)
    assert (values == 255).mean() == pytest.approx(amount / 2, abs=4 * deviation)


def test_noise_formulas_are_the_generators():
    x = IMAGES[1] / 255
    expected = np.clip(x + x * streams()[1].normal(0, 0.2, x.shape), 0, 1) * 255
    assert np.array_equal(pixelwise.speckle_noise(IMAGES, streams(), 0.2)[1], expected)
    expected = np.clip(streams()[1].poisson(x * 50) / 50, 0, 1) * 255
    assert np.array_equal(pixelwise.shot_noise(IMAGES, streams(), 50)[1], expected)


# Blur


def test_defocus_kernels_are_the_published_ones():
    published = {
        (0.3, 0.4): (0.8449731469154358, 0.03712553158402443, 0.0016311820363625884),
        (0.4, 0.5): (0.6193470358848572, 0.08381950855255127, 0.011343737132847309),
        (0.5, 0.6): (0.4452132284641266, 0.11101489514112473, 0.027681808918714523),
        (1, 0.2): (0.20000000298023224, 0.19999776780605316, 1.4906418073223904e-06),
        (1.5, 0.1): (0.1111111119389534, 0.1111111119389534, 0.1111111119389534),
    }
    for (radius, sigma), values in published.items():
        kernel = blur.disc_kernel(radius, sigma)
        middle = len(kernel) // 2
        found = kernel[middle, middle], kernel[middle, middle + 1], kernel[middle - 1, middle + 1]
        assert kernel.dtype == np.float32
        assert found == pytest.approx(values, rel=1e-7), radius
        assert np.array_equal(kernel, kernel.T)
    far = blur.disc_kernel(1, 0.2)
    assert far[8, 10] == pytest.approx(7.453195394191425e-07, rel=1e-6)
    assert far[7, 10] == pytest.approx(2.7775475062302712e-12, rel=1e-6)


@pytest.mark.parametrize(("radius", "sigma"), [(0.5, 0.6), (1, 0.2), (3, 0.1), (10, 0.5)])
def test_defocus_is_a_correlation_with_mirrored_borders(radius: float, sigma: float):
    kernel = blur.disc_kernel(radius, sigma).astype(float)
    half = len(kernel) // 2
    padded = np.pad(IMAGES[0] / 255, ((half, half), (half, half), (0, 0)), mode="reflect")
    expected = np.zeros(IMAGES[0].shape)
    for row, column in np.ndindex(kernel.shape):
        expected += kernel[row, column] * padded[row : row + 13, column : column + 18]
    assert np.abs(blur.defocus_blur(IMAGES, radius, sigma)[0] - np.clip(expected, 0, 1) * 255).max() < 1e-9


def test_gaussian_blur_is_separable_with_repeated_edges():
    offsets = np.arange(-4, 5)
    weights = np.exp(-(offsets**2) / 2)
    weights /= weights.sum()
    padded = np.pad(IMAGES[2].astype(float), ((4, 4), (4, 4), (0, 0)), mode="edge")
    expected = sum(
        weights[i] * weights[j] * padded[i : i + 13, j : j + 18] for i in range(9) for j in range(9)
    )
    assert np.abs(blur.gaussian_blur(IMAGES, 1)[2] - expected).max() < 1e-9


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 15), width=st.integers(1, 15), reach=st.integers(1, 4), seed=st.integers(0, 9999)
)
def test_glass_origins_equal_the_pixel_by_pixel_loop(height: int, width: int, reach: int, seed: int):
    shape = (2, max(0, height - 2 * reach), max(0, width - 2 * reach), 2)
    steps = np.random.default_rng(seed).integers(-reach, reach, shape)
    origins = blur.shuffled_origins(height, width, reach, steps)
    for index in range(2):
        pixels = np.arange(height * width).reshape(height, width)
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                dx, dy = steps[index, row - reach - 1, column - reach - 1]
                pixels[row, column] = pixels[row + dy, column + dx]
        assert np.array_equal(origins[index], pixels.ravel())


def test_glass_blur_draws_in_the_generators_order():
    """With next to no blur the result is the shuffled image, the draws starting at the last pixel."""
    stream = streams()[0]
    pixels = IMAGES[0].copy()
    for _ in range(2):
        for row in range(12, 1, -1):
            for column in range(17, 1, -1):
                dx, dy = stream.randint(-1, 1, 2)
                pixels[row, column] = pixels[row + dy, column + dx]
    blurred = blur.glass_blur(IMAGES[:1], streams(1), 0.05, 1, 2)
    assert np.array_equal(blurred[0].round(), pixels)


@settings(max_examples=20, deadline=None)
@given(angle=st.floats(-180, 180), radius=st.integers(1, 9), sigma=st.floats(0.5, 12))
def test_smear_equals_the_formula_pixel_by_pixel(angle: float, radius: int, sigma: float):
    layer = IMAGES[0, :7, :9]
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    total = sum(weights)
    found = blur.smear(layer[None], [angle], radius, sigma)[0]
    for y, x, channel in ((0, 0, 0), (6, 8, 1), (3, 4, 2), (0, 8, 1), (5, 1, 0)):
        value = 0.0
        for i, weight in enumerate(weights):
            dx = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
            dy = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
            value += weight / total * layer[min(max(y + dy, 0), 6), min(max(x + dx, 0), 8), channel]
        assert found[y, x, channel] == math.floor(257 * value + 0.5) // 257


def test_motion_blur_leaves_constant_images_alone_and_stays_within_45_degrees():
    assert np.array_equal(corrupt(grey(77, 2), "motion_blur", severity=5), grey(77, 2))
    point = np.zeros((60, 33, 33, 3), dtype=np.uint8)
    point[:, 16, 16] = 255
    rows, columns = np.nonzero(corrupt(point, "motion_blur", severity=3).max(axis=(0, 3)))
    # Light comes from the right: the trace runs to the left, never steeper than the diagonal.
    assert columns.max() == 16
    assert np.all(np.abs(rows - 16) <= 16 - columns)
    assert rows.min() < 14
    assert rows.max() > 18


@pytest.mark.parametrize("factor", [1.0, 1.01, 1.13, 1.26, 1.75, 2.25, 4.5])
def test_clipped_zoom_is_scipys_zoom_of_the_middle(factor: float):
    layer = GENERATOR.random((21, 32))
    crop = [math.ceil(side / factor) for side in layer.shape]
    top, left = ((side - part) // 2 for side, part in zip(layer.shape, crop, strict=True))
    zoomed = ndimage.zoom(layer[top : top + crop[0], left : left + crop[1]], factor, order=1)
    top, left = ((zoomed.shape[axis] - layer.shape[axis]) // 2 for axis in (0, 1))
    expected = zoomed[top : top + 21, left : left + 32]
    assert np.abs(blur.clipped_zoom(layer, factor) - expected).max() < 1e-12


def test_zoom_blur_averages_the_image_with_every_factor():
    pixels = (IMAGES[0] / 255).astype(np.float32)
    copies = [blur.clipped_zoom(pixels.astype(float), factor) for factor in np.arange(1, 1.11, 0.01)]
    assert len(copies) == 12  # floating-point arange runs one step further than it looks
    expected = (pixels + sum(copies)) / 13 * 255
    assert np.abs(blur.zoom_blur(IMAGES, 1.11, 0.01)[0] - expected).max() < 1e-4

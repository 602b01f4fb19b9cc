"""Each corruption against a slow, literal version of its definition or a closed form."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
from scipy import ndimage

from warplca.configs.errors import InputError
from warplca.data import corrupt
from warplca.data.corruptions import digital, pixelwise, weather
from warplca.data.corruptions.generate import random_stream

GENERATOR = np.random.default_rng(3)
IMAGES = GENERATOR.integers(0, 256, (3, 13, 18, 3), dtype=np.uint8)


def streams(count: int = 3) -> list[np.random.RandomState]:
    return [random_stream(0, "test", 1, index) for index in range(count)]


def grey(level: int, count: int = 40) -> np.ndarray:
    return np.full((count, 32, 32, 3), level, dtype=np.uint8)


# Weather


def test_diamond_square_equals_the_point_by_point_definition():
    side, decay = 8, 1.75
    uniforms = GENERATOR.random(side * side - 1)
    draw = iter(uniforms)
    plasma = np.zeros((side, side))

    def mean_plus_jitter(neighbours: list[tuple[int, int]]) -> float:
        mean = sum(plasma[row % side, column % side] for row, column in neighbours) / 4
        return mean + wobble * (-wobble + 2 * wobble * next(draw))

    step, wobble = side, 100.0
    while step >= 2:
        half = step // 2
        starts = range(0, side, step)
        for r in starts:
            for c in starts:
                corners = [(r, c), (r + step, c), (r, c + step), (r + step, c + step)]
                plasma[r + half, c + half] = mean_plus_jitter(corners)
        for r in starts:
            for c in starts:
                cross = [(r, c), (r, c + step), (r - half, c + half), (r + half, c + half)]
                plasma[r, c + half] = mean_plus_jitter(cross)
        for r in starts:
            for c in starts:
                cross = [(r, c), (r + step, c), (r + half, c - half), (r + half, c + half)]
                plasma[r + half, c] = mean_plus_jitter(cross)
        step, wobble = half, wobble / decay
    plasma -= plasma.min()
    found = weather.diamond_square(uniforms[None], side, decay)[0]
    assert np.abs(found - plasma / plasma.max()).max() < 1e-12


def test_fog_keeps_black_black_and_never_exceeds_the_images_maximum():
    assert not corrupt(grey(0, 2), "fog", severity=5).any()
    foggy = corrupt(grey(200, 5), "fog", severity=5)
    assert foggy.max() == 200  # where the plasma is 1
    assert foggy.min() == math.floor(200 * (200 / 255) / (200 / 255 + 1.5))  # where it is 0


def test_frost_textures_are_the_published_sizes():
    sizes = [weather.frost_texture(name, 5, 32, 32).shape[:2] for name in weather.FROST_DRAW]
    assert sizes == [(120, 180), (63, 112), (63, 112), (70, 105), (99, 132)]
    full = weather.frost_texture("frost1.webp", 1, 224, 224)
    assert full.shape == (600, 900, 3)
    assert np.array_equal(full[2::5, 2::5], weather.frost_texture("frost1.webp", 5, 32, 32))


def test_frost_blends_with_a_part_of_one_texture():
    image = IMAGES[:1, :8, :8]
    stream = streams(1)[0]
    texture = weather.frost_texture(weather.FROST_DRAW[stream.randint(5)], 5, 8, 8)
    top, left = stream.randint(0, texture.shape[0] - 8), stream.randint(0, texture.shape[1] - 8)
    expected = np.clip(0.75 * image + 0.45 * texture[top : top + 8, left : left + 8], 0, 255)
    assert np.array_equal(weather.frost(image, streams(1), 0.75, 0.45, 5), expected)


def test_frost_is_enlarged_for_images_larger_than_the_texture():
    assert min(weather.frost_texture("frost2.webp", 1, 700, 300).shape[:2]) > 700
    assert weather.frost_texture("frost2.webp", 1, 314, 559).shape == (315, 560, 3)


def test_an_altered_frost_texture_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(weather.FROST_SHA256, "frost4.webp", "0" * 64)
    with pytest.raises(InputError, match=r"frost4\.webp is missing or altered"):
        weather.frost_texture("frost4.webp", 5, 31, 31)


def test_snow_without_flakes_only_whitens():
    whitened = weather.snow(IMAGES, streams(), weather.Flakes(0.1, 0.2, 1, 99, 8, 3), 0.8)
    x = IMAGES / 255
    luma = 0.299 * x[..., :1] + 0.587 * x[..., 1:2] + 0.114 * x[..., 2:]
    expected = 0.8 * x + 0.2 * np.maximum(x, 1.5 * luma + 0.5)
    assert np.abs(whitened - np.clip(expected, 0, 1) * 255).max() < 1e-3


def test_snow_falls_the_same_when_the_picture_is_turned_and_its_streaks_are_steep():
    snowy = corrupt(grey(0), "snow", severity=3).astype(int)
    assert np.abs(snowy - snowy[:, ::-1, ::-1]).max() == 0
    assert np.array_equal(snowy[..., 0], snowy[..., 2])
    across = np.abs(np.diff(snowy[..., 0], axis=2)).mean()
    down = np.abs(np.diff(snowy[..., 0], axis=1)).mean()
    assert down < 0.8 * across


def test_mud_covers_with_its_colour_and_water_adds_its_own():
    muddy = weather.spatter(grey(200, 1), streams(1), 9, 0.1, 0.7, 0.69, 0.6, True)
    assert np.abs(muddy - [63, 42, 20]).max() < 1e-3
    dry = weather.spatter(grey(200, 1), streams(1), -9, 0.1, 0.7, 0.69, 0.6, True)
    assert np.abs(dry - 200).max() < 1e-3
    wet = weather.spatter(grey(10, 3), streams(3), 0.62, 0.1, 0.7, 0.7, 0.5, False) - 10
    assert wet.max(axis=(1, 2)) == pytest.approx(np.tile([87.5, 119, 119], (3, 1)), abs=1e-3)
    assert np.abs(wet[..., 0] / 175 - wet[..., 1] / 238).max() < 1e-6


def test_water_without_a_drop_leaves_the_image():
    images = weather.spatter(grey(10, 1), streams(1), 0, 0.01, 0.7, 0.7, 0.5, False)
    assert np.abs(images - 10).max() < 1e-5


# Colour and coding


def test_hsv_agrees_with_the_standard_library_both_ways():
    pixels = GENERATOR.random((200, 3))
    pixels[::3] = np.round(pixels[::3] * 3) / 3  # ties between channels, greys
    hsv = np.stack(pixelwise.rgb_to_hsv(pixels), axis=-1)
    assert np.abs(hsv - [colorsys.rgb_to_hsv(*pixel) for pixel in pixels]).max() < 1e-12
    back = [colorsys.hsv_to_rgb(*pixel) for pixel in hsv]
    assert np.abs(pixelwise.hsv_to_rgb(*hsv.T) - back).max() < 1e-12


def test_colour_changes_in_closed_form():
    assert np.array_equal(pixelwise.saturate(grey(90, 1), 2.5, 0).round(), grey(90, 1))
    assert pixelwise.brightness(grey(100, 1), 0.2) == pytest.approx(151)
    assert pixelwise.brightness(grey(240, 1), 0.3) == pytest.approx(255)
    flattened = pixelwise.contrast(IMAGES, 0.15)
    means = IMAGES.mean(axis=(1, 2), keepdims=True)
    assert np.abs(flattened - (means + 0.15 * (IMAGES - means))).max() < 1e-9


def test_pixelate_averages_whole_blocks():
    image = IMAGES[:1, :12, :16]
    across = np.floor(image.reshape(1, 12, 4, 4, 3).mean(axis=3) + 0.5)
    blocks = np.floor(across.reshape(1, 3, 4, 4, 3).mean(axis=2) + 0.5)
    assert np.array_equal(digital.pixelate(image, 0.25), blocks.repeat(4, axis=1).repeat(4, axis=2))


def test_jpeg_hurts_more_at_lower_quality():
    losses = [
        np.abs(digital.jpeg_compression(IMAGES, quality) - IMAGES.astype(int)).mean()
        for quality in (90, 50, 10)
    ]
    assert losses[0] < losses[1] < losses[2]


# Elastic


@pytest.mark.parametrize("border", ["mirror", "reflect"])
def test_sampling_equals_scipys(border: str):
    images = GENERATOR.random((2, 6, 9, 3))
    rows, columns = GENERATOR.uniform(-13, 19, (2, 2, 5, 4))
    found = digital.sample(images, rows, columns, border)  # type: ignore[arg-type]
    for index, channel in np.ndindex(2, 3):
        expected = ndimage.map_coordinates(
            images[index, :, :, channel], [rows[index], columns[index]], order=1, mode=border
        )
        assert np.abs(found[index, :, :, channel] - expected).max() < 1e-12


def test_affine_map_sends_the_three_points_where_it_should():
    shifts = GENERATOR.uniform(-3, 3, (4, 3, 2))
    rows, columns = digital.affine_positions(32, 32, shifts)
    for image, shift in enumerate(shifts):
        for (x, y), (dx, dy) in zip(((26, 26), (26, 6), (6, 6)), shift, strict=True):
            at = [[y + dy], [x + dx]]
            assert ndimage.map_coordinates(columns[image], at, order=1)[0] == pytest.approx(x)
            assert ndimage.map_coordinates(rows[image], at, order=1)[0] == pytest.approx(y)


def test_elastic_transform_without_motion_is_the_identity():
    assert np.abs(digital.elastic_transform(IMAGES, streams(), 0, 0, 0) - IMAGES).max() < 1e-9


def test_elastic_displacement_is_smoothed_uniform_noise():
    image = IMAGES[:1]
    stream = streams(1)[0]
    stream.uniform(-1, 1, (3, 2))
    dx, dy = (
        ndimage.gaussian_filter(stream.uniform(-1, 1, (13, 18)), 1.28, mode="reflect", truncate=3) * 3.2
        for _ in range(2)
    )
    rows, columns = np.mgrid[:13, :18]
    expected = digital.sample(image.astype(float), (rows + dy)[None], (columns + dx)[None], "reflect")
    assert np.abs(digital.elastic_transform(image, streams(1), 3.2, 1.28, 0) - expected).max() < 1e-9

"""`corrupt` and its table: what holds for every corruption."""

from __future__ import annotations

import hashlib
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warplca.configs.errors import InputError
from warplca.data import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    ROBUSTBENCH_ORDER,
    STANDARD_CORRUPTIONS,
    agreement,
    corrupt,
    default_scale,
    load_dataset,
)
from warplca.data.corruptions.generate import Scale, random_stream

RANDOM = [name for name, entry in CORRUPTIONS.items() if not entry.deterministic]

# SHA-256 of severities 1 to 5 of the first 16 embedded test images. Taken when the same code gave
# the official MD5 of all eight files on the 10,000 test images of CIFAR-10 (docs/corruptions.md).
OFFICIAL_SAMPLE = {
    "defocus_blur": "3fe0030552db5bdbe70fe0f933269691b5f4e4af021363bd503cfb4e2e57bea2",
    "zoom_blur": "125075ab0ddfe45d428d4ab2f5729005d16349654f5eebeff3268f3c3b6328b3",
    "brightness": "a920ac891eee63c308929c98560cfa5a0c2c280c2aec50d672e75e7a0bae956e",
    "contrast": "171b4a1dbaafb7d433c7835a2c6bd8af91e6456cafcdf267dde3f716c376cb23",
    "pixelate": "3e345f30ccd7fd6b656ca9ee2d0aea3effbbc25e3163ad1c833500f2a585b9fa",
    "jpeg_compression": "37da876de0a0ba830975995df03a3b2c047683ba1057519b78b8c8013a2a0dda",
    "gaussian_blur": "6bf3dd6c0f4a42bc4786fe7ff58e27f0941048a8efce4b2890e3d5e725605878",
    "saturate": "85bc7da32721b0e886744345bc76b5b47aca051ea31bb976f8997a965a41acfc",
}


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    return load_dataset("cifar10-subset", "test").images[:16]


def noise_images(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_table_holds_fifteen_standard_and_four_extra_corruptions():
    assert len(STANDARD_CORRUPTIONS) == 15
    assert STANDARD_CORRUPTIONS[:3] == ("gaussian_noise", "shot_noise", "impulse_noise")
    assert STANDARD_CORRUPTIONS[-1] == "jpeg_compression"
    assert EXTRA_CORRUPTIONS == ("speckle_noise", "gaussian_blur", "spatter", "saturate")
    assert sorted(ROBUSTBENCH_ORDER) == sorted(STANDARD_CORRUPTIONS)
    assert all(len(entry.cifar) == len(entry.imagenet) == 5 for entry in CORRUPTIONS.values())


@pytest.mark.parametrize("name", OFFICIAL_SAMPLE)
def test_deterministic_corruptions_give_the_official_bytes(name: str, photographs: np.ndarray):
    digest = hashlib.sha256()
    for severity in range(1, 6):
        digest.update(corrupt(photographs, name, severity=severity).tobytes())
    assert digest.hexdigest() == OFFICIAL_SAMPLE[name]
    assert agreement(name) == "exact"


def test_every_other_corruption_says_that_it_is_statistical():
    assert {name for name in CORRUPTIONS if agreement(name) == "statistical"} == set(RANDOM)
    assert set(RANDOM) == set(CORRUPTIONS) - set(OFFICIAL_SAMPLE)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(CORRUPTIONS)),
    severity=st.integers(1, 5),
    seed=st.integers(0, 2**40),
    chosen=st.lists(st.integers(0, 8), min_size=1, max_size=9),
    size=st.sampled_from([(32, 32), (21, 13)]),
)
def test_any_subset_in_any_order_gives_the_same_images(
    name: str, severity: int, seed: int, chosen: list[int], size: tuple[int, int]
):
    images = noise_images(9, *size)
    whole = corrupt(images, name, severity=severity, seed=seed)
    part = corrupt(images[chosen], name, severity=severity, seed=seed, indices=chosen)
    assert np.array_equal(part, whole[chosen])


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch, photographs: np.ndarray):
    whole = {name: corrupt(photographs, name, severity=4) for name in CORRUPTIONS}
    monkeypatch.setattr("warplca.data.corruptions.generate.BLOCK_VALUES", 3 * 32 * 32 * 3)
    for name, images in whole.items():
        assert np.array_equal(corrupt(photographs, name, severity=4), images), name


def test_embedded_test_images_are_corrupted_as_in_the_full_set(photographs: np.ndarray):
    """The subset carries CIFAR-10's own indices, so its noise is that of the same image in the full set."""
    dataset = load_dataset("cifar10-subset", "test").subset([5])
    alone = corrupt(dataset.images, "gaussian_noise", severity=3, indices=dataset.indices)
    expected = dataset.images[0] / 255 + random_stream(
        0, "gaussian_noise", 3, int(dataset.indices[0])
    ).normal(0, 0.08, (32, 32, 3))
    assert np.array_equal(alone[0], (np.clip(expected, 0, 1) * 255).astype(np.uint8))


@pytest.mark.parametrize("name", RANDOM)
def test_randomness_differs_between_images_seeds_and_severities(name: str):
    images = np.full((2, 32, 32, 3), 120, dtype=np.uint8)
    images[:, 8:20, 10:25] = 200
    first = corrupt(images, name, severity=3)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, corrupt(images, name, severity=3, seed=1))
    streams = [random_stream(0, name, severity, 0).random_sample() for severity in range(1, 6)]
    assert len(set(streams)) == 5


@pytest.mark.parametrize(
    ("scale", "height", "width"), [("cifar", 37, 31), ("cifar", 70, 120), ("imagenet", 149, 201)]
)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_other_sizes_work_and_stay_near_the_image(name: str, scale: Scale, height: int, width: int):
    """Odd, non-square, and one larger than the smallest frost texture at CIFAR's scale."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([y * 255 / height, x * 255 / width, 0 * x + 90], axis=-1).astype(np.uint8)[None]
    for severity in (1, 5):
        corrupted = corrupt(image, name, severity=severity, scale=scale)
        assert corrupted.shape == image.shape
        assert corrupted.dtype == np.uint8
        if name != "fog":
            # Neither black, nor white, nor transposed: it still follows both gradients.
            for channel, axis in ((0, 1), (1, 0)):
                profile = corrupted[0, :, :, channel].mean(axis=axis)
                assert np.corrcoef(profile, np.arange(len(profile)))[0, 1] > 0.5


def test_large_images_get_imagenet_strengths_unless_asked_otherwise():
    assert default_scale((32, 32)) == default_scale((64, 48)) == "cifar"
    assert default_scale((64, 65)) == "imagenet"
    image = noise_images(1, 65, 65)
    strong = corrupt(image, "contrast", severity=5)
    assert np.array_equal(strong, corrupt(image, "contrast", severity=5, scale="imagenet"))
    assert strong.std() < corrupt(image, "contrast", severity=5, scale="cifar").std() / 2


def test_names_of_tensorflow_datasets_are_understood(photographs: np.ndarray):
    for theirs, ours in (("elastic", "elastic_transform"), ("frosted_glass_blur", "glass_blur")):
        assert np.array_equal(
            corrupt(photographs, theirs, severity=2), corrupt(photographs, ours, severity=2)
        )


def test_no_images_are_no_error():
    assert corrupt(noise_images(0, 32, 32), "frost", severity=1).shape == (0, 32, 32, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "gausian_noise"}, "unknown corruption 'gausian_noise'; did you mean 'gaussian_noise'"),
        ({"severity": 6}, "the severity is 6; expected a whole number from 1"),
        ({"severity": 0}, "the severity is 0"),
        ({"severity": 2.5}, "the severity is 2.5"),
        ({"seed": -1}, "the seed is -1; expected 0 or more"),
        ({"scale": "imagnet"}, "unknown scale 'imagnet'; did you mean 'imagenet'"),
        ({"indices": [1]}, "there are 1 indices for 2 images"),
        ({"images": np.zeros((2, 8, 8, 3))}, r"dtype float64 and shape \(2, 8, 8, 3\); expected uint8 RGB"),
        ({"images": np.zeros((2, 3, 8, 8), np.uint8)}, r"shape \(2, 3, 8, 8\)"),
    ],
)
def test_bad_arguments_are_explained(arguments: dict, message: str):
    arguments = {"images": noise_images(2, 8, 8), "name": "snow", "severity": 1} | arguments
    with pytest.raises(InputError, match=message):
        corrupt(arguments.pop("images"), arguments.pop("name"), **arguments)


def test_spatter_without_opencv_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, photographs: np.ndarray
):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match=r"needs OpenCV.*warplca\[corruptions\]"):
        corrupt(photographs, "spatter", severity=1)


def test_jpeg_without_jpeglib_warns_and_is_labelled(monkeypatch: pytest.MonkeyPatch, photographs: np.ndarray):
    official = corrupt(photographs, "jpeg_compression", severity=4).astype(int)
    monkeypatch.setitem(sys.modules, "jpeglib", None)
    with pytest.warns(UserWarning, match="close to the official CIFAR-10-C images but not equal"):
        near = corrupt(photographs, "jpeg_compression", severity=4)
    assert agreement("jpeg_compression") == "approximate"
    assert 0 < np.abs(near - official).mean() < 3


def test_jpeg_with_jpeglib_does_not_warn_and_sheets_do_not_show(photographs: np.ndarray):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        together = corrupt(photographs, "jpeg_compression", severity=5)
        alone = [corrupt(image[None], "jpeg_compression", severity=5)[0] for image in photographs]
    assert np.array_equal(together, np.stack(alone))

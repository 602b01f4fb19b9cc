"""Front-ends of the pilots: what they must leave alone, and closed forms."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from warplca.configs import InputError, import_file
from warplca.data import load_dataset
from warplca.frontend import WarpLCA, build_frontend, standardise
from warplca.models.quick_resnet import PATCHES

FRONTENDS = Path(__file__).parents[1] / "benchmarks" / "ingredients.py"


@pytest.fixture(autouse=True)
def registered():
    import_file(FRONTENDS)


@pytest.fixture(scope="module")
def images():
    return load_dataset("cifar10-subset", "train").tensors(range(8))[0]


def built(name, **settings):
    return build_frontend({"name": name, **settings}).eval()


def test_restorations_are_those_of_the_shipped_layer_and_factor_zero_is_the_image(images):
    noisy = images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    layer = WarpLCA.from_pretrained("cifar10-64x9s2-restore", gate=(0.012, 0.018)).eval()
    with torch.no_grad():
        features = built("restorations", factors=[0, 1])(noisy)
        expected = [standardise(part).images for part in (noisy, layer(noisy))]
    assert torch.equal(F.pixel_shuffle(features[:, :12], 2), expected[0])
    assert torch.allclose(F.pixel_shuffle(features[:, 12:], 2), expected[1], atol=1e-6)


@pytest.mark.parametrize("noise_on", ["code", "pixels"])
def test_noise_of_training_has_the_strength_that_was_asked_for_and_there_is_none_later(images, noise_on):
    frontend = built("restorations", noise=0.05, noise_on=noise_on)
    with torch.no_grad():
        coded = frontend._layer(1.0).encode(images)
        plain = frontend._noisy(coded)
        assert torch.equal(plain, coded.output)
        noisy = frontend.train()._noisy(coded)
    assert float((noisy - plain).square().mean().sqrt()) == pytest.approx(0.05, rel=1e-4)


def test_local_contrast_knows_neither_brightness_nor_contrast(images):
    frontend = built("local-contrast", floor=1e-6)
    assert torch.allclose(frontend(images), frontend(0.5 * images + 0.2), atol=1e-3)
    assert torch.equal(frontend(torch.full((1, 3, 17, 16), 0.3)).std(), torch.tensor(0.0))


def test_whitened_patches_are_uncorrelated():
    images, _ = load_dataset("cifar10-subset", "train").tensors(range(1000))
    patches = F.unfold(standardise(images).images, 4).transpose(1, 2).flatten(0, 1)
    patches = patches[:: -(-len(patches) // PATCHES)]  # those that it is computed from
    covariance = torch.cov(built("whitening").kernel.flatten(1) @ patches.T)
    diagonal = covariance.diag()
    assert float((covariance - torch.diag(diagonal)).abs().max()) < 0.01
    assert 0.0 < float(diagonal.min()) <= float(diagonal.max()) < 1.001  # below 1 by the least variance


@pytest.mark.parametrize("settings", [{"factors": []}, {"factors": [-1]}, {"factors": [1, 0], "code": True}])
def test_mistakes_name_the_setting(settings):
    with pytest.raises(InputError, match="factors is"):
        built("restorations", **settings)

"""The noise estimate and the threshold value that rises with it."""

from __future__ import annotations

import matplotlib.cbook
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from warplca.configs import InputError
from warplca.data import load_dataset
from warplca.frontend import LCA, WarpLCA, noise_level, raised_lam, save_frontend
from warplca.frontend.sparse.settings import WarpLCATraining
from warplca.models import create_classifier, load_checkpoint, save_checkpoint


def noisy(images: Tensor, sigma: float) -> Tensor:
    return images + sigma * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def photographs() -> Tensor:
    return load_dataset("cifar10-subset", "train").tensors(range(200))[0]


@pytest.fixture(scope="module")
def large_photograph() -> Tensor:
    with Image.open(str(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))) as image:
        pixels = np.asarray(image.convert("RGB"))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("sigma", [10 / 255, 25 / 255, 50 / 255])
def test_estimate_is_the_known_noise_of_photographs(
    photographs: Tensor, large_photograph: Tensor, sigma: float
) -> None:
    small = noise_level(noisy(photographs, sigma))
    assert float(small.mean()) == pytest.approx(sigma, rel=0.12)
    assert float(((small / sigma - 1).abs() < 0.3).float().mean()) > 0.95
    assert float(noise_level(noisy(large_photograph, sigma))) == pytest.approx(sigma, rel=0.05)


def test_estimate_of_pure_noise_is_exact_and_scales() -> None:
    noise = noisy(torch.zeros(3, 3, 201, 150, dtype=torch.float64), 1.0)
    torch.testing.assert_close(noise_level(noise), torch.ones(3).double(), rtol=0.02, atol=0)
    torch.testing.assert_close(noise_level(7 * noise + 3), 7 * noise_level(noise))


def test_planes_and_clean_photographs_hold_next_to_no_noise(
    photographs: Tensor, large_photograph: Tensor
) -> None:
    rows, columns = torch.arange(37.0)[:, None], torch.arange(31.0)[None]
    assert float(noise_level((0.3 * rows - 2.0 * columns + rows**3 + columns**2)[None, None])) < 1e-2
    assert float(noise_level(large_photograph)) < 2 / 255
    assert float(noise_level(photographs).mean()) < 4 / 255


def test_too_small_image_is_refused() -> None:
    with pytest.raises(InputError, match="2 x 9 pixels are too small to estimate their noise"):
        noise_level(torch.zeros(1, 3, 2, 9))


@given(st.floats(0.01, 10), st.floats(0, 10), st.floats(0, 5), st.floats(0, 5))
def test_raised_lam_is_monotone_and_never_below_lam(
    lam: float, strength: float, one: float, two: float
) -> None:
    low, high = raised_lam(lam, strength, torch.tensor(sorted((one, two))).double()).flatten().tolist()
    assert lam * (1 - 1e-12) <= low <= high
    assert high == pytest.approx((lam**2 + (strength * max(one, two)) ** 2) ** 0.5)


@pytest.fixture
def images(photographs: Tensor) -> Tensor:
    return torch.cat([photographs[:3], noisy(photographs[3:5], 0.2).clamp(0, 1)])


def layers(**options: object) -> list[LCA]:
    return [kind(features=12, kernel_size=5, iterations=6, **options).eval() for kind in (LCA, WarpLCA)]


def test_off_is_bit_identical_and_prints_as_before(images: Tensor) -> None:
    for make in ({}, {"threshold": "soft"}, {"output": "reconstruction"}):
        torch.manual_seed(0)
        plain = layers(**make)
        torch.manual_seed(0)
        off = layers(**make, adaptive_lam=0.0)
        for one, other in zip(plain, off, strict=True):
            assert torch.equal(one(images), other(images))
            assert repr(one) == repr(other)
            assert "adaptive" not in repr(one)


def test_each_image_is_coded_with_its_own_lam(images: Tensor) -> None:
    adaptive = LCA(features=12, kernel_size=5, iterations=6, adaptive_lam=2.0).eval()
    encoding = adaptive.encode(images)
    assert isinstance(encoding.lam, Tensor)
    assert encoding.lam.shape == (5, 1, 1, 1)
    assert float(encoding.lam[3:].min()) > float(encoding.lam[:3].max()) > 0.5
    for i in range(5):
        fixed = LCA(features=12, kernel_size=5, iterations=6, lam=float(encoding.lam[i])).eval()
        fixed.load_state_dict(adaptive.state_dict())
        torch.testing.assert_close(fixed(images[i : i + 1]), encoding.code[i : i + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("accelerated", "tolerance"), [(False, 2e-2), (True, 7e-2)])
def test_solve_agrees_with_encode_and_stops_images_alone(
    images: Tensor, accelerated: bool, tolerance: float
) -> None:
    layer = LCA.from_pretrained("cifar10-64x9s2", iterations=60, adaptive_lam=1.0, accelerated=accelerated)
    layer, images = layer.double(), images.double()
    code, _ = layer.solve(images)
    torch.testing.assert_close(code, layer(images).detach())
    stopped, statistics = layer.solve(images, tolerance=tolerance)
    assert statistics.iterations_used.unique().numel() > 1
    for i in range(len(images)):
        alone, _ = layer.solve(images[i : i + 1], tolerance=tolerance)
        torch.testing.assert_close(stopped[i : i + 1], alone)


def test_gradient_passes_through_the_noise_estimate() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, 9, 11, dtype=torch.float64, requires_grad=True)
    layer = LCA(features=6, kernel_size=3, iterations=3, threshold="soft", lam=0.1, adaptive_lam=0.5).double()
    assert torch.autograd.gradcheck(layer.eval(), (x,), atol=1e-5)
    (own,) = torch.autograd.grad(layer(x).sum(), x)
    level = noise_level(layer.standardise(x).images).detach()
    layer.image_lam = lambda _: raised_lam(0.1, 0.5, level)  # type: ignore[method-assign]
    (cut,) = torch.autograd.grad(layer(x).sum(), x)
    assert float((own - cut).abs().max()) > 1e-3 * float(own.abs().max())


@pytest.mark.parametrize("mode", ["unroll", "implicit"])
def test_every_gradient_mode_reaches_image_and_lam(images: Tensor, mode: str) -> None:
    layer = LCA(
        features=12,
        kernel_size=5,
        iterations=6,
        threshold="soft",
        learn_lam=True,
        adaptive_lam=1.0,
        gradient_mode=mode,
    )
    x = images.clone().requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer.lam_raw is not None
    assert layer.lam_raw.grad is not None
    assert torch.isfinite(x.grad).all()
    assert float(x.grad.abs().sum()) > 0
    assert float(layer.lam_raw.grad) != 0


def test_detached_layer_sends_no_gradient_through_lam(images: Tensor) -> None:
    layer = LCA(features=12, kernel_size=5, iterations=6, adaptive_lam=1.0, gradient_mode="detach")
    assert not layer(images.clone().requires_grad_()).requires_grad


def test_distillation_uses_each_image_s_lam(images: Tensor) -> None:
    layer = WarpLCA(features=12, kernel_size=5, adaptive_lam=1.0)
    loss = layer.distillation_loss(layer.encode(images), images=4)
    assert torch.isfinite(loss)


def test_strength_is_saved_and_shown(images: Tensor, tmp_path) -> None:
    model = create_classifier("resnet10_slim", {"name": "lca", "iterations": 2, "adaptive_lam": 1.5}).eval()
    save_checkpoint(model, tmp_path / "model")
    loaded = load_checkpoint(tmp_path / "model")
    assert loaded.frontend.adaptive_lam == 1.5  # type: ignore[union-attr]
    assert "adaptive_lam=1.5" in repr(loaded)
    assert torch.equal(loaded(images), model(images))
    layer = WarpLCA(features=12, kernel_size=5, adaptive_lam=0.7).eval()
    save_frontend(layer, tmp_path / "layer", card="")
    assert WarpLCA.from_pretrained(tmp_path / "layer").adaptive_lam == 0.7


def test_lam_spreads_in_training_only_and_by_no_more_than_asked(images: Tensor) -> None:
    layer = WarpLCA(features=12, kernel_size=5, iterations=3, threshold="soft", lam=0.2, adaptive_lam=1.0)
    plain = layer.encode(images)
    layer.at(0.0, 1, WarpLCATraining(lam_spread=4.0))
    torch.manual_seed(3)
    spread = layer.encode(images)
    factors = spread.lam / plain.lam
    assert spread.lam.shape == (len(images), 1, 1, 1)
    assert float(factors.min()) >= 1.0
    assert float(factors.max()) <= 4.0
    assert factors.unique().numel() == len(images)
    for i in range(len(images)):  # predictor, cycles and code agree on one lam for each image
        fixed = WarpLCA(features=12, kernel_size=5, iterations=3, threshold="soft", lam=float(spread.lam[i]))
        fixed.load_state_dict(layer.state_dict())
        fixed.predictor.lam = 0.2
        torch.testing.assert_close(fixed(images[i : i + 1]), spread.code[i : i + 1], rtol=1e-4, atol=1e-5)
    assert torch.equal(layer.eval()(images), plain.output)


def test_bad_strength_is_refused() -> None:
    with pytest.raises(InputError, match="adaptive_lam is -1"):
        LCA(adaptive_lam=-1)

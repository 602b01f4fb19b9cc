"""AugMix and PRIME on whole batches: their operations against PIL, torchvision and scipy, image by image."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from scipy.ndimage import map_coordinates
from scipy.stats import kstest
from stripes import config
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as kernels

from warplca.train import augmix, primitives
from warplca.train.mixture import Mixture
from warplca.train.sampling import Draws

CPU = torch.device("cpu")
HEIGHT, WIDTH = 23, 31


def images(count, height=HEIGHT, width=WIDTH, seed=0):
    """Smooth and noisy images, a flat one, one of two values, and one whose channels differ in range."""
    numbers = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, 3, 5, 6), generator=numbers)
    made = F.interpolate(coarse, (height, width), mode="bilinear") * 235 + 20 * torch.rand(
        (count, 3, height, width), generator=numbers
    )
    made[0] = 77
    made[1, :, 3:9] = 250
    made[1, :, 9:] = 3
    made[2, 0] = made[2, 0] / 3 + 40
    return made.to(torch.uint8)


def pil(batch):
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in batch]


def tensor(made):
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in made])


def affine_cases():
    kind = torch.arange(40) % 5
    share = torch.linspace(-1.0, 1.0, 40)
    amounts = torch.stack([30 * share, 0.3 * share, 0.3 * share, (10 * share).round(), (7 * share).round()])
    return kind, amounts.gather(0, kind[None])[0]


def test_affine_operations_are_those_of_torchvision_image_by_image():
    batch = images(40)
    kind, amount = affine_cases()
    expected = []
    for image, number, value in zip(batch, kind.tolist(), amount.tolist(), strict=True):
        if number == 0:
            expected.append(kernels.rotate(image, value, InterpolationMode.BILINEAR))
            continue
        slope, shift = math.degrees(math.atan(value)), -round(value)
        expected.append(
            kernels.affine(
                image,
                angle=0.0,
                translate=[shift if number == 3 else 0, shift if number == 4 else 0],
                scale=1.0,
                shear=[slope if number == 1 else 0.0, slope if number == 2 else 0.0],
                interpolation=InterpolationMode.BILINEAR,
                center=[0, 0],
            )
        )
    far = (augmix.warped(batch, kind, amount).int() - torch.stack(expected).int()).abs()
    assert far.max() <= 1
    assert (far > 0).float().mean() < 0.005  # where the exact value lies between two levels


def test_affine_operations_are_those_of_pil_inside_the_image():
    """On its border PIL repeats the outermost pixel by half its size; torchvision fades to black."""
    batch = images(40)
    kind, amount = affine_cases()
    expected = []
    for image, number, value in zip(pil(batch), kind.tolist(), amount.tolist(), strict=True):
        matrix = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        if number:
            matrix[{1: 1, 2: 3, 3: 2, 4: 5}[number]] = value
        expected.append(
            image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
            if number
            else image.rotate(value, Image.Resampling.BILINEAR)
        )
    inside = augmix.warped(torch.full_like(batch, 255), kind, amount) == 255
    far = (augmix.warped(batch, kind, amount).int() - tensor(expected).int()).abs()[inside]
    assert inside.float().mean() > 0.7
    assert far.max() <= 1


def test_operations_on_values_are_those_of_pil():
    batch = images(24)
    bits = torch.arange(24) % 4 + 1
    thresholds = torch.linspace(0, 256, 24).long()
    assert torch.equal(augmix.equalised(batch), tensor([ImageOps.equalize(image) for image in pil(batch)]))
    far = (
        augmix.stretched(batch).int() - tensor([ImageOps.autocontrast(image) for image in pil(batch)]).int()
    ).abs()
    assert far.max() <= 1  # PIL multiplies by a rounded factor before it rounds down
    assert (far > 0).float().mean() < 0.01
    assert torch.equal(augmix.stretched(batch)[0], batch[0])
    cases = (
        (augmix.posterised(batch, bits), ImageOps.posterize, bits),
        (augmix.solarised(batch, thresholds), ImageOps.solarize, thresholds),
    )
    for made, function, values in cases:
        one_by_one = [
            function(image, value) for image, value in zip(pil(batch), values.tolist(), strict=True)
        ]
        assert torch.equal(made, tensor(one_by_one))


def test_augmix_has_the_papers_operations_and_strengths():
    assert len(augmix.AFFINE) + 4 == sum(share for share, _ in augmix.operations(3)) == 9
    share = augmix.strength(torch.tensor([0.0, 1.0]), 3)
    assert torch.allclose(share, torch.tensor([0.01, 0.3]))
    # At severity 3 of 10: up to 9 degrees (8 after rounding down), a slope of 0.09, a tenth of the side.
    white = torch.full((500, 3, 33, 33), 255, dtype=torch.uint8)
    black = (augmix.moved(white, Draws(500, slice(0, 500), 3, CPU), severity=3) < 128).float().mean((1, 2, 3))
    assert 0.05 < black.max() <= 3 / 33 + 1e-6
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(300, 3, 16, 16)
    _, posterise = augmix.operations(3)[3]
    kept = {len(image.unique()) for image in posterise(grey, Draws(300, slice(0, 300), 3, CPU))}
    assert kept == {8, 16}
    _, solarise = augmix.operations(3)[4]
    inverted = (solarise(grey, Draws(300, slice(0, 300), 3, CPU)) != grey).float().mean((1, 2, 3)) * 256
    assert 65 < inverted.max() <= 76


def white(batch, draws):
    return torch.full_like(batch, 100)


def one_more(batch, draws):
    return batch + 1


def test_a_mixture_has_the_papers_depths_and_weights():
    black = torch.zeros(3000, 1, 1, 1, dtype=torch.uint8)
    arguments = {"views": 2, "seed": 5, "count": 3000, "rows": slice(0, 3000)}
    share = Mixture(((1, white),), 3, torch.uint8)(black, **arguments).flatten() * 2.55
    assert kstest(share.numpy(), "uniform").pvalue > 0.01  # Beta(1, 1)
    assert abs(np.corrcoef(share.view(3000, 2).T.numpy())[0, 1]) < 0.06  # the views are drawn apart
    single = {width: Mixture(((1, one_more),), width, torch.uint8)(black, **arguments) for width in (1, 3)}
    alone = Mixture(((1, white),), 1, torch.uint8)(black, **arguments)
    depths = (single[1] / alone * 100).flatten()
    assert torch.allclose(depths, depths.round(), atol=1e-3)
    assert (
        torch.bincount(depths.round().long(), minlength=4)[1:].float().div(6000).sub(1 / 3).abs().max() < 0.02
    )
    # Dirichlet(1, 1, 1) over three chains: the sum of squares has the mean 1/2, so the variance of their mean depth is
    # half of that of one depth, 2/3.
    means = (single[3].flatten() * 255 / share)[share > 0.01]
    assert means.mean().item() == pytest.approx(2.0, abs=0.03)
    assert means.var().item() == pytest.approx(1 / 3, abs=0.03)


def test_a_mixture_chooses_among_its_operations_by_their_frequency():
    black = torch.zeros(4000, 1, 1, 1, dtype=torch.uint8)
    seen = []
    for wanted in (0, 1):
        chosen = ((5, white if wanted == 0 else one_more), (1, white if wanted == 1 else one_more))
        made = Mixture(chosen, 1, torch.uint8)(black, views=1, seed=1, count=4000, rows=slice(0, 4000))
        seen.append((made > 4 / 255).float().mean())  # only a chain with "white" is this bright
    # A chain is white if any of its operations is; the depth is 1 to 3.
    for share, probability in zip(seen, (5 / 6, 1 / 6), strict=True):
        any_of = 1 - sum((1 - probability) ** depth for depth in (1, 2, 3)) / 3
        assert share.item() == pytest.approx(any_of * (1 - 0.04), abs=0.03)


@pytest.mark.parametrize("policy", ["augmix", "prime"])
def test_every_view_of_every_image_is_drawn_by_itself(policy):
    mixture = Mixture.of(config(augment={"policy": policy}).train.augment)
    same = images(3)[2:].expand(12, -1, -1, -1)
    state = torch.random.get_rng_state()
    made = mixture(same, views=2, seed=4, count=12, rows=slice(0, 12))
    assert made.shape == (12, 2, 3, HEIGHT, WIDTH)
    assert len({view.numpy().tobytes() for view in made.flatten(0, 1)}) == 24
    assert 0.0 <= made.min() < made.max() <= 1.0
    part = mixture(same[5:9], views=2, seed=4, count=12, rows=slice(5, 9))
    assert torch.equal(part, made[5:9])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(mixture(same, views=2, seed=5, count=12, rows=slice(0, 12)), made)


def test_primitives_of_no_strength_change_nothing():
    batch = images(6).float() / 255
    assert torch.equal(primitives.filtered(batch, torch.zeros(6, 3, 3)), batch)
    assert torch.equal(primitives.recoloured(batch, torch.zeros(6, 3, 100)), batch)
    assert torch.allclose(primitives.deformed(batch, torch.zeros(6, 2, 7, 9)), batch, atol=2e-5)


@pytest.mark.parametrize("primitive", primitives.operations(), ids=["filter", "colour", "diffeomorphism"])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (32, 32), (3, 130), (1, 2)])
def test_primitives_stay_in_range_and_change_images(primitive, size):
    batch = torch.rand(9, 3, *size, generator=torch.Generator().manual_seed(2))
    made = primitive[1](batch, Draws(20, slice(4, 13), 8, CPU))
    assert made.shape == batch.shape
    assert 0.0 <= made.min() <= made.max() <= 1.0
    if min(size) > 2 or primitive[1] is not primitives._deformed:
        assert ((made - batch).abs().amax((1, 2, 3)) > 0).all()


def test_random_filters_are_convolutions_with_the_stated_spectrum():
    batch = images(5).float() / 255
    small = 0.02 * torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.stack(
        [
            F.conv2d(image[:, None], kernel[None, None], padding=1)[:, 0]
            for image, kernel in zip(batch, small, strict=True)
        ]
    )
    assert torch.allclose(primitives.filtered(batch, small), (batch + expected).clamp(0, 1), atol=1e-6)
    # The impulse response of one draw each; its spectrum minus 1 has at every frequency nine times the variance of an
    # entry, which is a third of 4 squared over standard deviations uniform up to 4.
    impulse = torch.zeros(4000, 1, 9, 9)
    impulse[:, :, 4, 4] = 1e-3
    shifted = primitives._filtered(0.5 + impulse, Draws(4000, slice(0, 4000), 1, CPU))
    grey = primitives._filtered(torch.full_like(impulse, 0.5), Draws(4000, slice(0, 4000), 1, CPU))
    sound = ((grey > 0) & (grey < 1) & (shifted > 0) & (shifted < 1)).all(dim=3).all(dim=2)[:, 0]
    spread = 4.0 * Draws(4000, slice(0, 4000), 1, CPU).uniform()
    response = torch.fft.fft2((shifted - grey)[sound][:, 0, 3:6, 3:6] / 1e-3 - _delta())
    assert sound.sum() > 50
    assert response.abs().square().mean() < 9 * spread.square().mean()
    kernels_drawn = spread[:, None, None] * Draws(4000, slice(0, 4000), 1, CPU).normal(3, 3)
    energy = torch.fft.fft2(kernels_drawn).abs().square().mean(dim=0)
    assert torch.allclose(energy, torch.full((3, 3), 9 * 16 / 3), rtol=0.1)


def _delta():
    delta = torch.zeros(3, 3)
    delta[1, 1] = 1.0
    return delta


def test_colour_curves_are_sums_of_sines():
    batch = images(4)
    coefficients = 0.1 * torch.randn(4, 3, 100, generator=torch.Generator().manual_seed(0))

    def exact(values):
        k = torch.arange(1, 101, dtype=torch.float64)
        waves = (math.pi * k * values.double()[..., None]).sin()
        curve = (waves * coefficients.double()[:, :, None, None]).sum(dim=4)
        return (values.double() + curve).clamp(0, 1).float()

    eight_bits = batch.float() / 255
    assert torch.allclose(primitives.recoloured(eight_bits, coefficients), exact(eight_bits), atol=2e-4)
    between = torch.rand(4, 3, 19, 8, generator=torch.Generator().manual_seed(1))
    far = (primitives.recoloured(between, coefficients) - exact(between)).abs()
    assert far.max() < 0.1  # linear between 511 points, ten to the fastest wave
    assert far.mean() < 0.01
    ends = torch.tensor([0.0, 1.0]).expand(4, 3, 1, 2)
    assert torch.allclose(primitives.recoloured(ends, coefficients), ends, atol=1e-5)


def test_deformations_are_those_of_scipy():
    batch = images(3).float() / 255
    numbers = torch.Generator().manual_seed(4)
    coefficients = 0.01 * torch.randn(3, 2, 4, 5, generator=numbers)
    y, x = (np.linspace(0, 1, points) for points in (HEIGHT, WIDTH))
    expected = []
    for image, (right, down) in zip(batch, coefficients.double().numpy(), strict=True):
        waves = [np.sin(np.pi * np.arange(1, n + 1)[:, None] * v) for n, v in ((4, y), (5, x))]
        dx, dy = (WIDTH * waves[0].T @ right @ waves[1], HEIGHT * waves[0].T @ down @ waves[1])
        rows, columns = np.mgrid[:HEIGHT, :WIDTH]
        places = [rows - dy, columns - dx]
        expected.append([map_coordinates(c.numpy(), places, order=1, mode="nearest") for c in image])
    made = primitives.deformed(batch, coefficients).numpy()
    assert np.abs(made - np.array(expected)).max() < 1e-4
    assert np.abs(made - batch.numpy()).mean() > 0.005


@pytest.mark.parametrize("points", [2, 3, 9, 32, 51, 102, 130])
def test_fast_sines_are_folded_onto_those_that_a_grid_can_tell(points):
    fast = primitives.sines(points, primitives.HIGHEST, CPU)
    slow = primitives.sines(points, len(primitives.folding(points)), CPU)
    folded = primitives.folding(points).float().T @ slow
    assert torch.allclose(fast.abs(), folded.abs(), atol=1e-4)


def test_displacements_have_the_variance_of_all_their_sines():
    table = primitives.amplitudes(9, 13, CPU)
    for highest in (2, 7, 40, 100):
        k = torch.arange(1, 101).double()
        radius = (k[:, None] ** 2 + k**2).sqrt()
        variances = (radius < highest + 0.5) / radius**2
        rows, columns = (primitives.sines(n, 100, CPU).double().square() for n in (9, 13))
        folded_rows, folded_columns = (
            primitives.sines(n, len(primitives.folding(n)), CPU).double().square() for n in (9, 13)
        )
        direct = rows.T @ variances @ columns
        folded = folded_rows.T @ table[highest - 2].double().square() @ folded_columns
        assert torch.allclose(direct, folded, atol=1e-4)


def test_temperatures_span_half_a_pixel_to_the_last_one_to_one_map():
    highest = torch.tensor([2.0, 5.0, 30.0])
    mildest, strongest = primitives.temperatures(highest, 32)
    typical = 32 * (math.pi * mildest * highest.log()).sqrt() / 2  # Petrini et al. 2021, in the middle
    assert torch.allclose(typical, torch.full((3,), 0.5))
    assert (strongest >= mildest).all()
    assert strongest[2] == mildest[2]  # faster than half a pixel allows
    table = primitives.amplitudes(64, 64, CPU)
    draws = torch.randn(60, 2, *table.shape[1:], generator=torch.Generator().manual_seed(0))
    for cut in (3, 8):
        scale = primitives.temperatures(torch.tensor([float(cut)]), 64)[1].sqrt()
        y = primitives.sines(64, table.shape[1], CPU)
        fields = y.T @ (scale * table[cut - 2] * draws) @ y
        rows, columns = (torch.gradient(fields, spacing=1 / 63, dim=dim)[0] for dim in (2, 3))
        determinant = (1 - columns[:, 0]) * (1 - rows[:, 1]) - columns[:, 1] * rows[:, 0]
        assert (determinant > 0).float().mean() > 0.95

"""What a training step sees: order, shares of processes, noise, mixtures and RandAugment."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from stripes import config, stripes

from warplca.train.policy import cut_out
from warplca.train.sampling import Placement, StepOrder, draw_noise, place
from warplca.train.source import BatchSource

CPU = torch.device("cpu")


@given(images=st.integers(1, 60), batch_size=st.integers(1, 20), processes=st.integers(1, 7))
@settings(max_examples=100, deadline=None)
def test_processes_share_every_batch_and_its_mean(images, batch_size, processes):
    orders = [
        StepOrder(images, batch_size, 3, process=process, processes=processes) for process in range(processes)
    ]
    values = torch.randn(images, dtype=torch.float64)
    seen = []
    for step in range(orders[0].steps_per_epoch):
        whole = orders[0].chosen(step)
        parts = [order.share(step)[0] for order in orders]
        weights = [order.weight(step) for order in orders]
        genuine = torch.cat([part for part, weight in zip(parts, weights, strict=True) if weight])
        assert torch.equal(genuine, whole)
        mean = sum(w * values[part].mean() for part, w in zip(parts, weights, strict=True)) / processes
        assert mean.item() == pytest.approx(values[whole].mean().item())
        seen.append(whole)
    assert sorted(torch.cat(seen).tolist()) == list(range(images))


def shares(recipe, processes=1, steps=(0, 5)):
    """The batches of every process, put together again."""
    made = []
    for process in range(processes):
        order = StepOrder(80, recipe.batch_size, recipe.seed, process=process, processes=processes)
        made.append(list(BatchSource(stripes(80), recipe, order, CPU).shares(*steps)))
    return [
        (
            torch.cat([share.batch.images for share in step]),
            torch.cat([share.batch.labels for share in step]),
            [torch.cat(views) for views in zip(*(share.batch.views for share in step), strict=True)],
        )
        for step in zip(*made, strict=True)
    ]


AUGMENTS = [
    {},
    {"noise": 0.2, "noise_share": 0.5},
    {"policy": "augmix"},
    {"policy": "randaugment", "severity": 9},
    {"smallest_area": 0.2},
    {"smallest_area": 0.2, "policy": "augmix"},
    {"policy": "prime", "noise": 0.1},
]


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("loss", ["standard", "jsd"])
def test_images_do_not_depend_on_processes_or_on_where_a_run_went_on(augment, loss):
    if loss == "jsd" and "policy" not in augment:
        augment = {**augment, "policy": "augmix"}
    recipe = config(augment=augment, loss={"name": loss}).train
    one, three = shares(recipe), shares(recipe, processes=3)
    later = shares(recipe, steps=(3, 5))
    for left, right in [*zip(one, three, strict=True), *zip(one[3:], later, strict=True)]:
        assert torch.equal(left[0], right[0])
        assert torch.equal(left[1], right[1])
        assert all(torch.equal(a, b) for a, b in zip(left[2], right[2], strict=True))
    assert len(one[0][2]) == (2 if loss == "jsd" else 0)
    assert all(images.min() >= 0.0 and images.max() <= 1.0 for images, _, _ in one)


def test_workers_make_the_same_images():
    without = shares(config(augment={"policy": "randaugment"}).train)
    with_two = shares(config(augment={"policy": "randaugment", "workers": 2}).train)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(without, with_two, strict=True))


@given(st.integers(5, 60), st.integers(5, 60), st.floats(0.05, 1.0), st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_a_random_cut_is_a_part_of_the_image_in_the_stated_size_and_shape(height, width, area, seed):
    rows, columns = np.mgrid[:height, :width] * 4  # a pixel tells where it was
    image = np.stack([rows, columns, 0 * rows], axis=2).astype(np.uint8)
    cut = cut_out(image, (31, 29), area, seed).astype(float) / 4.0
    assert cut.shape == (31, 29, 3)
    assert np.array_equal(cut_out(image, (31, 29), area, seed), cut_out(image, (31, 29), area, seed))
    # Positions grow linearly inside; the slope is the length of the cut over the length of the result.
    lengths = [
        np.ptp(cut[6:-6, 14, 0]) / 18 * 31,
        np.ptp(cut[15, 6:-6, 1]) / 16 * 29,
    ]
    slack = 1.5
    assert lengths[0] <= height + slack
    assert lengths[1] <= width + slack
    rounding = (height + width) / 2 * slack
    shape = min(1.0, 0.75 * min(height, width) / max(height, width))  # of what fits where no draw fits
    assert lengths[0] * lengths[1] >= min(area, shape) * height * width - rounding


def test_random_cuts_have_the_stated_areas_and_shapes(monkeypatch):
    boxes = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, *args, box: boxes.append(box) or resize(self, *args, box=box)
    )
    image = np.zeros((300, 300, 3), np.uint8)
    for seed in range(400):
        cut_out(image, (8, 8), 0.08, seed)
    left, top, right, bottom = np.array(boxes).T
    widths, heights = right - left, bottom - top
    areas = widths * heights / 300**2
    assert min(left.min(), top.min()) >= 0
    assert max(right.max(), bottom.max()) <= 300
    assert 0.075 < areas.min() < 0.12
    assert 0.4 < areas.mean() < 0.56  # uniform from 0.08 to 1, a few of the largest do not fit
    assert 0.74 < (widths / heights).min() < 0.8
    assert 1.25 < (widths / heights).max() < 1.35


def test_randaugment_draws_for_each_image_by_itself():
    from warplca.train.policy import PreparedImages

    order = StepOrder(12, 12, 0)
    same = np.repeat(stripes(12).images[:1], 12, axis=0)
    recipe = config(augment={"policy": "randaugment", "severity": 9}).train
    made = PreparedImages(same, recipe.augment, order, plain=False, views=2, seed=0)[0]
    assert made.shape == (12, 2, 3, 16, 16)
    assert made.dtype == torch.uint8
    assert len({view.numpy().tobytes() for view in made.flatten(0, 1)}) >= 18
    state = torch.random.get_rng_state()
    assert torch.equal(PreparedImages(same, recipe.augment, order, plain=False, views=2, seed=0)[0], made)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("policy", ["augmix", "prime"])
def test_mixtures_are_of_the_cropped_and_mirrored_image(policy):
    """The first view of the consistency loss is the plain image, as without augmentation."""
    augment = {"policy": policy}
    plain = shares(config().train, steps=(0, 2))
    mixed = shares(config(augment=augment, loss={"name": "jsd"}).train, steps=(0, 2))
    alone = shares(config(augment=augment).train, steps=(0, 2))
    for (image, _, _), (first, _, views), (only, _, none) in zip(plain, mixed, alone, strict=True):
        assert torch.equal(image, first)
        assert none == []
        for view in [*views, only]:
            # A mixture keeps, in the mean, half of the image.
            kept = [
                np.corrcoef(a.flatten(), b.flatten())[0, 1]
                for a, b in zip(view.numpy(), image.numpy(), strict=True)
            ]
            assert np.median(kept) > 0.6


def test_the_views_of_an_image_share_its_place():
    images = torch.rand(5, 3, 7, 9)
    placement = Placement.draw(5, torch.Generator().manual_seed(1), padding=2, flip=True)
    together = place(torch.cat([images, images], dim=1), placement, padding=2)
    assert torch.equal(together[:, :3], together[:, 3:])
    assert torch.equal(together[:, :3], place(images, placement, padding=2))
    part = place(images[2:4], placement.take(slice(2, 4)), padding=2)
    assert torch.equal(part, together[2:4, :3])


def test_noise_has_the_stated_strength():
    noise = draw_noise(4000, (3, 7, 5), 1, CPU, largest=0.2, share=0.25)
    spread = noise.flatten(1).std(1)
    noisy = spread > 0
    assert noisy.float().mean().item() == pytest.approx(0.25, abs=0.03)
    # Uniform standard deviations between 0 and 0.2: mean 0.1, mean square 0.04 / 3.
    assert spread[noisy].mean().item() == pytest.approx(0.1, abs=0.006)
    assert noise[noisy].square().mean().item() == pytest.approx(0.04 / 3, abs=0.001)
    assert noise.mean().abs() < 0.001

"""What a training step sees: order, shares of processes, noise, AugMix and RandAugment."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stripes import config, stripes

from warplca.train.augment import Placement, draw_noise, place
from warplca.train.order import StepOrder
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


@pytest.mark.parametrize("policy", ["augmix", "randaugment"])
def test_workers_make_the_same_images(policy):
    without = shares(config(augment={"policy": policy}).train)
    with_two = shares(config(augment={"policy": policy, "workers": 2}).train)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(without, with_two, strict=True))


@pytest.mark.parametrize("policy", ["augmix", "randaugment"])
def test_policies_draw_for_each_image_by_itself(policy):
    from warplca.train.policy import PreparedImages

    order = StepOrder(12, 12, 0)
    same = np.repeat(stripes(12).images[:1], 12, axis=0)
    recipe = config(augment={"policy": policy, "severity": 9}).train
    made = PreparedImages(same, recipe.augment, order, plain=False, views=2, seed=0)[0]
    assert made.shape == (12, 2, 3, 16, 16)
    assert made.dtype == torch.uint8
    assert len({view.numpy().tobytes() for view in made.flatten(0, 1)}) >= 18
    state = torch.random.get_rng_state()
    assert torch.equal(PreparedImages(same, recipe.augment, order, plain=False, views=2, seed=0)[0], made)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_augmix_leaves_out_what_cifar_10_c_contains():
    from warplca.train.policy import make_policy

    operations = make_policy(config(augment={"policy": "augmix"}).train.augment)._PARTIAL_AUGMENTATION_SPACE
    assert not {"Brightness", "Color", "Contrast", "Sharpness"} & set(operations)
    assert make_policy(config(augment={"policy": "augmix"}).train.augment).all_ops is False


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

"""ImageDataset: what it refuses, and what its subsets and splits keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from warplca.configs.errors import InputError
from warplca.data import ImageDataset


def make(count: int = 20, classes: int = 4, size: tuple[int, int] = (5, 7)) -> ImageDataset:
    generator = np.random.default_rng(0)
    return ImageDataset(
        "toy",
        generator.integers(0, 256, (count, *size, 3), dtype=np.uint8),
        np.arange(count) % classes,
        tuple(f"class {i}" for i in range(classes)),
    )


def test_tensors_are_pixels_in_unit_range_channels_first():
    dataset = make()
    images, labels = dataset.tensors([3, 1])
    assert images.shape == (2, 3, 5, 7)
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    assert torch.equal((images * 255).round().to(torch.uint8)[0, 2], torch.tensor(dataset.images[3, :, :, 2]))
    assert labels.tolist() == [3, 1]


def test_tensors_do_not_share_memory_with_the_data_set():
    dataset = make()
    before = dataset.fingerprint
    dataset.tensors()[0].zero_()
    assert ImageDataset("again", dataset.images, dataset.labels, dataset.class_names).fingerprint == before


def test_fingerprint_depends_on_pixels_labels_and_indices_but_not_on_names():
    dataset = make()
    arrays = {"images": dataset.images, "labels": dataset.labels, "indices": dataset.indices}

    def fingerprint(**changed: np.ndarray) -> str:
        return ImageDataset("other name", class_names=tuple("abcd"), **(arrays | changed)).fingerprint

    assert fingerprint() == dataset.fingerprint
    images, labels = dataset.images.copy(), dataset.labels.copy()
    images[7, 2, 3, 1] ^= 1
    labels[0] = 1
    prints = {
        fingerprint(images=images),
        fingerprint(labels=labels),
        fingerprint(indices=dataset.indices + 1),
    }
    assert len(prints | {dataset.fingerprint}) == 4


def test_arrays_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        make().images[0, 0, 0, 0] = 1


def test_a_subset_of_a_subset_remembers_where_the_images_come_from():
    dataset = make()
    inner = dataset.subset([4, 9, 2]).subset([2, 0], name="two")
    assert inner.name == "two"
    assert inner.indices.tolist() == [2, 4]
    assert np.array_equal(inner.images, dataset.images[[2, 4]])


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(8, 60), classes=st.integers(1, 8), held_out=st.integers(1, 7), seed=st.integers(0, 99)
)
def test_split_is_a_partition_and_balanced(count: int, classes: int, held_out: int, seed: int):
    dataset = make(count, classes)
    rest, out = dataset.split(held_out, seed)
    assert sorted([*rest.indices, *out.indices]) == list(range(count))
    assert len(out) == held_out
    assert np.all(np.diff(rest.indices) > 0)
    taken = np.bincount(out.labels, minlength=classes)
    exact = np.bincount(dataset.labels, minlength=classes) * held_out / count
    assert np.all(np.abs(taken - exact) < 1)


def test_split_depends_on_the_seed():
    dataset = make(200)
    draws = [dataset.split(40, seed)[1].indices.tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((20, 5, 7, 3), np.float32)}, "images have dtype float32; expected uint8"),
        (
            {"images": np.zeros((20, 3, 5, 7), np.uint8)},
            r"shape \(20, 3, 5, 7\); expected \(N, height, width, 3\)",
        ),
        ({"labels": np.zeros(20)}, "labels have dtype float64"),
        ({"labels": np.zeros(19, int)}, r"shape \(19,\); expected integers of shape \(20,\)"),
        ({"labels": np.full(20, 4)}, "labels run from 4 to 4 but there are 4 class names; expected 0 to 3"),
        ({"labels": np.full(20, -1)}, "labels run from -1"),
        ({"indices": np.full(20, -1)}, "indices contain -1"),
    ],
)
def test_bad_arrays_are_refused_with_what_came_and_what_was_expected(change: dict, message: str):
    good = make()
    arrays = {"images": good.images, "labels": good.labels, "indices": good.indices} | change
    with pytest.raises(InputError, match=message):
        ImageDataset("toy", arrays["images"], arrays["labels"], good.class_names, arrays["indices"])


@pytest.mark.parametrize(
    ("positions", "message"), [([20], "from 20 to 20; expected 0 to 19"), ([0.5], "integers")]
)
def test_bad_positions_are_refused(positions: list, message: str):
    with pytest.raises(InputError, match=message):
        make().subset(positions)


@pytest.mark.parametrize("held_out", [0, 20])
def test_a_split_leaves_something_on_both_sides(held_out: int):
    with pytest.raises(InputError, match="expected 1 to 19"):
        make().split(held_out, 0)

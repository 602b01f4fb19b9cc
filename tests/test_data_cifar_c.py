"""Reading corrupted images from files: official ones, our own, damaged ones and those of another set."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from warplca.configs.errors import InputError
from warplca.data import ImageDataset, corrupt, load_dataset, open_cifar_c, write_corruptions
from warplca.data.download import OFFICIAL_MD5

NAMES = ("fog", "contrast")


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    return load_dataset("cifar10-subset", "test").subset(range(300))


@pytest.fixture
def folder(dataset: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written")
    write_corruptions(dataset, path, names=NAMES, severities=(2, 5), seed=7)
    return path


def test_reading_what_was_written(dataset: ImageDataset, folder: Path):
    files = open_cifar_c(folder, dataset=dataset)
    assert files.names == NAMES
    assert files.severities == (2, 5)
    assert np.array_equal(files.labels, dataset.labels)
    images = files.images("fog", 5)
    assert isinstance(images, np.memmap)
    assert np.array_equal(images, corrupt(dataset.images, "fog", severity=5, seed=7, indices=dataset.indices))


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as one unpacks it: five severities, no note, MD5s known in advance."""
    generator = np.random.default_rng(0)
    labels = np.arange(20, dtype=np.uint8) % 10
    for name, spelling in (("fog", "fog"), ("glass_blur", "frosted_glass_blur")):
        np.save(tmp_path / f"{spelling}.npy", generator.integers(0, 256, (100, 8, 9, 3), dtype=np.uint8))
        digest = hashlib.md5((tmp_path / f"{spelling}.npy").read_bytes()).hexdigest()
        monkeypatch.setitem(OFFICIAL_MD5, name, digest)
    np.save(tmp_path / "labels.npy", np.tile(labels, 5))
    return tmp_path


def clean(**change: object) -> ImageDataset:
    arrays = {"images": np.zeros((20, 8, 9, 3), np.uint8), "labels": np.arange(20) % 10} | change
    return ImageDataset("clean", class_names=tuple("abcdefghij"), **arrays)  # type: ignore[arg-type]


def test_official_files_and_foreign_names(official: Path):
    files = open_cifar_c(official, dataset=clean())
    assert files.names == ("glass_blur", "fog")
    raw = np.load(official / "frosted_glass_blur.npy", allow_pickle=False)
    for name in ("glass_blur", "frosted_glass_blur"):
        assert np.array_equal(files.images(name, 4), raw[60:80])


def test_a_subset_reads_its_own_rows_in_its_own_order(official: Path):
    files = open_cifar_c(official, dataset=clean().subset([13, 2]))
    raw = np.load(official / "fog.npy", allow_pickle=False)
    assert np.array_equal(files.images("fog", 2), raw[[33, 22]])
    assert files.labels.tolist() == [3, 2]


def test_an_altered_file_is_refused_on_first_use_without_consent(official: Path):
    path = official / "fog.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    files = open_cifar_c(official)
    assert files.images("glass_blur", 1).shape == (20, 8, 9, 3)
    with pytest.raises(InputError, match=r"fog\.npy was altered: its md5 is .*, expected"):
        files.images("fog", 1)
    assert open_cifar_c(official, verify=False).images("fog", 1).shape == (20, 8, 9, 3)


def test_an_unlisted_file_counts_as_interrupted(folder: Path):
    (folder / "snow.npy").write_bytes((folder / "fog.npy").read_bytes())
    with pytest.raises(InputError, match=r"writing .*snow\.npy was interrupted"):
        open_cifar_c(folder).images("snow", 2)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(official: Path, share: float):
    path = official / "fog.npy"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=r"fog\.npy is truncated"):
        open_cifar_c(official)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((100, 8, 9, 3), np.float32), r"dtype float32 and shape \(100, 8, 9, 3\); expected uint8"),
        (np.zeros((80, 8, 9, 3), np.uint8), r"shape \(80, 8, 9, 3\); expected uint8 \(100, 8, 9, 3\)"),
        (np.zeros((100, 3, 8, 9), np.uint8), r"shape \(100, 3, 8, 9\)"),
    ],
)
def test_a_file_of_another_form_is_named(official: Path, array: np.ndarray, message: str):
    np.save(official / "fog.npy", array)
    with pytest.raises(InputError, match=rf"fog\.npy has .*{message}"):
        open_cifar_c(official)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(99, np.uint8), r"labels\.npy has dtype uint8 and shape \(99,\)"),
        (np.zeros(100), r"labels\.npy has dtype float64"),
        (np.arange(100), "the labels of the severities differ"),
    ],
)
def test_odd_labels_are_refused(official: Path, labels: np.ndarray, message: str):
    np.save(official / "labels.npy", labels)
    with pytest.raises(InputError, match=message):
        open_cifar_c(official)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": (np.arange(20) + 1) % 10},
            "differ from those of clean at 20 of 20 images, first at image 0",
        ),
        ({"images": np.zeros((20, 8, 8, 3), np.uint8)}, r"expected uint8 \(100, 8, 8, 3\)"),
        (
            {"images": np.zeros((30, 8, 9, 3), np.uint8), "labels": np.arange(30) % 10},
            "corruptions of 20 images but clean reaches image 29",
        ),
    ],
)
def test_another_data_set_is_refused(official: Path, change: dict, message: str):
    with pytest.raises(InputError, match=message):
        open_cifar_c(official, dataset=clean(**change))


def test_what_is_not_there_is_listed(official: Path, folder: Path):
    with pytest.raises(InputError, match=r"lacks brightness\.npy, elastic_transform\.npy; get or make them"):
        open_cifar_c(official, names=["fog", "elastic", "brightness"])
    files = open_cifar_c(folder, names=["fog"])
    with pytest.raises(InputError, match=r"holds no snow\.npy; it holds fog"):
        files.images("snow", 2)
    with pytest.raises(InputError, match=r"hold severities \(2, 5\); asked for 3"):
        files.images("fog", 3)
    with pytest.raises(InputError, match="the severity is 9"):
        files.images("fog", 9)
    empty = official / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"labels\.npy is missing"):
        open_cifar_c(empty)
    np.save(empty / "labels.npy", np.zeros(5, int))
    with pytest.raises(InputError, match="holds no corruption files"):
        open_cifar_c(empty)

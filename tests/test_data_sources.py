"""Reading data sets: the embedded subset, .npz files, image folders, torchvision's folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from warplca.configs.atomic import file_written_whole
from warplca.configs.errors import InputError
from warplca.data import ImageDataset, load_dataset, save_npz, subset


def toy(seed: int, count: int = 6) -> ImageDataset:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, 5, 7, 3), dtype=np.uint8)
    return ImageDataset("toy", images, np.arange(count) % 2, ("cat", "dog"))


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    path = tmp_path / "toy.npz"
    save_npz(path, toy(1), toy(2))
    return path


def test_npz_round_trip(npz: Path):
    for split, seed in (("train", 1), ("test", 2)):
        loaded = load_dataset(npz, split)
        assert loaded.fingerprint == toy(seed).fingerprint
        assert loaded.class_names == ("cat", "dog")
        assert loaded.name == f"toy-{split}"
    assert [file.name for file in npz.parent.iterdir()] == ["toy.npz"]
    with np.load(npz, allow_pickle=False) as file:  # old versions of NumPy take unknown options for arrays
        assert len(file.files) == 5


def test_splits_with_other_classes_cannot_be_saved_together(tmp_path: Path):
    other = ImageDataset("other", toy(1).images, toy(1).labels, ("cat", "cow"))
    with pytest.raises(InputError, match="different classes"):
        save_npz(tmp_path / "x.npz", toy(1), other)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_npz_is_refused(npz: Path, share: float):
    content = npz.read_bytes()
    npz.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"toy\.npz cannot be read as a data set: it is truncated"):
        load_dataset(npz, "test")


def test_a_flipped_byte_in_the_pixels_is_noticed(npz: Path):
    content = bytearray(npz.read_bytes())
    content[content.find(toy(2).images.tobytes()) + 100] ^= 255
    npz.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        load_dataset(npz, "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_images": toy(2).images.astype(np.float32)}, "dtype float32; expected uint8"),
        ({"test_labels": np.arange(6)}, "labels run from 0 to 5 but there are 2 class names"),
        ({"class_names": np.array([["cat", "dog"]])}, "class_names have dtype"),
        ({"class_names": np.array(["cat", {"dog": 1}], dtype=object)}, "holds Python objects"),
        ({"test_labels": None}, "has no array 'test_labels'; it holds"),
    ],
)
def test_wrong_contents_are_named(tmp_path: Path, change: dict, message: str):
    arrays = {
        "test_images": toy(2).images,
        "test_labels": toy(2).labels,
        "class_names": np.array(["cat", "dog"]),
    } | change
    np.savez(tmp_path / "x.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(InputError, match=message):
        load_dataset(tmp_path / "x.npz", "test")


def test_a_single_array_is_no_data_set(tmp_path: Path):
    np.save(tmp_path / "x.npy", toy(1).images)
    with pytest.raises(InputError, match="holds a single array"):
        load_dataset(tmp_path / "x.npy", "test")


def test_unknown_sources_and_splits_list_what_is_known():
    with pytest.raises(InputError, match="there is no data set 'cifar99'; expected 'cifar10-subset'"):
        load_dataset("cifar99", "test")
    with pytest.raises(InputError, match="unknown split 'tset'; did you mean 'test'"):
        load_dataset("cifar10-subset", "tset")  # type: ignore[arg-type]


def test_embedded_subset_is_balanced_genuine_and_knows_its_origin():
    train, test = (load_dataset("cifar10-subset", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (4000, 1000)
    assert np.bincount(train.labels).tolist() == [400] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    assert train.class_names[0] == "airplane"
    assert train.indices.max() < 50_000
    assert test.indices.max() < 10_000
    # The first image of CIFAR-10's test batch that was chosen, as its publishers have it.
    assert test.indices[0] == 7
    assert hashlib.sha256(test.images[0].tobytes()).hexdigest().startswith("42c6925e1c4b63cf")


def test_an_altered_embedded_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    content = bytearray(subset.SUBSET_FILE.read_bytes())
    content[5000] ^= 1
    (tmp_path / "x.npz").write_bytes(content)
    monkeypatch.setattr(subset, "SUBSET_FILE", tmp_path / "x.npz")
    with pytest.raises(InputError, match="was altered"):
        load_dataset("cifar10-subset", "test")
    monkeypatch.setattr(subset, "SUBSET_FILE", tmp_path / "missing.npz")
    with pytest.raises(InputError, match="cannot be read"):
        load_dataset("cifar10-subset", "test")


def test_subset_files_are_lossless_for_any_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    generator = np.random.default_rng(0)

    def noise(count: int) -> ImageDataset:
        images = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        return ImageDataset("noise", images, np.arange(count) % 3, ("a", "b", "c"), np.arange(count) * 7)

    train, test = noise(53), noise(50)
    digest = subset.write_subset(tmp_path / "x.npz", train, test)
    monkeypatch.setattr(subset, "SUBSET_FILE", tmp_path / "x.npz")
    monkeypatch.setattr(subset, "SUBSET_SHA256", digest)
    for split, original in (("train", train), ("test", test)):
        loaded = subset.read_subset(split)
        assert loaded.fingerprint == original.fingerprint
        assert np.array_equal(loaded.indices, original.indices)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for split, kind, name in (
        ("train", "cat", "a.png"),
        ("train", "dog", "b.PNG"),
        ("train", "emu", "c.bmp"),
        ("test", "emu", "d.png"),
        ("test", "cat", "notes.txt"),
    ):
        (tmp_path / split / kind).mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        if name == "notes.txt":
            (tmp_path / split / kind / name).write_text("no image")
        else:
            Image.fromarray(pixels).save(tmp_path / split / kind / name)
    return tmp_path


def test_image_folder_labels_are_those_of_both_splits_together(folder: Path):
    train, test = load_dataset(folder, "train"), load_dataset(str(folder), "test")
    assert train.class_names == test.class_names == ("cat", "dog", "emu")
    assert train.labels.tolist() == [0, 1, 2]
    assert test.labels.tolist() == [2]
    with Image.open(folder / "test" / "emu" / "d.png") as image:
        assert np.array_equal(test.images[0], np.asarray(image))


def test_an_image_of_another_size_is_named(folder: Path):
    Image.new("RGB", (8, 5)).save(folder / "train" / "dog" / "z.png")
    with pytest.raises(
        InputError, match=r"z\.png is 8 x 5 pixels but .*a\.png is 7 x 5; expected images of one size"
    ):
        load_dataset(folder, "train")


def test_a_damaged_image_is_named(folder: Path):
    path = folder / "train" / "cat" / "a.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=r"a\.png cannot be read as an image"):
        load_dataset(folder, "train")


def test_a_folder_without_images_is_explained(tmp_path: Path):
    with pytest.raises(InputError, match="holds no images in test/<class>/"):
        load_dataset(tmp_path, "test")


def test_torchvision_folder_without_data_says_how_to_get_it(tmp_path: Path):
    with pytest.raises(InputError, match="Use 'torchvision-download:"):
        load_dataset(f"torchvision:{tmp_path}", "test")


def test_a_tampered_torchvision_batch_is_never_unpickled(tmp_path: Path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("test_batch", "batches.meta", *(f"data_batch_{i}" for i in range(1, 6))):
        (folder / name).write_bytes(b"cos\nabort\n(tR.")  # unpickling this would end the process
    with pytest.raises(InputError, match="no intact CIFAR-10"):
        load_dataset(f"torchvision:{tmp_path}", "test")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path):
    target = tmp_path / "file"
    target.write_text("old")

    def write_half() -> None:
        with file_written_whole(target) as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"cannot write .*No space left"):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]

"""The files and classes of a folder against torchvision's and timm's readers, and what no reader may take for data."""

from __future__ import annotations

import logging
import os
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timm.data.readers.reader_factory import create_reader
from torchvision.datasets import ImageFolder

from warplca.configs import InputError
from warplca.data import load_dataset
from warplca.data.files import FileImages

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
CLASSES = ("class2", "class10", "Zebra", "ant", "ärmel", "b c", "0", "1", "10")


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS).save(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes whose orders differ between sorts, nested folders, odd suffixes."""
    root, draw = tmp_path_factory.mktemp("lists"), random.Random(5)
    for split in ("train", "test"):
        for name in CLASSES:
            for number in range(draw.randrange(1, 5)):
                suffix = draw.choice([".png", ".PNG", ".jpg", ".JPeg", ".bmp", ".webp"])
                save(root / split / name / f"{draw.choice(['', 'x', 'A'])}{number}{suffix}")
            save(root / split / name / "inner" / "deep.png")
    return root


def ours(root: Path, split: str = "train") -> tuple[list[str], list[str], tuple[str, ...]]:
    dataset = load_dataset(f"files:8:{root}", split)  # type: ignore[arg-type]
    assert isinstance(dataset.images, FileImages)
    return dataset.images.files, [dataset.class_names[label] for label in dataset.labels], dataset.class_names


@pytest.mark.parametrize("split", ["train", "test"])
def test_files_labels_and_order_are_torchvisions(root: Path, split: str) -> None:
    files, labels, names = ours(root, split)
    theirs = ImageFolder(str(root / split))
    assert list(names) == theirs.classes
    assert files == [file for file, _ in theirs.samples]
    assert dict(zip(files, labels, strict=True)) == {
        file: theirs.classes[label] for file, label in theirs.samples
    }
    whole = load_dataset(root, split)  # type: ignore[arg-type]
    assert whole.class_names == names
    assert [names[label] for label in whole.labels] == labels


def test_files_and_names_are_timms_whose_order_is_another(root: Path) -> None:
    flat = root.parent / "flat"
    for name in CLASSES:
        save(flat / "train" / name / "a.png")
    files, labels, names = ours(flat)
    reader = create_reader("", str(flat / "train"))
    theirs = {number: name for name, number in reader.class_to_idx.items()}  # type: ignore[attr-defined]
    assert dict(zip(files, labels, strict=True)) == {file: theirs[label] for file, label in reader.samples}  # type: ignore[attr-defined]
    assert set(names) == set(theirs.values())
    assert names.index("class10") < names.index(
        "class2"
    )  # timm's sort puts 2 first: labels go by name, see own_data


def test_litter_is_no_class_and_no_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            save(tmp_path / split / name / "a.png")
        save(tmp_path / split / ".ipynb_checkpoints" / "a.png")
        save(tmp_path / split / "__MACOSX" / "a.png")
        save(tmp_path / split / "ant" / ".ipynb_checkpoints" / "a-checkpoint.png")
        (tmp_path / split / "ant" / "._a.png").write_bytes(b"\x00\x05")
        (tmp_path / split / "bee" / "notes.txt").write_text("mine")
    (tmp_path / "train" / "ant" / "loop").symlink_to(tmp_path / "train")
    os.unlink(tmp_path / "train" / "ant" / "loop")
    (tmp_path / "train" / "ant" / "loop").symlink_to(tmp_path / "train" / "ant")
    for source in (str(tmp_path), f"files:8:{tmp_path}"):
        for split in ("train", "test"):
            with caplog.at_level(logging.WARNING):
                dataset = load_dataset(source, split)  # type: ignore[arg-type]
            assert dataset.class_names == ("ant", "bee")
            assert dataset.labels.tolist() == [0, 1]
    assert "passed over 1 files" in caplog.text
    assert "notes.txt" in caplog.text


@pytest.mark.parametrize("suffix", [".jfif", ".avif", ".jpe", ".tga", ".pgm"])
def test_no_kind_of_picture_is_dropped_beside_png(tmp_path: Path, suffix: str) -> None:
    for name in ("ant", "bee"):
        save(tmp_path / "train" / name / "a.png")
    path = tmp_path / "train" / "bee" / f"b{suffix}"
    kind = {".jfif": "JPEG", ".avif": "AVIF", ".jpe": "JPEG", ".tga": "TGA", ".pgm": "PPM"}[suffix]
    Image.fromarray(PIXELS).convert("L" if suffix == ".pgm" else "RGB").save(path, kind)
    assert len(load_dataset(tmp_path, "train")) == 3
    path.rename(path.with_suffix(".heic"))
    path.with_suffix(".heic").write_bytes(b"unknown to Pillow")
    with pytest.raises(InputError, match=r"b\.heic cannot be read as an image"):
        load_dataset(tmp_path, "train")


def test_an_empty_class_is_named_itself(tmp_path: Path) -> None:
    for split in ("train", "val"):
        save(tmp_path / split / "ant" / "a.png")
    (tmp_path / "train" / "bee").mkdir()
    for source in (str(tmp_path), f"files:8:{tmp_path}"):
        with pytest.raises(InputError, match=r"train.bee holds no images to train on"):
            load_dataset(source, "train")
        assert load_dataset(source, "test").class_names == ("ant", "bee")

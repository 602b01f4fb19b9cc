"""Reading a data set from wherever the user has it."""

from __future__ import annotations

import urllib.error
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from ..configs.atomic import file_written_whole
from ..configs.errors import InputError, unknown_name
from .dataset import ImageDataset
from .files import IMAGE_SUFFIXES, FileImages, find_files, read_image
from .subset import SUBSET_NAME, read_subset

Split = Literal["train", "test"]
SPLITS = ("train", "test")
FORMATS = (
    f"{SUBSET_NAME!r}, an .npz file, 'torchvision:FOLDER', 'torchvision-download:FOLDER', "
    "a folder with train/<class>/ and test/<class>/, or 'files:SIZE:FOLDER', which leaves the images there"
)


def load_dataset(source: str | Path, split: Split) -> ImageDataset:
    """Read one split of a data set.

    Args:
        source: ``"cifar10-subset"`` (embedded), the path of an ``.npz`` file with the arrays
            ``train_images``, ``train_labels``, ``test_images``, ``test_labels``, ``class_names``,
            ``"torchvision:FOLDER"`` (the root of ``torchvision.datasets.CIFAR10``;
            ``"torchvision-download:FOLDER"`` downloads it first), or a folder of images laid out
            as ``train/<class>/*`` and ``test/<class>/*``, all of one size. ``"files:224:FOLDER"`` leaves the images of
            such a folder (``val/`` may stand for ``test/``) on disk, whatever their sizes: each is read when it is
            needed, scaled to 224 pixels and cut out of the middle.
        split: ``"train"`` or ``"test"``.

    Raises:
        InputError: there is no such source or split, or it is damaged or of another form.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    text = str(source)
    return replace(_read(text, split), source=text)


def _read(text: str, split: Split) -> ImageDataset:
    if not text.strip():
        raise InputError(f"the name of the data set is empty; expected {FORMATS}.")
    if text == SUBSET_NAME:
        return read_subset(split)
    scheme, _, rest = text.partition(":")
    if scheme in ("torchvision", "torchvision-download") and rest:
        return _read_torchvision(Path(rest).expanduser(), split, download=scheme.endswith("download"))
    if scheme == "files":
        return _open_files(rest, split)
    path = Path(text).expanduser()
    if path.is_dir():
        return _read_folder(path, split)
    if not path.exists():
        raise InputError(f"there is no data set {text!r}; expected {FORMATS}.")
    return _read_npz(path, split)


def save_npz(path: str | Path, train: ImageDataset, test: ImageDataset, *, overwrite: bool = False) -> None:
    """Write both splits to one ``.npz`` file that ``load_dataset`` reads, atomically.

    Args:
        path: The file.
        train: Training images.
        test: Test images, of the same classes.
        overwrite: Whether a file that is there already is replaced.

    Raises:
        InputError: the splits differ in their classes, or the file is there already or cannot be written.
    """
    if train.class_names != test.class_names:
        raise InputError(
            f"{train.name} and {test.name} have different classes ({len(train.class_names)} and "
            f"{len(test.class_names)}); expected the same names in the same order."
        )
    target = Path(path).expanduser()
    if target.exists() and not overwrite:
        raise InputError(f"{target} is there already; choose another name, or give overwrite=True.")
    with file_written_whole(target) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            allow_pickle=False,
            train_images=train.images[:],
            train_labels=train.labels,
            test_images=test.images[:],
            test_labels=test.labels,
            class_names=np.array(train.class_names),
        )


def _read_npz(path: Path, split: Split) -> ImageDataset:
    wanted = (f"{split}_images", f"{split}_labels", "class_names")
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise InputError(f"{path} holds a single array; expected an .npz file with {', '.join(wanted)}.")
        with file:
            missing = [name for name in wanted if name not in file.files]
            if missing:
                raise InputError(
                    f"{path} has no array {missing[0]!r}; it holds {', '.join(file.files) or 'nothing'}, "
                    f"expected {', '.join(wanted)}."
                )
            images, labels, class_names = (file[name] for name in wanted)
    except InputError:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read as a data set: it is truncated, damaged or holds Python objects "
            f"({error}); expected an .npz file of plain arrays. Make or copy it again."
        ) from error
    if class_names.ndim != 1 or class_names.dtype.kind != "U":
        raise InputError(
            f"{path}: class_names have dtype {class_names.dtype} and shape {class_names.shape}; "
            "expected a list of text."
        )
    return ImageDataset(f"{path.stem}-{split}", images, labels, tuple(class_names))


def _read_torchvision(root: Path, split: Split, *, download: bool) -> ImageDataset:
    from torchvision.datasets import CIFAR10

    try:
        dataset = CIFAR10(root, train=split == "train", download=download)
    except (RuntimeError, urllib.error.URLError, OSError) as error:
        advice = (
            "Check the network, or copy the extracted cifar-10-batches-py folder there."
            if download
            else f"Use 'torchvision-download:{root}' to download it."
        )
        raise InputError(
            f"{root} holds no intact CIFAR-10 in torchvision's layout ({error}). {advice}"
        ) from error
    return ImageDataset(f"cifar10-{split}", dataset.data, np.array(dataset.targets), tuple(dataset.classes))


def _read_folder(root: Path, split: Split) -> ImageDataset:
    # Names come from both splits, so that a class missing from one does not shift the labels.
    class_names = sorted({folder.name for part in SPLITS for folder in _folders(root / part)})
    files = [
        (file, class_names.index(folder.name))
        for folder in _folders(root / split)
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not files:
        raise InputError(
            f"{root} holds no images in {split}/<class>/; expected one folder of images a class."
        )
    height, width = read_image(files[0][0]).shape[:2]
    images = np.empty((len(files), height, width, 3), dtype=np.uint8)
    for row, (file, _) in enumerate(tqdm(files, desc=f"reading {root / split}", unit="image", delay=2)):
        pixels = read_image(file)
        if pixels.shape != images.shape[1:]:
            raise InputError(
                f"{file} is {pixels.shape[1]} x {pixels.shape[0]} pixels but {files[0][0]} is {width} x {height}; "
                "expected images of one size. Resize them first."
            )
        images[row] = pixels
    labels = np.array([label for _, label in files])
    return ImageDataset(f"{root.name}-{split}", images, labels, tuple(class_names))


def _open_files(text: str, split: Split) -> ImageDataset:
    size, _, folder = text.partition(":")
    root = Path(folder).expanduser()
    if not (size.isdecimal() and int(size) and folder and root.is_dir()):
        raise InputError(
            f"'files:{text}' names no size and folder; write for instance files:224:/data/imagenet, a folder with "
            "train/<class>/ and val/<class>/."
        )
    test = next((root / name for name in ("test", "val") if (root / name).is_dir()), root / "test")
    files, labels, class_names = find_files(root / "train" if split == "train" else test)
    other = {folder.name for folder in _folders(test if split == "train" else root / "train")}
    if other and other != set(class_names):
        raise InputError(
            f"{root} has other classes in train than in {test.name} (first {sorted(other ^ set(class_names))[0]!r}); "
            "expected the same folders in both."
        )
    return ImageDataset(
        f"{root.name}-{split}", FileImages(files, (int(size), int(size))), labels, class_names
    )


def _folders(parent: Path) -> list[Path]:
    return sorted(child for child in parent.iterdir() if child.is_dir()) if parent.is_dir() else []

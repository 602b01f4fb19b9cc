"""Reading a data set from wherever the user has it."""

from __future__ import annotations

import urllib.error
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..configs.atomic import file_written_whole
from ..configs.errors import InputError, unknown_name
from ..configs.progress import Bar
from ..configs.untrusted import check_zip, plain_file
from .dataset import ImageDataset
from .files import FileImages, class_folders, list_images, read_image
from .subset import SUBSET_NAME, read_subset

Split = Literal["train", "test"]
SPLITS = ("train", "test")
FORMATS = (
    f"{SUBSET_NAME!r}, an .npz file, 'torchvision:FOLDER', 'torchvision-download:FOLDER', "
    "a folder with train/<class>/ and test/<class>/, or 'files:SIZE:FOLDER', which leaves the images there"
)


_BROKEN = (zipfile.BadZipFile, zlib.error, SyntaxError, TypeError, KeyError, RuntimeError, OverflowError)
"""Errors that numpy raises on damaged archives and headers."""


def load_dataset(source: str | Path, split: Split) -> ImageDataset:
    """Read one split of a data set.

    Args:
        source: ``"cifar10-subset"`` (embedded), the path of an ``.npz`` file with the arrays
            ``train_images``, ``train_labels``, ``test_images``, ``test_labels``, ``class_names``,
            ``"torchvision:FOLDER"`` (the root of ``torchvision.datasets.CIFAR10``;
            ``"torchvision-download:FOLDER"`` downloads it first), or a folder of images laid out as
            ``train/<class>/`` and ``test/<class>/`` (or ``val/``), all of one size; pictures in folders inside a class
            are of that class, hidden files are passed over. ``"files:224:FOLDER"`` leaves the images on disk, whatever
            their sizes: each is read when it is needed, scaled to 224 pixels and cut out of the middle.
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
            train_images=train.images[:],
            train_labels=train.labels,
            test_images=test.images[:],
            test_labels=test.labels,
            class_names=np.array(train.class_names),
        )


def _read_npz(path: Path, split: Split) -> ImageDataset:
    wanted = (f"{split}_images", f"{split}_labels", "class_names")
    plain_file(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                check_zip(archive, path)
        file = np.load(
            path, mmap_mode="r", allow_pickle=False
        )  # a single array is refused below, and not read
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
    except (OSError, EOFError, ValueError, MemoryError, NotImplementedError, *_BROKEN) as error:
        raise InputError(
            f"{path} cannot be read as a data set: it is truncated, damaged or holds Python objects "
            f"({error}); expected an .npz file of plain arrays. Make or copy it again."
        ) from error
    if class_names.ndim != 1 or class_names.dtype.kind != "U":
        raise InputError(
            f"{path}: class_names have dtype {class_names.dtype} and shape {class_names.shape}; "
            "expected a list of text."
        )
    if images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 1):  # grey, as MNIST has it
        images = np.repeat(images.reshape(*images.shape[:3], 1), 3, axis=3)
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
    files, labels, class_names = _listed(root, split)
    height, width = read_image(files[0]).shape[:2]
    images = np.empty((len(files), height, width, 3), dtype=np.uint8)
    for row, file in enumerate(Bar(files, desc=f"reading {root / split}", unit="image", delay=2)):
        pixels = read_image(file)
        if pixels.shape != images.shape[1:]:
            raise InputError(
                f"{file} is {pixels.shape[1]} x {pixels.shape[0]} pixels but {files[0]} is {width} x {height}; "
                f"expected images of one size. Give files:{min(*pixels.shape[:2], height, width)}:{root}, which "
                "scales and cuts them as they are read, or another size."
            )
        images[row] = pixels
    return ImageDataset(f"{_name(root)}-{split}", images, labels, class_names)


def _open_files(text: str, split: Split) -> ImageDataset:
    size, _, folder = text.partition(":")
    root = Path(folder).expanduser()
    if not (size.isdecimal() and 0 < int(size) < 2**14 and folder and root.is_dir()):
        raise InputError(
            f"'files:{text}' names no size and folder; write for instance files:224:/data/imagenet, a folder with "
            "train/<class>/ and val/<class>/."
        )
    files, labels, class_names = _listed(root, split)
    return ImageDataset(
        f"{_name(root)}-{split}", FileImages(files, (int(size), int(size))), labels, class_names
    )


def _listed(root: Path, split: Split) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    """Return the files of one split, their labels and the names of the classes, by one rule for both readers.

    Classes are the folders of both splits together, in the order of their names, so that one without test images does
    not shift the labels.

    Raises:
        InputError: If there are no images, or a class has none to train on.
    """
    test = next((root / name for name in ("test", "val") if (root / name).is_dir()), root / "test")
    place = root / "train" if split == "train" else test
    class_names = sorted({folder.name for part in (root / "train", test) for folder in class_folders(part)})
    found = {name: list_images(place / name) if (place / name).is_dir() else [] for name in class_names}
    if not any(found.values()):
        raise InputError(
            f"{root} holds no images in {place.name}/<class>/; expected one folder of images a class."
        )
    empty = [name for name, files in found.items() if not files]
    if split == "train" and empty:
        raise InputError(
            f"{place / empty[0]} holds no images to train on, and {root} has a class {empty[0]!r}; add some, or remove "
            f"that folder from train and {test.name}."
        )
    files = [file for group in found.values() for file in group]
    labels = np.repeat(np.arange(len(class_names)), [len(group) for group in found.values()])
    return files, labels, tuple(class_names)


def _name(root: Path) -> str:
    return root.resolve().name or "images"

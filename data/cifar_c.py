"""Reading corrupted images from files in the layout of CIFAR-10-C, without loading them into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..configs.errors import InputError
from .corruptions.generate import SEVERITIES, check_severity
from .corruptions.table import ALIASES, CORRUPTIONS, canonical_name
from .corruptions.write import MANIFEST, Manifest
from .dataset import ImageDataset
from .download import OFFICIAL_MD5


@dataclass(frozen=True, eq=False)
class CorruptedFiles:
    """Corrupted copies of one data set, a file for each corruption.

    Attributes:
        folder: Folder of the files.
        severities: Severities that each file holds, in the order of its blocks of rows.
        labels: int64, (N,): the labels of the images that ``images`` returns.
        rows: int64, (N,): which rows of a block those images are.
    """

    folder: Path
    severities: tuple[int, ...]
    labels: np.ndarray
    rows: np.ndarray
    _paths: dict[str, Path]
    _checksums: dict[str, tuple[str, str]] | None
    _block: int
    _verified: set[str] = field(default_factory=set)

    @property
    def names(self) -> tuple[str, ...]:
        """The corruptions there are, in the order of ``CORRUPTIONS``."""
        return tuple(self._paths)

    def images(self, name: str, severity: int) -> np.ndarray:
        """Return the images of one corruption and severity: uint8, (N, H, W, 3), read when touched.

        Raises:
            InputError: there is no such file or severity, or the file's checksum is wrong.
        """
        name = canonical_name(name)
        check_severity(severity)
        if name not in self._paths:
            raise InputError(f"{self.folder} holds no {name}.npy; it holds {', '.join(self.names)}.")
        if severity not in self.severities:
            raise InputError(
                f"the files in {self.folder} hold severities {self.severities}; asked for {severity}."
            )
        self._verify(name)
        start = self.severities.index(severity) * self._block
        block = _load(self._paths[name], memory_map=True)[start : start + self._block]
        whole = len(self.rows) == self._block and np.array_equal(self.rows, np.arange(self._block))
        return block if whole else block[self.rows]

    def _verify(self, name: str) -> None:
        if self._checksums is None or name in self._verified:
            return
        path = self._paths[name]
        if name not in self._checksums:
            raise InputError(f"writing {path} was interrupted: {MANIFEST} does not list it. Make it again.")
        algorithm, expected = self._checksums[name]
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, algorithm).hexdigest()
        if found != expected:
            raise InputError(
                f"{path} was altered: its {algorithm} is {found}, expected {expected}. Get it again, or pass "
                "verify=False if it is meant to differ from the official CIFAR-10-C."
            )
        self._verified.add(name)


def open_cifar_c(
    folder: str | Path,
    *,
    names: Sequence[str] | None = None,
    dataset: ImageDataset | None = None,
    verify: bool = True,
) -> CorruptedFiles:
    """Open the official CIFAR-10-C, or files that ``write_corruptions`` made.

    Args:
        folder: Holds ``labels.npy`` and ``<corruption>.npy``; the names of TensorFlow Datasets are
            understood too.
        names: Corruptions that must be there; unless given, all that are.
        dataset: The clean images. Given, the files' labels and image size are checked against it,
            and where it is a subset only its images are returned, in its order.
        verify: Compare each file's checksum, when it is first used, with the official MD5 or, where
            ``write_corruptions`` left a ``corruptions.json``, with that. Takes about 0.3 s a file.

    Raises:
        InputError: a file is missing, truncated, of another shape or type, or the labels do not match.
    """
    folder = Path(folder).expanduser()
    manifest = Manifest.read(folder)
    severities = manifest.severities if manifest else SEVERITIES
    labels = _read_labels(folder / "labels.npy", severities)
    wanted = CORRUPTIONS if names is None else {canonical_name(name) for name in names}
    found = {name: _path(folder, name) for name in CORRUPTIONS if name in wanted}
    paths = {name: path for name, path in found.items() if path}
    if names is not None and len(paths) < len(found):
        absent = ", ".join(f"{name}.npy" for name in found if name not in paths)
        raise InputError(f"{folder} lacks {absent}; get or make them first.")
    if not paths:
        raise InputError(f"{folder} holds no corruption files; expected files such as fog.npy.")
    for path in paths.values():
        _check_file(path, len(severities) * len(labels), dataset)
    checksums = None
    if verify and manifest:
        checksums = {name: ("sha256", entry["sha256"]) for name, entry in manifest.files.items()}
    elif verify:
        checksums = {name: ("md5", digest) for name, digest in OFFICIAL_MD5.items()}
    rows = np.arange(len(labels)) if dataset is None else _match(dataset, folder, labels, manifest)
    return CorruptedFiles(folder, tuple(severities), labels[rows], rows, paths, checksums, len(labels))


def _path(folder: Path, name: str) -> Path | None:
    spellings = [name, *(alias for alias, known in ALIASES.items() if known == name)]
    paths = [folder / f"{spelling}.npy" for spelling in spellings]
    return next((path for path in paths if path.exists()), None)


def _check_file(path: Path, rows: int, dataset: ImageDataset | None) -> None:
    array = _load(path, memory_map=True)
    expected = (rows, *(dataset.size if dataset else array.shape[1:3]), 3)
    if array.dtype != np.uint8 or array.shape != expected:
        raise InputError(
            f"{path} has dtype {array.dtype} and shape {array.shape}; expected uint8 {expected}: "
            f"{rows} RGB images of one size."
        )


def _read_labels(path: Path, severities: Sequence[int]) -> np.ndarray:
    if not path.exists():
        raise InputError(f"{path} is missing; expected the folder of CIFAR-10-C with labels.npy in it.")
    labels = _load(path, memory_map=False)
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1 or len(labels) % len(severities):
        raise InputError(
            f"{path} has dtype {labels.dtype} and shape {labels.shape}; expected integers, the same labels "
            f"{len(severities)} times, once for each severity."
        )
    blocks = labels.reshape(len(severities), -1)
    if np.any(blocks != blocks[0]):
        raise InputError(
            f"{path}: the labels of the severities differ; expected the same block {len(blocks)} times."
        )
    return blocks[0].astype(np.int64)


def _load(path: Path, *, memory_map: bool) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(
            f"{path} is truncated or no .npy file of plain numbers ({error}); get or make it again."
        ) from error


def _match(dataset: ImageDataset, folder: Path, labels: np.ndarray, manifest: Manifest | None) -> np.ndarray:
    """Return the rows of a block that hold the data set's images."""
    made_from_it = manifest is not None and manifest.fingerprint == dataset.fingerprint
    rows = np.arange(len(dataset)) if made_from_it else dataset.indices
    if len(rows) and rows.max() >= len(labels):
        raise InputError(
            f"{folder} holds corruptions of {len(labels)} images but {dataset.name} reaches image {rows.max()}; "
            "expected the same data set."
        )
    wrong = np.flatnonzero(labels[rows] != dataset.labels)
    if len(wrong):
        raise InputError(
            f"the labels in {folder} differ from those of {dataset.name} at {len(wrong)} of {len(rows)} images, "
            f"first at image {rows[wrong[0]]}; expected the same data set in the same order."
        )
    return rows

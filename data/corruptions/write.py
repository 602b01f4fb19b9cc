"""Write corrupted images in the layout of the official CIFAR-10-C, with a manifest of what the files are."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from ...configs.atomic import file_written_whole, only_one
from ...configs.errors import InputError
from ...configs.integrity import sha256
from ...configs.progress import Bar
from ...configs.untrusted import read_json
from ..dataset import ImageDataset
from .generate import SEVERITIES, Scale, check_severity, corrupt, default_scale
from .table import STANDARD_CORRUPTIONS, agreement, canonical_name

MANIFEST = "corruptions.json"

FORMAT = 1


@dataclass
class Manifest:
    """The origin of a folder of generated files.

    Attributes:
        dataset: Name of the data set.
        fingerprint: ``ImageDataset.fingerprint`` of the images.
        images: Number of images in each severity.
        severities: In the order of the files' blocks of rows.
        seed: Seed of the randomness.
        scale: ``"cifar"`` or ``"imagenet"``.
        files: For each corruption its file's SHA-256 and how it agrees with the official images.
        format: Version of this note.
    """

    dataset: str
    fingerprint: str
    images: int
    severities: tuple[int, ...]
    seed: int
    scale: Scale
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def describe(cls, dataset: ImageDataset, severities: Sequence[int], seed: int, scale: Scale) -> Manifest:
        """Describe files that are about to be made."""
        return cls(dataset.name, dataset.fingerprint, len(dataset), tuple(severities), seed, scale)

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """Read the note in ``folder``; None where there is none.

        Raises:
            InputError: it is damaged or of another version.
        """
        path = folder / MANIFEST
        if not path.exists():
            return None
        try:
            fields = read_json(path)
            fields["severities"] = tuple(fields["severities"])
            manifest = cls(**fields)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{path} is damaged ({error}); delete it and the files beside it and make them again."
            ) from error
        if manifest.format != FORMAT:
            raise InputError(f"{path} has format {manifest.format}; this version of warplca reads {FORMAT}.")
        return manifest

    def write(self, folder: Path) -> None:
        """Write the note into ``folder``, atomically."""
        with file_written_whole(folder / MANIFEST) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    def check_same_origin(self, other: Manifest, folder: Path) -> None:
        """Raise ``InputError`` unless ``other`` describes files made from the same things."""
        for name in ("fingerprint", "images", "severities", "seed", "scale"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise InputError(
                    f"{folder} holds corruptions of {self.dataset} with {name} {mine}; asked for {theirs}. "
                    "Choose another folder, or delete this one."
                )


CHUNK = 256
LABELS = "labels.npy"

Task = tuple[np.ndarray, np.ndarray, str, int, int, Scale]

Run = Callable[[Iterable[Task]], Iterator[np.ndarray]]


def write_corruptions(
    dataset: ImageDataset,
    folder: str | Path,
    *,
    names: Sequence[str] | None = None,
    severities: Sequence[int] | None = None,
    seed: int = 0,
    scale: Scale | None = None,
    workers: int = 1,
) -> list[Path]:
    """Write ``<corruption>.npy`` for each name, and ``labels.npy``.

    Each file holds the images of the first severity, then those of the second, and so on: uint8,
    shape (severities * N, H, W, 3). A file appears whole or not at all. Run again, finished files
    are recognised by the SHA-256 in ``corruptions.json`` and left alone. Where all are there, several processes
    may ask at once; else one at a time writes.

    Args:
        names: Corruptions; unless given, the 15 standard ones.
        severities: Severities, in this order; unless given, 1 to 5.
        seed: Seed of the randomness; see ``corrupt``.
        scale: See ``corrupt``.
        workers: Processes. The images do not depend on it.

    Returns:
        The files of the corruptions asked for.

    Raises:
        InputError: an unknown name or severity, a folder with files of other origin, or no space.
    """
    folder = Path(folder).expanduser()
    names = STANDARD_CORRUPTIONS if names is None else names
    names = list(dict.fromkeys(canonical_name(name) for name in names))
    severities = SEVERITIES if severities is None else tuple(severities)
    scale = scale or default_scale(dataset.size)
    if workers < 1:
        raise InputError(f"asked for {workers} workers; expected 1 or more.")
    if not severities:
        raise InputError("no severity was given; expected some of 1 to 5.")
    for severity in severities:
        check_severity(severity)
        for name in names:  # what cannot work should fail now, not after an hour
            corrupt(dataset.images[:1], name, severity=severity, seed=seed, scale=scale)
    wanted = Manifest.describe(dataset, severities, seed, scale)
    if not _complete(dataset, folder, names, wanted):
        with only_one(folder):
            _write(dataset, folder, names, wanted, workers)
    return [folder / f"{name}.npy" for name in names]


def _complete(dataset: ImageDataset, folder: Path, names: Sequence[str], wanted: Manifest) -> bool:
    """Whether every file is there already, so that several processes may ask for them at once."""
    manifest = Manifest.read(folder)
    labels = folder / LABELS
    wanted_files = [labels, *(folder / f"{name}.npy" for name in names)]
    if manifest is None or not all(path.exists() for path in wanted_files):
        return False
    manifest.check_same_origin(wanted, folder)
    return labels.read_bytes() == _label_file(dataset, wanted.severities) and all(
        _finished(manifest, folder, name) for name in names
    )


def _write(dataset: ImageDataset, folder: Path, names: Sequence[str], wanted: Manifest, workers: int) -> None:
    """Write the labels, and the files that are not there yet."""
    manifest = _open_manifest(folder, wanted)
    severities = manifest.severities
    missing = [name for name in names if not _finished(manifest, folder, name)]
    with file_written_whole(folder / LABELS) as temporary:
        temporary.write_bytes(_label_file(dataset, severities))
    images = len(missing) * len(severities) * len(dataset)
    with _pool(workers) as run, Bar(total=images, unit="image", show=bool(images)) as progress:
        for name in missing:
            progress.set_description(name)
            _write_file(dataset, folder, name, manifest, run, progress)


def _label_file(dataset: ImageDataset, severities: Sequence[int]) -> bytes:
    """The content of ``labels.npy``: the labels once for each severity."""
    dtype = np.uint8 if len(dataset.class_names) <= 256 else np.int64
    stream = BytesIO()
    np.save(stream, np.tile(dataset.labels, len(severities)).astype(dtype), allow_pickle=False)
    return stream.getvalue()


def _open_manifest(folder: Path, wanted: Manifest) -> Manifest:
    manifest = Manifest.read(folder)
    if manifest is None:
        foreign = sorted(folder.glob("*.npy"))
        if foreign:
            raise InputError(
                f"{folder} holds {foreign[0].name} but no {MANIFEST}, so warplca did not make it and will not "
                "overwrite it. Choose another folder."
            )
        manifest = wanted
        manifest.write(folder)
    manifest.check_same_origin(wanted, folder)
    return manifest


def _finished(manifest: Manifest, folder: Path, name: str) -> bool:
    path = folder / f"{name}.npy"
    known = {"sha256": sha256(path), "agreement": agreement(name)} if path.exists() else None
    return known is not None and manifest.files.get(name) == known


def _write_file(
    dataset: ImageDataset, folder: Path, name: str, manifest: Manifest, run: Run, progress: Bar
) -> None:
    shape = (len(manifest.severities) * len(dataset), *dataset.images.shape[1:])
    tasks: Iterator[Task] = (
        (
            dataset.images[start : start + CHUNK],
            dataset.indices[start : start + CHUNK],
            name,
            severity,
            manifest.seed,
            manifest.scale,
        )
        for severity in manifest.severities
        for start in range(0, len(dataset), CHUNK)
    )
    with file_written_whole(folder / f"{name}.npy") as temporary:
        with temporary.open("wb") as stream:
            npy.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for block in run(tasks):
                stream.write(block.tobytes())
                progress.update(len(block))
        manifest.files[name] = {"sha256": sha256(temporary), "agreement": agreement(name)}
    manifest.write(folder)


@contextmanager
def _pool(workers: int) -> Iterator[Run]:
    """Yield a function that corrupts the chunks it is given, in their order."""
    if workers == 1:
        yield lambda tasks: map(_corrupt_chunk, tasks)
        return
    # Spawned, because forking a process that runs torch's threads can hang.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_leave_interrupts_to_the_parent)
    try:
        yield lambda tasks: pool.map(_corrupt_chunk, tasks)
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process died: too little memory, or a script that starts workers outside "
            "if __name__ == '__main__'. Finished files are kept; run again with workers=1."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _corrupt_chunk(task: Task) -> np.ndarray:
    images, indices, name, severity, seed, scale = task
    return corrupt(images, name, severity=severity, seed=seed, indices=indices, scale=scale)

"""The note beside generated corruption files that says what they are: ``corruptions.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ...configs.atomic import file_written_whole
from ...configs.errors import InputError
from ..dataset import ImageDataset
from .generate import Scale

MANIFEST = "corruptions.json"
FORMAT = 1


@dataclass
class Manifest:
    """What a folder of generated files was made from.

    Attributes:
        dataset: Name of the data set.
        fingerprint: Its ``ImageDataset.fingerprint``.
        images: Number of images in each severity.
        severities: In the order of the files' blocks of rows.
        seed: Of the randomness.
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
            fields = json.loads(path.read_text(encoding="utf-8"))
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


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

"""What makes a checkpoint folder safe to open: a manifest of sha256 digests, and no pickles.

The manifest has the form of coreutils, so ``sha256sum -c SHA256SUMS`` checks it too. It shows that files are whole and
belong together; it is no signature: whoever can change the weights can change the manifest.
"""

from __future__ import annotations

import hashlib
import logging
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

from ..configs import InputError
from ..configs.untrusted import MANIFEST

logger = logging.getLogger(__name__)
PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib"})


def write_manifest(folder: Path, names: Iterable[str]) -> None:
    """Write the digests of these files of a folder into its manifest."""
    lines = [f"{sha256(folder / name)}  {name}\n" for name in names]
    (folder / MANIFEST).write_text("".join(lines), encoding="utf-8")


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder that holds a pickle, see :func:`refuse_pickle`."""
    for path in sorted(folder.iterdir()):
        if path.is_file():
            refuse_pickle(path)


def verify_manifest(folder: Path) -> None:
    """Check a folder's files against its manifest.

    Args:
        folder: The folder; one without a manifest (written before there were any) passes with a warning.

    Raises:
        InputError: If a file differs from the manifest or is missing.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        logger.warning("%s has no %s: its files are used unverified", folder, MANIFEST)
        return
    for line in manifest.read_text(encoding="utf-8", errors="replace").splitlines():
        _verify_line(folder, line)


def _verify_line(folder: Path, line: str) -> None:
    entry = re.fullmatch(r"([0-9a-f]{64})  ([\w.-]+)", line)
    if entry is None:
        raise InputError(f"{folder / MANIFEST} is damaged: {line[:80]!r} is no line of sha256 digests.")
    digest, name = entry.groups()
    if not (folder / name).is_file():
        raise InputError(f"{folder} holds no {name}; copy the whole checkpoint folder.")
    if sha256(folder / name) != digest:
        raise InputError(
            f"{folder / name} is not the file that was saved (its sha256 differs from {MANIFEST}): it was truncated or "
            "changed; copy the checkpoint folder again from where it came from."
        )


def sha256(path: Path) -> str:
    """Return the hexadecimal sha256 digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_pickle(path: Path) -> None:
    """Refuse a file that is a pickle by its name or by its first bytes; it is not opened beyond those.

    Raises:
        InputError: If it is one.
    """
    if is_pickle(path):
        raise InputError(
            f"{path} is a pickle, which can run any program when it is opened; it was not opened. Use the checkpoint's "
            "model.safetensors and remove the pickle, or convert it where you trust it: "
            'safetensors.torch.save_file(torch.load(FILE, weights_only=True), "model.safetensors").'
        )


def is_pickle(path: Path) -> bool:
    """Tell whether a file is a pickle, or a PyTorch archive around one."""
    if path.suffix.lower() in PICKLE_SUFFIXES:
        return True
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] == b"PK" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(Path(name).name == "data.pkl" for name in archive.namelist())
    return len(head) >= 2 and head[0] == 0x80 and head[1] <= 5

"""Which checkpoint folder is meant, and what makes it safe to open: a manifest of sha256 digests, and no pickles.

The manifest has the form of coreutils, so ``sha256sum -c SHA256SUMS`` checks it too. It shows that files are whole and
belong together; it is no signature: whoever can change the weights can change the manifest.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import logging
import lzma
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from .errors import InputError
from .untrusted import MANIFEST, plain_file, read_text

logger = logging.getLogger(__name__)
PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill"})
DANGEROUS = frozenset(
    {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD", "EXT1", "EXT2"}
)
MOST_FILES, LOOKED_AT = 1000, 2**18


def write_manifest(folder: Path, names: Iterable[str]) -> None:
    """Write the digests of these files of a folder into its manifest."""
    lines = [f"{sha256(folder / name)}  {name}\n" for name in names]
    (folder / MANIFEST).write_text("".join(lines), encoding="utf-8")


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder that holds a pickle, however deep, or what is no plain file; see :func:`refuse_pickle`.

    Raises:
        InputError: If it does, or holds thousands of files: a checkpoint holds four.
    """
    for number, path in enumerate(sorted(islice(folder.rglob("*"), MOST_FILES + 1))):
        if number == MOST_FILES:
            raise InputError(f"{folder} holds more than {MOST_FILES} files; give the folder of a checkpoint.")
        if not path.is_dir():
            refuse_pickle(path)


def verify_manifest(folder: Path, names: Iterable[str]) -> None:
    """Check a folder's files against its manifest.

    Args:
        folder: The folder; one without a manifest passes with a warning.
        names: Files that the manifest must list.

    Raises:
        InputError: If a file differs from the manifest or is missing, or the manifest does not list it.
    """
    manifest = folder / MANIFEST
    if not manifest.exists():
        logger.warning("%s has no %s: its files are used unverified", folder, MANIFEST)
        return
    listed = {_verify_line(folder, line) for line in read_text(manifest).splitlines()}
    for name in names:
        if name not in listed:
            raise InputError(
                f"{manifest} does not list {name}: it is damaged or was changed; copy the folder again from where it "
                "came from."
            )


def _verify_line(folder: Path, line: str) -> str:
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
    return name


def names_in(shipped: Path) -> list[str]:
    """Return the names of what is shipped in a folder of the package: the folders in it that describe themselves."""
    return sorted(path.parent.name for path in shipped.glob("*/config.json"))


def named_folder(source: str | Path, shipped: Path) -> Path:
    """Return the folder that is meant: one of the user's if it is there, or else a shipped one of that name."""
    here = Path(source)
    return here if here.exists() or str(source) not in names_in(shipped) else shipped / str(source)


def sha256(path: Path) -> str:
    """Return the hexadecimal sha256 digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_pickle(path: Path) -> None:
    """Refuse a file that is a pickle by its name or by what it begins with; nothing in it is executed.

    Raises:
        InputError: If it is one, or is no plain file.
    """
    if is_pickle(path):
        raise InputError(
            f"{path} is a pickle, which can run any program when it is opened; it was not opened. Use the checkpoint's "
            "model.safetensors and remove the pickle, or convert it where you trust it: "
            'safetensors.torch.save_file(torch.load(FILE, weights_only=True), "model.safetensors").'
        )


def is_pickle(path: Path) -> bool:
    """Tell whether a file is a pickle of any protocol: plain, compressed, in an .npy file or in a PyTorch archive."""
    plain_file(path)
    if path.suffix.lower() in PICKLE_SUFFIXES:
        return True
    with path.open("rb") as file:
        head = file.read(LOOKED_AT)
    if head[:4] == b"PK\x03\x04":
        return _zip_holds_pickle(path)
    return _is_pickled(_decompressed(head))


def _zip_holds_pickle(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(
                Path(name).suffix in PICKLE_SUFFIXES
                or (name.endswith(".npy") and _is_pickled(archive.open(name).read(LOOKED_AT)))
                for name in archive.namelist()
            )
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, NotImplementedError, RuntimeError):
        return False  # no archive that anything could open


def _decompressed(head: bytes) -> bytes:
    """The first bytes of what a compressed file holds; the bytes themselves where it is none."""
    for mark, opened in (
        (b"\x1f\x8b", lambda: zlib.decompressobj(31).decompress(head, LOOKED_AT)),
        (b"x", lambda: zlib.decompressobj().decompress(head, LOOKED_AT)),
        (b"BZh", lambda: bz2.BZ2Decompressor().decompress(head, LOOKED_AT)),
        (b"\xfd7zXZ", lambda: lzma.LZMADecompressor().decompress(head, LOOKED_AT)),
        (b"]\x00", lambda: lzma.LZMADecompressor().decompress(head, LOOKED_AT)),
    ):
        if head.startswith(mark):
            try:
                return opened()
            except (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError):
                return head
    return head


def _is_pickled(head: bytes) -> bool:
    """Tell by the opcodes of the pickle machine, which are read and not obeyed."""
    if head[:6] == b"\x93NUMPY":
        return b"'descr': '|O'" in head[:200] or b"'descr': [" in head[:200]
    if (
        head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**27
    ):  # safetensors: its header's length, then JSON
        return False
    seen: set[str] = set()
    try:
        for code, _, _ in pickletools.genops(head):
            seen.add(code.name)
    except ValueError as error:  # no opcode, or the end of what was looked at
        ended = len(head) >= LOOKED_AT and "unknown" not in str(error)
        return head[:1] == b"\x80" or (ended and bool(seen & DANGEROUS))
    return head[:1] == b"\x80" or (bool(seen & DANGEROUS) and _is_consistent(head))


def _is_consistent(head: bytes) -> bool:
    """Tell whether the opcodes could be obeyed, which those that a text happens to spell mostly could not."""
    try:
        pickletools.dis(head, io.StringIO())
    except ValueError:
        return False
    return True

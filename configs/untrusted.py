"""The door for files that anybody may have made: each is looked at before it is read and memory is taken for it."""

from __future__ import annotations

import json
import mmap
import stat
import unicodedata
import zipfile
from collections.abc import Callable, Collection, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from .errors import InputError, in_one_line

TEXT_BYTES = 2**24  # of a JSON file; a model card's evidence has some hundred kilobytes
YAML_BYTES = 2**18
YAML_NODES, YAML_DEPTH = 20_000, 100
ZIP_RATIO, ZIP_FREE_BYTES = 100, 2**26
"""An entry beyond so many bytes must not be so many times as large as what it takes in the archive."""


def plain_file(path: str | Path, most: int | None = None) -> Path:
    """Refuse what is no plain file (a pipe or a device may never end) or is too large; return the path.

    Args:
        path: The file.
        most: Largest size in bytes; None for any.

    Raises:
        InputError: If it is missing, cannot be reached, is of another kind, or is too large.
    """
    path = Path(path)
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read: {reason}.") from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, a socket or a device"
        raise InputError(f"{path} is {kind}; expected a file.")
    if most is not None and found.st_size > most:
        raise InputError(
            f"{path} has {found.st_size / 2**20:.1f} MB, more than any such file of warplca's "
            f"({most / 2**20:.2g} MB); it was not read."
        )
    return path


def read_text(path: str | Path, most: int = TEXT_BYTES) -> str:
    """Read a text file of at most so many bytes.

    Raises:
        InputError: See :func:`plain_file`; or it is no UTF-8 text.
    """
    try:
        return plain_file(path, most).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text: {error.reason} at byte {error.start}.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: If it cannot be read, or is no JSON.
    """
    return parse_json(read_text(path), str(path))


def parse_json(text: str | bytes, where: str) -> Any:
    """Parse JSON from a file that ``where`` names.

    Raises:
        InputError: If it is none, or nested too deeply.
    """
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()  # half characters could be shown and written nowhere
        return value
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is no valid JSON ({error}); copy or make it again.") from error


def read_yaml(path: Path) -> Any:
    """Read a YAML file; see :func:`parse_yaml`."""
    return parse_yaml(read_text(path, YAML_BYTES), path.name)


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML as plain values.

    Raises:
        InputError: If it is not valid, has a key twice, or repeats parts (``*alias``) beyond all measure.
    """
    if _depth(text) > YAML_DEPTH:  # PyYAML would take long to fail
        raise InputError(f"{where} is not valid YAML: it nests more than {YAML_DEPTH} levels.")
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}, where) > YAML_NODES:
            raise InputError(f"{where} grows beyond {YAML_NODES} entries when it is read; it was not read.")
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where} is not valid YAML: {in_one_line(error, 300)}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _depth(text: str) -> int:
    """How deep brackets nest at most, those in quotes and comments included."""
    steps = (1 if sign in "[{" else -1 for sign in text if sign in "[]{}")
    return max(accumulate(steps), default=0)


def _size(node: yaml.Node, known: dict[int, int], where: str) -> int:
    """Entries of a node with all repeated parts written out; refuses keys that come twice."""
    if id(node) in known:
        if not known[id(node)]:
            raise InputError(f"{where} repeats a part inside itself; it was not read.")
        return known[id(node)]
    known[id(node)] = 0
    total = 1
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                line = key.start_mark.line + 1
                raise InputError(f"{where} has the key {key.value!r} twice (line {line}); keep one.")
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                seen.add(key.value)
        total += sum(_size(part, known, where) for pair in node.value for part in pair)
    elif isinstance(node, yaml.ScalarNode):
        node.value.encode()  # refuses half characters
    elif isinstance(node, yaml.SequenceNode):
        total += sum(_size(part, known, where) for part in node.value)
    known[id(node)] = total
    return total


def check_zip(archive: zipfile.ZipFile, where: str | Path) -> None:
    """Refuse an archive whose entries grow beyond measure when they are unpacked.

    Raises:
        InputError: If one does.
    """
    for entry in archive.infolist():
        if entry.file_size > max(ZIP_FREE_BYTES, ZIP_RATIO * entry.compress_size):
            raise InputError(
                f"{where} holds {entry.filename!r}, which grows from {entry.compress_size / 2**20:.1f} to "
                f"{entry.file_size / 2**20:,.0f} MB; it was not unpacked. Save it again without compression."
            )


MANIFEST = "SHA256SUMS"


def folder_with(key: str, names: Collection[str]) -> Callable[[Path], bool]:
    """Return the test of whether a folder is ours: only these files, and a manifest or a config.json with this key."""

    def ours(folder: Path) -> bool:
        if not folder.is_dir() or folder.is_symlink():
            return False
        found = {entry.name for entry in folder.iterdir()}
        if not found or not found <= set(names):
            return False
        if MANIFEST in found:  # then a damaged config.json is still ours
            return True
        try:
            config = read_json(folder / "config.json")
        except InputError:
            return False
        return isinstance(config, Mapping) and key in config

    return ours


def file_with(mark: bytes) -> Callable[[Path], bool]:
    """Return the test of whether a file is ours: it holds these bytes."""

    def ours(path: Path) -> bool:
        if not path.is_file() or not path.stat().st_size:
            return False
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(mark) >= 0

    return ours


def plain(text: str, *, lines: bool = False) -> str:
    """Return a text with control characters spelled out.

    Args:
        text: Any text.
        lines: Whether it may have several lines; else line breaks are spelled out as well.
    """
    kept = "\n" if lines else ""
    return "".join(
        repr(sign)[1:-1] if unicodedata.category(sign) == "Cc" and sign not in kept else sign for sign in text
    )

"""Files and folders written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


@contextmanager
def file_written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; it becomes ``path`` if the block ends well.

    Raises:
        InputError: If the place cannot be written or the disk is full; nothing is left behind.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        try:
            yield Path(name)
            _on_disk(Path(name))
            os.chmod(name, 0o644)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``; it takes the place of ``path`` if the block ends well.

    Raises:
        InputError: If the place cannot be written or the disk is full; what was there before stays.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
        old = temporary.with_suffix(".old")
        try:
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _on_disk(file)
            temporary.chmod(0o755)
            if path.exists():
                path.rename(old)
            temporary.rename(path)
        except BaseException:
            if old.exists() and not path.exists():
                old.rename(path)
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def _on_disk(file: Path) -> None:
    """Wait until the contents are on the disk: a rename may get there before them when the power fails."""
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"cannot write {path}: {reason}. Nothing already there was changed; free some space or choose another "
            "place, then run the same command again."
        ) from error

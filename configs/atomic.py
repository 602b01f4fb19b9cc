"""Files and folders written whole or not at all, never over somebody else's, and never by two at once."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError

if sys.platform != "win32":
    import fcntl

Ours = Callable[[Path], bool]
LOCK = ".lock"
EXCHANGE = 2  # RENAME_EXCHANGE of Linux's renameat2


@contextmanager
def file_written_whole(path: Path, *, ours: Ours | None = None) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; it becomes ``path`` if the block ends well.

    Args:
        path: The file.
        ours: Tells whether a file that is there already was written by warplca; another one is refused. None replaces
            any: for files inside folders that are known to be ours.

    Raises:
        InputError: If the place holds something else or cannot be written, or the disk is full; nothing is left behind.
    """
    refuse_foreign(path, ours)
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        temporary = _beside(path)
        handle = os.open(
            temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666
        )  # less what the umask takes away
        try:
            _lock(handle)
            yield temporary
            _on_disk(temporary)
            refuse_foreign(path, ours)
            os.replace(temporary, path)
        finally:
            os.close(handle)
            temporary.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path, *, ours: Ours) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``; it takes the place of ``path`` if the block ends well.

    Args:
        path: The folder.
        ours: Tells whether a folder that is there already was written by warplca, with nothing else in it; another one
            is refused, an empty one replaced.

    Raises:
        InputError: If the place holds something else or cannot be written, or the disk is full; what was there stays.
    """
    recover(path)
    refuse_foreign(path, ours)
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        temporary = _beside(path)
        temporary.mkdir()
        handle = os.open(temporary, os.O_RDONLY) if sys.platform != "win32" else None
        try:
            _lock(handle)
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _on_disk(file)
            refuse_foreign(path, ours)
            _take_place(temporary, path)
        finally:
            if handle is not None:
                os.close(handle)
            shutil.rmtree(temporary, ignore_errors=True)


def refuse_foreign(path: Path, ours: Ours | None) -> None:
    """Refuse to replace what warplca did not write.

    Raises:
        InputError: If there is something at ``path``, other than an empty folder, that ``ours`` does not know.
    """
    if ours is None or not os.path.lexists(path):
        return
    with suppress(OSError):
        if ours(path) or (path.is_dir() and not path.is_symlink() and not any(path.iterdir())):
            return
    raise InputError(
        f"{path} is there already and was not written by warplca, or holds other files too; it was left alone. Choose "
        "another name, or move it away."
    )


def refuse_input(out: str | Path, **inputs: str | None) -> None:
    """Refuse to write to what is read, or into a checkpoint that is read.

    Args:
        out: The place to write to.
        **inputs: Paths that are read, by the names of their options; None for options that are not given.

    Raises:
        InputError: If ``out`` is one of them, or lies inside one of them.
    """
    place = Path(out).resolve()
    for option, source in inputs.items():
        read = None if source is None else Path(source).resolve()
        if read is not None and (
            place == read or (read in place.parents and (read / "config.json").exists())
        ):
            raise InputError(
                f"{out} is what --{option} reads, or lies inside it; choose another place to write to."
            )


def _take_place(new: Path, path: Path) -> None:
    """Put a folder in the place of another, so that a kill at any moment leaves one of them under its name."""
    if not path.exists():
        new.rename(path)
    elif not _exchange(new, path):
        old = new.with_suffix(".old")
        path.rename(old)  # a kill between these two lines is mended by `recover`
        new.rename(path)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names at once, where the system can."""
    if sys.platform != "linux":
        return False
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # a C library of before 2018
        return False
    here = -100  # AT_FDCWD: the names are whole paths
    return swap(here, os.fsencode(one), here, os.fsencode(other), EXCHANGE) == 0


def recover(path: Path) -> None:
    """Give a folder its name back that a kill between two renames took away."""
    if os.path.lexists(path) or not path.parent.is_dir():
        return
    for old in sorted(path.parent.glob(f".{_escaped(path.name)}.*.old")):
        with suppress(OSError):
            old.rename(path)
            return


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the lock goes with the process, however that ends.

    Raises:
        InputError: If another process holds it, or it cannot be made.
    """
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    while True:
        with _explained(folder):
            handle = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o666)
        if not _lock(handle, of_process=True):
            os.close(handle)
            raise InputError(
                f"another process is writing to {folder}; wait until it is done, or choose another folder."
            )
        with suppress(OSError):  # the holder before may have deleted the very file that was opened
            if os.path.samestat(os.fstat(handle), os.stat(folder / LOCK)):
                break
        os.close(handle)
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink()
        os.close(handle)


def _lock(handle: int | None, *, of_process: bool = False) -> bool:
    """Lock an open file or folder for as long as it is open; return whether that was possible.

    A lock of this process is not shared with the workers that it forks, which may outlive it for a moment.
    """
    if sys.platform == "win32" or handle is None:
        return True
    try:
        (fcntl.lockf if of_process else fcntl.flock)(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _sweep(path: Path) -> None:
    """Delete what killed writers of ``path`` left behind; a part that is being written is locked."""
    if sys.platform == "win32":
        return
    for left in path.parent.glob(f".{_escaped(path.name)}.*.part"):
        with suppress(OSError):
            handle = os.open(left, os.O_RDONLY)
            try:
                if _lock(handle):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            finally:
                os.close(handle)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def _escaped(name: str) -> str:
    """A name for ``glob``, which reads brackets and stars."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


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

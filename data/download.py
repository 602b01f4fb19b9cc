"""Downloading the official CIFAR-10-C, resumably and checked."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from ..configs.errors import InputError
from .official import CIFAR_10_C, Archive

CHUNK = 2**20
TIMEOUT_S = 60


def download_cifar_c(folder: str | Path, *, archive: Archive = CIFAR_10_C) -> Path:
    """Download CIFAR-10-C (2.9 GB, and as much again while unpacking) into ``folder/CIFAR-10-C``.

    Interrupted, it goes on where it stopped when called again. Nothing is done where the folder is
    there already.

    Returns:
        The folder with the ``.npy`` files, for ``open_cifar_c``.

    Raises:
        InputError: the network fails, the checksum is wrong, or there is no space.
    """
    folder = Path(folder).expanduser()
    target = folder / "CIFAR-10-C"
    if target.exists():
        return target
    partial = folder / "CIFAR-10-C.tar.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _fetch(archive, partial)
        _check(archive, partial)
        _unpack(partial, target)
        partial.unlink()
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        have = partial.stat().st_size if partial.exists() else 0
        raise InputError(
            f"cannot download {archive.url} ({error}); {have / 1e6:.0f} of {archive.size / 1e6:.0f} MB are in "
            f"{partial}. Run the same command again to go on."
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot write to {folder} ({error.strerror or error}); it needs {2 * archive.size / 1e9:.1f} GB. "
            "Free some space and run the same command again."
        ) from error
    return target


def _fetch(archive: Archive, partial: Path) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    if have >= archive.size:
        return
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={have}-"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            have = 0  # this server sends the whole file whatever one asks for
        with (
            partial.open("ab" if have else "wb") as stream,
            tqdm(total=archive.size, initial=have, unit="B", unit_scale=True, desc=str(partial)) as progress,
        ):
            while block := response.read(CHUNK):
                stream.write(block)
                progress.update(len(block))
    found = partial.stat().st_size
    if found < archive.size:
        raise ConnectionError(f"the connection ended after {found} bytes")


def _check(archive: Archive, partial: Path) -> None:
    with partial.open("rb") as stream:
        found = hashlib.file_digest(stream, "md5").hexdigest()
    if found != archive.md5:
        partial.unlink()
        raise InputError(
            f"what {archive.url} sent is not CIFAR-10-C: md5 {found}, expected {archive.md5}. The file was "
            "deleted; run the same command again."
        )


def _unpack(partial: Path, target: Path) -> None:
    unpacked = target.with_name(".CIFAR-10-C.unpacking")
    shutil.rmtree(unpacked, ignore_errors=True)
    with tarfile.open(partial) as tar:
        tar.extractall(unpacked, filter="data")
    os.replace(unpacked / target.name, target)
    shutil.rmtree(unpacked)

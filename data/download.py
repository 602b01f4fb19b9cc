"""Download the official CIFAR-10-C (Zenodo record 2535967), resumably and checked against its published checksums."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from ..configs.atomic import only_one
from ..configs.errors import InputError
from ..configs.progress import Bar

OFFICIAL_MD5 = {
    "gaussian_noise": "ecaf8b9a2399ffeda7680934c33405fd",
    "shot_noise": "3a7239bb118894f013d9bf1984be7f11",
    "impulse_noise": "2090e01c83519ec51427e65116af6b1a",
    "defocus_blur": "7d1322666342a0702b1957e92f6254bc",
    "glass_blur": "7361fb4019269e02dbf6925f083e8629",
    "motion_blur": "fffa5f852ff7ad299cfe8a7643f090f4",
    "zoom_blur": "6ea8e63f1c5cdee1517533840641641b",
    "snow": "bb238de8555123da9c282dea23bd6e55",
    "frost": "31f6ab3bce1d9934abfb0cc13656f141",
    "fog": "7b397314b5670f825465fbcd1f6e9ccd",
    "brightness": "0a81ef75e0b523c3383219c330a85d48",
    "contrast": "3c8262171c51307f916c30a3308235a8",
    "elastic_transform": "9421657c6cd452429cf6ce96cc412b5f",
    "pixelate": "0f14f7e2db14288304e1de10df16832f",
    "jpeg_compression": "2b9cc4c864e0193bb64db8d7728f8187",
    "speckle_noise": "ef00b87611792b00df09c0b0237a1e30",
    "gaussian_blur": "c33370155bc9b055fb4a89113d3c559d",
    "spatter": "8a5a3903a7f8f65b59501a6093b4311e",
    "saturate": "1cfae0964219c5102abbb883e538cc56",
}


@dataclass(frozen=True)
class Archive:
    """One file to download: a tar archive that holds the folder ``CIFAR-10-C``."""

    url: str
    size: int
    md5: str


CIFAR_10_C = Archive(
    url="https://zenodo.org/records/2535967/files/CIFAR-10-C.tar",
    size=2_918_471_680,
    md5="56bf5dcef84df0e2308c6dcbcbbd8499",
)

CHUNK = 2**20

TIMEOUT_S = 60


def download_cifar_c(folder: str | Path, *, archive: Archive = CIFAR_10_C) -> Path:
    """Download CIFAR-10-C (2.9 GB, and as much again while unpacking) into ``folder/CIFAR-10-C``.

    Interrupted, it goes on where it stopped when called again. Nothing is done where the folder is
    there already. One process at a time downloads into a folder.

    Returns:
        The folder with the ``.npy`` files, for ``open_cifar_c``.

    Raises:
        InputError: the network fails, the checksum is wrong, there is no space, or another process is at it.
    """
    folder = Path(folder).expanduser()
    target = folder / "CIFAR-10-C"
    if target.exists():
        return target
    partial = folder / "CIFAR-10-C.tar.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with only_one(folder):
            if not target.exists():  # else another process has just finished it
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
            Bar(total=archive.size, initial=have, unit="B", unit_scale=True, desc=str(partial)) as progress,
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

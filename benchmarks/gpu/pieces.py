"""Carry files over a narrow way: images packed without loss, folders cut into pieces that are checked when joined.

    python benchmarks/gpu/pieces.py pack --data cifar10.npz --out runs/carry --piece-size 28   # where the data are
    python benchmarks/gpu/pieces.py unpack runs/carry --out cifar10.npz                        # where the pieces are
    python benchmarks/gpu/pieces.py join runs/gpu/pieces --out runs/brought                    # what came back

Images are predicted from their neighbours (the median edge detector of LOCO-I: Weinberger, Seroussi and Sapiro, IEEE
Transactions on Image Processing 9, 2000) after red and blue have been taken as differences to green, and the rest is
deflated: CIFAR-10 takes 0.6 of its bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tarfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from warplca.configs import InputError
from warplca.configs.atomic import file_written_whole

Pixels = NDArray[np.uint8]
MANIFEST = "pieces.json"


def packed(images: Pixels) -> bytes:
    """Compress images (N, H, W, 3) without loss."""
    green = images[..., 1:2]
    planes = np.concatenate([images[..., 0:1] - green, green, images[..., 2:3] - green], axis=3)
    left, above, corner = (np.zeros(planes.shape, np.int16) for _ in range(3))
    left[:, :, 1:], above[:, 1:], corner[:, 1:, 1:] = planes[:, :, :-1], planes[:, :-1], planes[:, :-1, :-1]
    rest = (planes - _predicted(left, above, corner)).astype(np.uint8)
    return zlib.compress(np.ascontiguousarray(np.moveaxis(rest, 3, 0)).tobytes(), 9)


def unpacked(data: bytes, count: int, height: int, width: int) -> Pixels:
    """Return the images of :func:`packed`."""
    rest = np.frombuffer(zlib.decompress(data), np.uint8).reshape(3, count, height, width)
    planes = np.zeros((3, count, height + 1, width + 1), np.int16)  # a border of zeros above and to the left
    for row in range(height):
        for column in range(width):
            guess = _predicted(
                planes[:, :, row + 1, column], planes[:, :, row, column + 1], planes[:, :, row, column]
            )
            planes[:, :, row + 1, column + 1] = (rest[:, :, row, column] + guess) % 256
    red, green, blue = planes[:, :, 1:, 1:].astype(np.uint8)
    return np.stack([red + green, green, blue + green], axis=3)


def _predicted(
    left: NDArray[np.int16], above: NDArray[np.int16], corner: NDArray[np.int16]
) -> NDArray[np.int16]:
    return np.clip(left + above - corner, np.minimum(left, above), np.maximum(left, above))


def cut(content: bytes, folder: Path, megabytes: float) -> list[Path]:
    """Write bytes as pieces of at most so many MiB, and last what they must add up to."""
    size = int(megabytes * 2**20)
    names = []
    for number, start in enumerate(range(0, len(content), size)):
        names.append(f"piece-{number:03d}")
        with file_written_whole(folder / names[-1]) as target:
            target.write_bytes(content[start : start + size])
    digest = hashlib.sha256(content).hexdigest()
    with file_written_whole(folder / MANIFEST) as target:
        target.write_text(json.dumps({"pieces": names, "sha256": digest}) + "\n", encoding="utf-8")
    return [folder / name for name in (*names, MANIFEST)]


def joined(folder: Path) -> bytes:
    """Return the bytes of :func:`cut`.

    Raises:
        InputError: If a piece is missing or damaged.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        content = b"".join((folder / name).read_bytes() for name in manifest["pieces"])
    except OSError as error:
        raise InputError(f"{error.filename} is missing; bring all pieces of {folder} first.") from error
    if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
        raise InputError(f"the pieces in {folder} are damaged; bring them again.")
    return content


def archive(folder: Path, names: list[str]) -> bytes:
    """Return files of a folder as an uncompressed archive: weights and stores hardly shrink."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in names:
            tar.add(folder / name, arcname=name)
    return stream.getvalue()


def pack_data(source: Path, out: Path, megabytes: float) -> list[Path]:
    """Pack a data set file (.npz) into pieces."""
    stream = io.BytesIO()
    with np.load(source, allow_pickle=False) as stored:
        kept = {name: stored[name] for name in stored.files}
    for name in ("train_images", "test_images"):
        images = kept.pop(name)
        kept[f"{name}_shape"] = np.array(images.shape)
        kept[name] = np.frombuffer(packed(images), np.uint8)
    np.savez(stream, **kept)  # type: ignore[arg-type]
    return cut(stream.getvalue(), out, megabytes)


def unpack_data(pieces: Path, out: Path) -> None:
    """Write the data set file whose pieces these are."""
    with np.load(io.BytesIO(joined(pieces)), allow_pickle=False) as stored:
        kept = {name: stored[name] for name in stored.files}
    for name in ("train_images", "test_images"):
        count, height, width, _ = kept.pop(f"{name}_shape").tolist()
        kept[name] = unpacked(kept[name].tobytes(), count, height, width)
    with file_written_whole(out) as target, target.open("wb") as file:
        np.savez(file, **kept)  # type: ignore[arg-type]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    pack = commands.add_parser("pack", help="a data set into pieces")
    pack.add_argument("--data", type=Path, required=True, help="a .npz file")
    pack.add_argument("--piece-size", type=float, default=28.0, help="MiB (default: %(default)s)")
    unpack = commands.add_parser("unpack", help="pieces into a data set")
    join = commands.add_parser("join", help="pieces of results into a folder")
    for command in (unpack, join):
        command.add_argument("pieces", type=Path)
    for command in (pack, unpack, join):
        command.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    try:
        if args.command == "pack":
            print("\n".join(str(path) for path in pack_data(args.data, args.out, args.piece_size)))
        elif args.command == "unpack":
            unpack_data(args.pieces, args.out)
        else:
            with tarfile.open(fileobj=io.BytesIO(joined(args.pieces))) as tar:
                tar.extractall(args.out, filter="data")
    except InputError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()

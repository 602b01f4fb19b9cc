"""What the studies of this folder share: images, runs kept for a later start, intervals, tables."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from warplca.configs.atomic import file_written_whole
from warplca.data import load_dataset

Arrays = dict[str, np.ndarray]
RESAMPLES = 2000


def parser(text: str | None) -> argparse.ArgumentParser:
    """The options that every study has."""
    options = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--data", required=True, help="CIFAR-10, a source as `warplca train` takes it (.npz)"
    )
    options.add_argument("--frontend", default="cifar10-64x9s2", help="name or folder (default: %(default)s)")
    options.add_argument("--images", type=int, default=1000, help="test images (default: %(default)s)")
    options.add_argument("--seed", type=int, default=0, help="of the choice of images and of the noise")
    options.add_argument("--out", type=Path, default=Path("docs/results"), help="(default: %(default)s)")
    options.add_argument(
        "--work",
        type=Path,
        default=Path("runs/studies"),
        help="finished runs, used again (default: %(default)s)",
    )
    return options


def command(script: str, arguments: argparse.Namespace) -> str:
    """The sentence that tells how a result was made."""
    own = {
        key: value
        for key, value in vars(arguments).items()
        if key not in ("data", "out", "work", "lca_pytorch")
    }
    given = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in own.items())
    checkout = " --lca-pytorch lca-pytorch" if getattr(arguments, "lca_pytorch", None) else ""
    return f"Made by `python benchmarks/{script}.py --data cifar10.npz {given}{checkout}`."


def some_images(source: str, split: str, count: int, seed: int, *, pool: int = 0) -> Tensor:
    """A seeded random choice of images of a data set, (N, 3, 32, 32), pixels in [0, 1].

    With a ``pool``, the first ``count`` of so many chosen ones: runs on few images are then a part of runs on many.
    """
    dataset = load_dataset(source, split)
    chosen = np.random.default_rng(seed).permutation(len(dataset))[: max(count, pool)]
    return dataset.tensors(np.sort(chosen)[:count].tolist())[0]


def fingerprint(*things: object) -> str:
    """A short name of settings, tensors and modules' weights."""
    digest = hashlib.sha256()
    for thing in things:
        if isinstance(thing, nn.Module):
            digest.update(fingerprint(repr(thing), *thing.state_dict().values()).encode())
        elif isinstance(thing, Tensor):
            digest.update(thing.detach().cpu().contiguous().numpy().tobytes())
        else:
            digest.update(repr(thing).encode())
    return digest.hexdigest()[:20]


def kept(folder: Path, key: str, compute: Callable[[], Arrays]) -> Arrays:
    """Return what ``compute`` returned the first time it was asked for under this key."""
    path = folder / f"{key}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    arrays = compute()
    with file_written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return arrays


def psnr(images: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB per image, (N,); pixels are clipped to [0, 1] first."""
    return peak_signal_noise_ratio(
        images.clamp(0, 1), reference, data_range=1.0, dim=(1, 2, 3), reduction="none"
    )


def ssim(images: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity per image, (N,); pixels are clipped to [0, 1] first."""
    values = structural_similarity_index_measure(
        images.clamp(0, 1), reference, data_range=1.0, reduction="none"
    )
    assert isinstance(values, Tensor)
    return values.reshape(len(images))


def resampled(count: int, seed: int = 0) -> np.ndarray:
    """Weights of bootstrap samples over ``count`` images, (RESAMPLES, count), each row of sum 1."""
    return np.random.default_rng(seed).multinomial(count, [1 / count] * count, RESAMPLES) / count


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean over images and its 95 % bootstrap interval."""
    means = resampled(len(values)) @ values.astype(np.float64)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


def shown(values: np.ndarray, digits: int = 2) -> str:
    """Mean with half the width of its interval, ``74.40 ± 1.20``; a single value has none."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    mean, low, high = interval(values)
    return f"{mean:.{digits}f} ± {(high - low) / 2:.{digits}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """Write a text file whole."""
    with file_written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write figures for other programs."""
    write(path, json.dumps(value, indent=1) + "\n")


def synchronise() -> None:
    """Wait for the accelerator, where there is one."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def save_figure(figure, path: Path) -> None:
    """Write a matplotlib figure as PNG of 256 colours, which a page loads fast."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100, bbox_inches="tight")
    with file_written_whole(path) as temporary:
        Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
            temporary, format="PNG", optimize=True
        )

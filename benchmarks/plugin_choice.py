"""Choose the gates of the chain, and the strengths of the denoisers it is compared with, without any test image.

Usage: python benchmarks/plugin_choice.py --data cifar10.npz --checkpoint DIR [--images 1000]

The checkpoint is a classifier of ours, trained with validation_images: 5000, so that those images are held out. They
are corrupted by the four corruptions that CIFAR-10-C keeps for choices (speckle noise, Gaussian blur, spatter and
saturate) at severities 1, 3 and 5. Taken is the candidate with the highest mean among those that lose at most 0.3
points on clean images (for the chain, all 5,000) and at most 1.5 in any cell.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import table, write
from plugin_rows import GATE, Classical, classical
from torch import Tensor, nn
from tqdm import tqdm

from warplca.data import CORRUPTION_GROUPS, ImageDataset, corrupt, load_dataset
from warplca.models import harden, load_checkpoint

SEVERITIES = (1, 3, 5)
CLEAN_LOSS, CELL_LOSS = 0.3, 1.5  # points
Cells = dict[str, float]


def chain(
    restore: tuple[float, float] = GATE,
    contrast: tuple[float, float] | None = (0.45, 0.55),
    equaliser: tuple[float, float] | None = (0.3, 0.5),
    *,
    strength: float | None = 1.0,
    swapped: bool = False,
) -> list[Any]:
    """Return the stages of a chain with these gates; None leaves the contrast, or the equaliser's gate, out."""
    last: list[Any] = [] if contrast is None else [{"name": "contrast", "gate": list(contrast)}]
    if strength is not None:
        gate = None if equaliser is None else list(equaliser)
        last.append({"weights": "cifar10-equaliser", "gate": gate, "strength": strength})
    restoring = {"weights": "cifar10-64x9s2-restore", "gate": list(restore)}
    return ["impulse-repair", restoring, *(reversed(last) if swapped else last)]


CHAINS: dict[str, list[Any]] = {
    "restoring 0.012-0.018, contrast 0.45-0.55, equaliser 0.3-0.5": chain(),
    "restoring gate 0.009-0.0135": chain((0.009, 0.0135)),
    "restoring gate 0.016-0.024": chain((0.016, 0.024)),
    "contrast gate 0.4-0.5": chain(contrast=(0.4, 0.5)),
    "no contrast levelling": chain(contrast=None),
    "equaliser gate 0.2-0.4": chain(equaliser=(0.2, 0.4)),
    "equaliser gate 0.4-0.6": chain(equaliser=(0.4, 0.6)),
    "equaliser without a gate": chain(equaliser=None),
    "equaliser 0.7 strong": chain(strength=0.7),
    "equaliser before contrast": chain(swapped=True),
    "no equaliser": chain(strength=None),
}


def candidates(model: nn.Module) -> dict[str, dict[str, nn.Module]]:
    """Candidates by what is chosen; the first of the chains is the shipped one."""
    found: dict[str, dict[str, nn.Module]] = {
        "chain cifar10": {name: harden(model, stages) for name, stages in CHAINS.items()}
    }
    for name, denoise in classical().items():
        if name not in (
            "BM3D",
            "median 3 x 3",
        ):  # BM3D is too slow to be chosen for, the median has no strength
            found[name] = {
                f"{name}, {factor:g} times the noise": Classical(model, _scaled(denoise, factor), GATE)
                for factor in (0.5, 1.0, 1.5, 2.0)
            }
    return found


def _scaled(denoise: Callable[[Any, float], Any], factor: float) -> Callable[[Any, float], Any]:
    return lambda image, noise: denoise(image, factor * noise)


def corrupted(dataset: ImageDataset) -> dict[str, Tensor]:
    """Return clean and corrupted images by cell, (N, 3, H, W)."""
    cells = {"clean": dataset.images}
    for name in CORRUPTION_GROUPS["extra"]:
        for severity in SEVERITIES:
            cells[f"{name} {severity}"] = corrupt(dataset.images, name, severity=severity, seed=0)
    return {
        cell: torch.from_numpy(np.asarray(pixels)).permute(0, 3, 1, 2).float() / 255
        for cell, pixels in cells.items()
    }


@torch.no_grad()
def accuracies(model: nn.Module, cells: dict[str, Tensor], labels: Tensor) -> Cells:
    """Return % correct by cell."""
    found = {}
    for cell, images in cells.items():
        classes = torch.cat([model(batch).argmax(1) for batch in images.split(100)])
        found[cell] = 100 * float((classes == labels[: len(classes)]).float().mean())
    return found


def mean(cells: Cells) -> float:
    """Mean of the corrupted cells."""
    return float(np.mean([value for cell, value in cells.items() if cell != "clean"]))


def worst(cells: Cells, bare: Cells) -> tuple[str, float]:
    """The corrupted cell that loses most against the bare classifier, and what it gains."""
    gains = {cell: value - bare[cell] for cell, value in cells.items() if cell != "clean"}
    cell = min(gains, key=lambda name: gains[name])
    return cell, gains[cell]


def allowed(cells: Cells, bare: Cells) -> bool:
    """Tell whether a candidate loses little enough."""
    return cells["clean"] >= bare["clean"] - CLEAN_LOSS and worst(cells, bare)[1] >= -CELL_LOSS


def chosen(found: dict[str, Cells], bare: Cells) -> str:
    """Return the candidate that is taken; where none loses little enough, the one that loses least in a cell."""
    good = [name for name, cells in found.items() if allowed(cells, bare)]
    if good:
        return max(good, key=lambda name: mean(found[name]))
    return max(found, key=lambda name: worst(found[name], bare)[1])


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", required=True, help="CIFAR-10, a source as `warplca train` takes it")
    options.add_argument("--checkpoint", required=True, help="a classifier trained by `warplca train`")
    options.add_argument("--images", type=int, default=1000, help="held-out images (default: %(default)s)")
    options.add_argument(
        "--classical", type=int, default=200, help="of them for the other denoisers (default: %(default)s)"
    )
    options.add_argument("--out", type=Path, default=Path("docs/results"), help="(default: %(default)s)")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    held_out = load_dataset(arguments.data, "train").split(5000, seed=0)[1]
    dataset = held_out.subset(list(range(arguments.images)))
    model, labels = load_checkpoint(arguments.checkpoint).eval(), torch.as_tensor(held_out.labels)
    cells, lines = corrupted(dataset), []
    for subject, models in candidates(model).items():
        count = arguments.images if subject.startswith("chain") else arguments.classical
        part = {cell: images[:count] for cell, images in cells.items()}
        if subject.startswith("chain"):  # small losses need many images
            part["clean"] = held_out.tensors(list(range(len(held_out))))[0]
        bare = accuracies(model, part, labels)
        rows = {name: accuracies(behind, part, labels) for name, behind in tqdm(models.items(), desc=subject)}
        lines.append(_line(f"bare, {count} images", bare, bare))
        lines += [_line(name, found, bare, taken=name == chosen(rows, bare)) for name, found in rows.items()]
    head = ["before the classifier", "clean", "mean", "worst cell", "", "taken"]
    text = table(head, lines) + "\n" + _caption(arguments)
    print(text)
    write(arguments.out / "plugin-choice.md", text)


def _line(name: str, cells: Cells, bare: Cells, *, taken: bool = False) -> list[str]:
    cell, gain = worst(cells, bare)
    return [
        name,
        f"{cells['clean']:.1f}",
        f"{mean(cells):.2f}",
        cell,
        f"{gain:+.1f}",
        "taken" if taken else "",
    ]


def _caption(arguments: argparse.Namespace) -> str:
    return (
        f"Made by `python benchmarks/plugin_choice.py --images {arguments.images} --classical {arguments.classical}`. "
        "% correct of a classifier of ours on images held out of its training, under the four extra corruptions at "
        "severities 1, 3 and 5. Each row of the chain differs from the first in what its name says.\n"
    )


if __name__ == "__main__":
    main()

"""Test accuracy of checkpoints as they are, and with the answers of mirrored and shifted images added up.

    python benchmarks/augmented_test.py runs/quick-*/checkpoint --data cifar10.npz

"mirrored" adds the logits of each image and its mirror image; "shifted" adds to these, with weights of 1/4 each, those
of both shifted by one pixel up left and down right, as the speed records of CIFAR-10 are measured (Jordan 2024).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from common import table
from torch import Tensor, nn

from warplca.configs.device import choose_device
from warplca.data import load_dataset
from warplca.models import load_checkpoint


def mirrored(model: nn.Module, images: Tensor) -> Tensor:
    """Mean logits of images and mirror images."""
    return (model(images) + model(images.flip(3))) / 2


def shifted(model: nn.Module, images: Tensor) -> Tensor:
    """Logits of mirror images and shifted images."""
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    ends = [padded[:, :, :-2, :-2], padded[:, :, 2:, 2:]]
    return mirrored(model, images) / 2 + sum(mirrored(model, end) for end in ends) / 4


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("checkpoints", nargs="+", type=Path)
    options.add_argument("--data", required=True, help="CIFAR-10, a source as `warplca train` takes it")
    options.add_argument("--batch-size", type=int, default=500, help="(default: %(default)s)")
    options.add_argument("--device", help="(default: the accelerator if there is one)")
    arguments = options.parse_args()
    device = choose_device(arguments.device)
    dataset = load_dataset(arguments.data, "test")
    ways = {"as it is": nn.Module.__call__, "mirrored": mirrored, "shifted": shifted}
    rows = []
    for path in arguments.checkpoints:
        model = load_checkpoint(path).to(device)
        correct = dict.fromkeys(ways, 0)
        for start in range(0, len(dataset), arguments.batch_size):
            images, labels = dataset.tensors(
                range(start, min(start + arguments.batch_size, len(dataset))), device
            )
            with torch.no_grad():
                for name, way in ways.items():
                    correct[name] += int((way(model, images).argmax(1) == labels).sum())
        rows.append([path.parent.name, *(f"{100 * count / len(dataset):.2f}" for count in correct.values())])
    print(table(["run", *ways], rows))


if __name__ == "__main__":
    main()

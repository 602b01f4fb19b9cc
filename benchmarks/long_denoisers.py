"""Convolutional denoisers trained on as many images as the restoring WARP-LCA, or more, kept for plugin.py.

    python benchmarks/long_denoisers.py --data cifar10.npz --steps 7000 35000 --out runs/denoisers

The restoring stage of ``warplca prime --config restore-64x9s2`` takes 7,000 steps of 32 images; images, noise, loss and
optimiser are those of matched_denoisers.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from denoisers import CONVOLUTIONS
from matched_denoisers import trained
from safetensors.torch import save_model

from warplca.configs.atomic import file_written_whole
from warplca.configs.device import choose_device
from warplca.data import load_dataset


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", required=True, help="CIFAR-10, a source as `warplca train` takes it")
    options.add_argument("--steps", type=int, nargs="+", default=[7000], help="(default: 7000)")
    options.add_argument("--networks", nargs="+", choices=CONVOLUTIONS, default=list(CONVOLUTIONS))
    options.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    options.add_argument("--device", help="(default: the accelerator if there is one)")
    options.add_argument("--out", type=Path, default=Path("runs/denoisers"), help="(default: %(default)s)")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    training = load_dataset(arguments.data, "train")
    device = choose_device(arguments.device)
    images = training.tensors(list(range(len(training))), device)[0]
    for steps in arguments.steps:
        for name in arguments.networks:
            seed = f", seed {arguments.seed}" if arguments.seed else ""
            path = arguments.out / f"{name}, {steps} steps{seed}.safetensors"
            if path.exists():
                continue
            print(path.stem, flush=True)
            network = trained(
                CONVOLUTIONS[name], images, lambda step, steps=steps: step / steps, arguments.seed
            )
            with file_written_whole(path) as target:
                save_model(network.cpu(), str(target))


if __name__ == "__main__":
    main()

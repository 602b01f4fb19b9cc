"""Measure trained runs: all clean test images, and all 75 cells of CIFAR-10-C on some, alone and behind chains.

    python benchmarks/field.py runs/none-0 runs/none-1 --data cifar10.npz --corrupted DIR --results field.sqlite

Each run is a folder of `warplca train`; one called NAME-SEED is the model NAME, others keep their names. The test
images are those of plugin.py, from 1,000 on; their corrupted versions are in DIR, written there first if need be. With
--harden the same networks are measured behind chains too, as NAME + CHAIN. A run that is missing is passed over.
"""

from __future__ import annotations

import argparse
import re
from functools import partial
from pathlib import Path

import torch
from plugin import FIRST, corrupted
from torch import nn

from warplca.configs import EvaluationPlan
from warplca.configs.device import choose_device
from warplca.data import CORRUPTION_GROUPS, load_dataset
from warplca.eval import CorruptionSource, Entry, Execution, evaluate
from warplca.models import harden, load_checkpoint


def parser(text: str | None) -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("runs", nargs="*", type=Path)
    options.add_argument("--data", required=True, help="CIFAR-10, a source as `warplca train` takes it")
    options.add_argument("--corrupted", required=True, type=Path)
    options.add_argument("--results", default="field.sqlite", type=Path)
    options.add_argument("--images", type=int, default=2000, help="in each cell (default: %(default)s)")
    options.add_argument("--harden", nargs="+", default=[], help="chains to measure as well")
    options.add_argument(
        "--batch-size", type=int, default=500, help="images in one pass (default: %(default)s)"
    )
    options.add_argument(
        "--workers", type=int, default=1, help="processes that make images (default: %(default)s)"
    )
    options.add_argument("--device", help="(default: the accelerator if there is one)")
    return options


def named(run: Path) -> tuple[str, int]:
    """A run's name and seed."""
    found = re.fullmatch(r"(.+)-(\d+)", run.name)
    return (found[1], int(found[2])) if found else (run.name, 0)


def main() -> None:
    """Run from the command line."""
    arguments = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    device = choose_device(arguments.device)
    test = load_dataset(arguments.data, "test")
    some = test.subset(list(range(FIRST, FIRST + arguments.images)))
    corrupted(some, arguments.corrupted, arguments.workers)
    cells = EvaluationPlan(corruptions=CORRUPTION_GROUPS["standard"], batch_size=arguments.batch_size)
    clean = EvaluationPlan(batch_size=arguments.batch_size)
    for run in arguments.runs:
        if not (run / "checkpoint").is_dir():
            print(f"{run} has no checkpoint")
            continue
        name, seed = named(run)
        model: nn.Module = load_checkpoint(run / "checkpoint").to(device)
        for chain in [None, *arguments.harden]:
            behind = model if chain is None else harden(model, chain).to(device)
            entry = Entry(name if chain is None else f"{name} + {chain}", seed)
            measure = partial(
                evaluate,
                behind,
                results=arguments.results,
                name=entry,
                execution=Execution(progress=False),
            )
            measure(test, clean)
            found = measure(some, cells, corruptions=CorruptionSource(folder=arguments.corrupted))
            print(entry.name, seed, found.groupby("kind")["accuracy"].mean().to_dict(), flush=True)


if __name__ == "__main__":
    main()

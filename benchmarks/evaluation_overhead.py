"""What evaluation adds to the bare forward passes when the corrupted images lie in files.

Writes corrupted copies of CIFAR-size images to a temporary folder, then times in turns (a) a plain loop of
forward passes over images that are already float tensors in memory and (b) `evaluate` with
``corruption_source``, store on disk included. Prints the ratio of the shortest times, which other work on the
machine disturbs least; it should stay below 1.10. Processor time counts all threads.

    python benchmarks/evaluation_overhead.py --images 1000 --backbone resnet18
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from warplca.configs.plan import EvaluationPlan
from warplca.data import ImageDataset, load_dataset, open_cifar_c, write_corruptions
from warplca.eval import CorruptionSource, Execution, evaluate
from warplca.models import as_classifier

CORRUPTIONS = ("brightness", "contrast", "gaussian_noise")
SEVERITIES = (1, 3, 5)
Clocks = tuple[float, float]


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--backbone", default="resnet18", help="any timm model")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    whole = load_dataset("cifar10-subset", "test")
    dataset = whole.subset(range(min(options.images, len(whole))))
    network = timm.create_model(options.backbone, num_classes=len(dataset.class_names))
    model = as_classifier(network).eval()
    plan = EvaluationPlan(CORRUPTIONS, SEVERITIES, batch_size=options.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        write_corruptions(dataset, folder, names=CORRUPTIONS, severities=SEVERITIES)
        tensors = _tensors(dataset, folder)
        bare, full = [], []
        for _ in range(options.rounds):
            bare.append(_time_bare(model, tensors, options.batch_size))
            full.append(_time_evaluate(model, dataset, plan, folder))
    print(
        f"{options.backbone}, {len(dataset)} images, {len(tensors)} cells, {torch.get_num_threads()} threads"
    )
    for clock, name in enumerate(("wall", "processor")):
        plain, measured = (min(times[clock] for times in rounds) for rounds in (bare, full))
        print(f"{name} time: bare {plain:.2f} s, evaluate {measured:.2f} s, ratio {measured / plain:.3f}")


def _tensors(dataset: ImageDataset, folder: str) -> list[Tensor]:
    """All cells as float tensors, the clean one first."""
    files = open_cifar_c(folder, dataset=dataset)
    cells = [
        dataset.images,
        *(files.images(name, severity) for name in CORRUPTIONS for severity in SEVERITIES),
    ]
    return [torch.from_numpy(cell.copy()).permute(0, 3, 1, 2).contiguous().float() / 255 for cell in cells]


def _time_bare(model: nn.Module, tensors: list[Tensor], batch_size: int) -> Clocks:
    start = _clocks()
    with torch.no_grad():
        for cell in tensors:
            for batch in cell.split(batch_size):
                model(batch).argmax(dim=1)
    return _since(start)


def _time_evaluate(model: nn.Module, dataset: ImageDataset, plan: EvaluationPlan, folder: str) -> Clocks:
    with tempfile.TemporaryDirectory() as place:
        store = Path(place) / "results.sqlite"
        start = _clocks()
        evaluate(
            model,
            dataset,
            plan,
            results=store,
            corruptions=CorruptionSource(folder=folder),
            execution=Execution(progress=False),
        )
        return _since(start)


def _clocks() -> Clocks:
    return time.perf_counter(), time.process_time()


def _since(start: Clocks) -> Clocks:
    wall, processor = _clocks()
    return wall - start[0], processor - start[1]


if __name__ == "__main__":
    main()

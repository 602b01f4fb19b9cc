"""Put a trained classifier into the package: weights rounded to float16, with what was measured on it.

    python benchmarks/ship_checkpoint.py runs/quick-0/checkpoint cifar10-quick --data cifar10.npz \
        --results results.sqlite --name quick

Loading gives float32 again. The figures are those of the weights before rounding; the card says how many predictions of
the clean test images rounding changed, and more than one in a thousand is refused.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from warplca.data import ImageDataset, load_dataset
from warplca.eval.measure.inference import module_fingerprint
from warplca.models import load_checkpoint, save_checkpoint
from warplca.models.checkpoint import SHIPPED
from warplca.pipeline.exports import collect_evidence

LARGEST_SHARE = 1e-3


def predictions(model: nn.Module, dataset: ImageDataset, size: int = 250) -> Tensor:
    """Classes of all images."""
    parts = [range(start, min(start + size, len(dataset))) for start in range(0, len(dataset), size)]
    with torch.no_grad():
        return torch.cat([model(dataset.tensors(part)[0]).argmax(1) for part in parts])


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("checkpoint", type=Path)
    options.add_argument("shipped", help="its name in the package")
    options.add_argument("--data", required=True, help="CIFAR-10, a source as `warplca train` takes it")
    options.add_argument("--results", required=True, type=Path, help="results store")
    options.add_argument("--name", help="its name there")
    options.add_argument(
        "--init", help="shipped classifier that it was fine-tuned from, named in place of its path"
    )
    options.add_argument("--remark", default="", help="what the card should say, such as the mean over seeds")
    arguments = options.parse_args()
    model = load_checkpoint(arguments.checkpoint)
    training = dict(model.about["training"])
    if training.get("init"):
        if not arguments.init:
            raise SystemExit(
                f"it was fine-tuned from {training['init']}; name that shipped classifier with --init."
            )
        training["init"] = arguments.init
    rounded = copy.deepcopy(model).half()
    evidence = collect_evidence(arguments.results, model, name=arguments.name)
    test = load_dataset(arguments.data, "test")
    before, after = (predictions(one, test) for one in (model, copy.deepcopy(rounded).float()))
    changed = int((before != after).sum())
    if changed > LARGEST_SHARE * len(test):
        raise SystemExit(f"rounding changes {changed} of {len(test)} predictions; ship float32.")
    evidence["fingerprint"] = module_fingerprint(copy.deepcopy(rounded).float())
    evidence["settings"] |= {
        "weights": f"rounded to float16 after these measurements, which changed {changed} of {len(test)} clean answers"
    }
    results = {"remark": arguments.remark} if arguments.remark else None
    folder = SHIPPED / arguments.shipped
    facts = {"evidence": evidence, "results": results, "training": training}
    save_checkpoint(rounded, folder, **facts, image_size=test.size, source="")
    card = folder / "README.md"
    ours = "license: mit\ndatasets:\n- uoft-cs/cifar10\n"
    card.write_text(card.read_text().replace("license: unknown\n", ours, 1))
    print(f"{folder}: {changed} of {len(test)} answers changed by rounding")


if __name__ == "__main__":
    main()

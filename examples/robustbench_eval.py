"""Measure an exported model with RobustBench on local images and write its JSON entry, in an environment of its own.

RobustBench 1.1.1 pins another timm, so nothing of warplca is imported here: the model is the ONNX file, the images are
files.

    warplca export --checkpoint DIR --out model.onnx
    warplca corrupt --data cifar10-subset --out corrupted        # writes CIFAR-10-C's layout
    python -m venv rb && rb/bin/pip install robustbench==1.1.1 onnxruntime 'setuptools<81'
    rb/bin/python robustbench_eval.py model.onnx images.npz corrupted --name Mine2026

RobustBench 1.1.1 requires pyautoattack and imports it under its former name, autoattack: it gets that name here.
images.npz holds `test_images` (uint8, NHWC) and `test_labels`; `warplca.data.save_npz` writes it.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pyautoattack
import pyautoattack.state
import torch

sys.modules |= {"autoattack": pyautoattack, "autoattack.state": pyautoattack.state}

from robustbench import benchmark, data, utils  # noqa: E402 - it needs the name above
from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel  # noqa: E402


class OnnxModel(torch.nn.Module):
    """An ONNX file as a module from pixels in [0, 1] to logits; forward passes only, which corruptions need."""

    def __init__(self, path):
        super().__init__()
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def forward(self, images):
        """Return logits."""
        (logits,) = self.session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits)


def pixels(images):
    """Turn uint8 NHWC into floats in [0, 1], NCHW."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255.0


def use_local_images(clean, corrupted):
    """Put local files in the place of RobustBench's downloads."""
    with np.load(clean, allow_pickle=False) as file:
        images, labels = pixels(file["test_images"]), torch.from_numpy(file["test_labels"]).long()

    def load_clean(count, *rest, **options):
        return images[:count], labels[:count]

    def load_corrupted(count, severity, *rest, corruptions, **options):
        (name,) = corruptions
        truth = np.load(Path(corrupted) / "labels.npy")
        per_severity = len(truth) if len(truth) != 5 * len(images) else len(images)
        start = (severity - 1) * per_severity
        found = np.load(Path(corrupted) / f"{name}.npy", mmap_mode="r")[start : start + count]
        return pixels(np.array(found)), torch.from_numpy(truth[:count]).long()

    cifar = BenchmarkDataset.cifar_10
    data._clean_dataset_loaders[cifar] = load_clean
    data.CORRUPTION_DATASET_LOADERS[cifar][ThreatModel.corruptions] = load_corrupted
    return len(labels)


def leave_out_alexnet():
    """Let the mean corruption error be NaN: AlexNet's errors, its unit, are not in the package."""
    table = Path("model_info") / "cifar10" / "corruptions" / "unaggregated_results.csv"
    if not table.exists():
        table.parent.mkdir(parents=True, exist_ok=True)
        columns = pd.MultiIndex.from_product([data.CORRUPTIONS, range(1, 6)])
        pd.DataFrame(np.nan, index=["AlexNet"], columns=columns).to_csv(table, na_rep="nan")


def main():
    """Run RobustBench's own benchmark and show the entry that it wrote."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="ONNX file")
    parser.add_argument("clean", help=".npz with test_images and test_labels")
    parser.add_argument("corrupted", help="folder in CIFAR-10-C's layout")
    parser.add_argument("--name", required=True, help="name of the entry")
    parser.add_argument("--images", type=int, default=10000, help="use only so many")
    arguments = parser.parse_args()
    count = min(use_local_images(arguments.clean, arguments.corrupted), arguments.images)
    model = OnnxModel(arguments.model).eval()
    leave_out_alexnet()
    benchmark(
        model,
        n_examples=count,
        dataset="cifar10",
        threat_model="corruptions",
        to_disk=True,
        model_name=arguments.name,
        batch_size=100,
    )
    entry = Path("model_info") / "cifar10" / "corruptions" / f"{arguments.name}.json"
    values = json.loads(entry.read_text())
    if set(values) != set(utils.ModelInfo.__dataclass_fields__):
        raise SystemExit(f"{entry} is not of the form that RobustBench's leaderboard reads")
    description = json.loads(model.session.get_modelmeta().custom_metadata_map["warplca"])["model"]
    parts = description["frontend"]
    names = [part["name"] for part in ([parts] if isinstance(parts, dict) else parts)]
    values |= {
        "name": arguments.name,
        "architecture": f"{description['backbone']}, front-end {' + '.join(names)}",
        "number_forward_passes": 1,
        "footnote": f"{count} images",
    }
    entry.write_text(json.dumps(values, indent=2))
    sys.stdout.write(f"{entry}\n{entry.read_text()}\n")


if __name__ == "__main__":
    main()

"""How long the corruptions take.

Usage: python benchmarks/corruption_speed.py [--images 1000] [--full [--workers 2]]

Without ``--full``: the time of each corruption and severity for one image, on one core, and what
all 75 standard cells of 10,000 images come to. With ``--full``: really writes those 75 cells (2.3 GB,
to a temporary folder, from the embedded test images taken ten times) and prints time and memory.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time

import numpy as np

from warplca.data import (
    CORRUPTIONS,
    SEVERITIES,
    STANDARD_CORRUPTIONS,
    ImageDataset,
    agreement,
    corrupt,
    load_dataset,
    write_corruptions,
)

FULL_SET = 10_000


def table(images: np.ndarray) -> None:
    """Print microseconds an image for every corruption and severity."""
    print(f"{'microseconds an image, severity':32}" + "".join(f"{severity:8}" for severity in SEVERITIES))
    standard = 0.0
    for name in CORRUPTIONS:
        row = []
        for severity in SEVERITIES:
            corrupt(images[:1], name, severity=severity)  # opens textures and builds kernels
            start = time.process_time()
            corrupt(images, name, severity=severity)
            row.append((time.process_time() - start) / len(images))
        standard += sum(row) if name in STANDARD_CORRUPTIONS else 0
        print(f"{name:18}{agreement(name):14}" + "".join(f"{1e6 * seconds:8.0f}" for seconds in row))
    print(f"75 standard cells of {FULL_SET} images: {standard * FULL_SET:.0f} s on one core (extrapolated)")


def full(dataset: ImageDataset, workers: int) -> None:
    """Write all standard cells and print time and memory."""
    rows = np.arange(FULL_SET) % len(dataset)
    many = ImageDataset(dataset.name, dataset.images[rows], dataset.labels[rows], dataset.class_names)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_corruptions(many, folder, workers=workers)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss if workers > 1 else 0
    print(f"75 standard cells of {FULL_SET} images written in {seconds:.0f} s with {workers} workers;")
    print(f"peak memory {peak / 1e6:.2f} GB, and at most {child / 1e6:.2f} GB in each worker")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000, help="images to time (up to 1000)")
    parser.add_argument("--full", action="store_true", help="write all 75 cells of 10,000 images")
    parser.add_argument("--workers", type=int, default=2, help="processes, with --full")
    arguments = parser.parse_args()
    dataset = load_dataset("cifar10-subset", "test")
    if arguments.full:
        full(dataset, arguments.workers)
    else:
        table(dataset.images[: arguments.images])


if __name__ == "__main__":
    main()

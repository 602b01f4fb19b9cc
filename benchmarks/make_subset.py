"""Make the embedded CIFAR-10 subset from the full data set.

Usage: python benchmarks/make_subset.py FULL.npz OUT

Chooses 4,000 training and 1,000 test images, equally many of each class, with a fixed seed, and
packs them losslessly. Prints the SHA-256 that belongs into ``warplca/data/subset.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from warplca.data import load_dataset
from warplca.data.subset import write_subset

SEED = 20241024
TRAIN_IMAGES = 4000
TEST_IMAGES = 1000


def make_subset(full: Path, out: Path) -> str:
    """Choose the images, write them to ``out`` and return the SHA-256 of that file."""
    _, train = load_dataset(full, "train").split(TRAIN_IMAGES, SEED)
    _, test = load_dataset(full, "test").split(TEST_IMAGES, SEED)
    return write_subset(out, train, test)


def main() -> None:
    """Run from the command line."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    out = Path(sys.argv[2])
    digest = make_subset(Path(sys.argv[1]), out)
    sys.stdout.write(f"{out}: {out.stat().st_size / 1e6:.1f} MB, sha256 {digest}\n")


if __name__ == "__main__":
    main()

"""Run timm's train.py on images in memory: ``timm_in_memory.py CHECKOUT/train.py IMAGES --model NAME ...``.

timm's script reads images from files; ours keeps sets of this size in memory. This gives it the embedded images as
decoded pictures, so that both only train. Its models are those of timm and warplca.
"""

import runpy
import sys
from typing import Any

import numpy as np
import timm.data
from PIL import Image
from torch.utils.data import Dataset

import warplca.models  # noqa: F401 - makes the models known to timm
from warplca.data import load_dataset


class Pictures(Dataset):
    """The first images of the embedded training set as timm's datasets give them."""

    def __init__(self, count: int) -> None:
        dataset = load_dataset("cifar10-subset", "train")
        self.pictures = [Image.fromarray(np.asarray(image)) for image in dataset.images[:count]]
        self.labels = dataset.labels[:count].tolist()
        self.transform = None  # timm sets it

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        picture = self.pictures[number]
        return picture if self.transform is None else self.transform(picture), self.labels[number]


def main() -> None:
    """Hand the script its images and run it."""
    sys.argv.pop(0)
    script, count = sys.argv[0], int(sys.argv.pop(1))

    def create_dataset(name: str, split: str = "train", **options: Any) -> Pictures:
        return Pictures(count if split == "train" else 2)

    timm.data.create_dataset = create_dataset
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()

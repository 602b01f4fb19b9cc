"""The images that a checkpoint is measured and exported on: its own data, or others that fit it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..configs.errors import InputError
from ..data import ImageDataset, load_dataset
from ..data.sources import Split
from ..data.subset import SUBSET_NAME
from ..models import Classifier

Say = Callable[[str], None]


def data_for(
    model: Classifier, given: str | None, split: Split, *, say: Say = lambda line: None
) -> ImageDataset:
    """Return images for a checkpoint.

    Args:
        model: The classifier, loaded from a checkpoint.
        given: What the user named; None takes the data that the checkpoint was trained on and, where they are not here,
            the embedded subset if its classes and size are the checkpoint's.
        split: "train" or "test".
        say: Receives a line that names what is used, where the user did not.

    Raises:
        InputError: If there are no such images, or their classes or size are others than the checkpoint's.
    """
    if given is not None:
        return fitted(load_dataset(given, split), model)
    own = str(model.about.get("source", "")).replace("torchvision-download:", "torchvision:", 1)
    try:
        if not own:
            raise InputError("it does not say which")
        dataset = fitted(load_dataset(own, split), model)
        say(f"data:        {own}, which the checkpoint was trained on")
        return dataset
    except InputError as error:
        missing = error
    try:
        dataset = fitted(load_dataset(SUBSET_NAME, split), model)
    except InputError:
        raise InputError(
            f"the data that the checkpoint was trained on are not to be had ({str(missing).rstrip('.')}); give --data."
        ) from missing
    say(
        f"data:        {SUBSET_NAME}, which has the checkpoint's classes and size; its own data ({own or 'not named'}) "
        "are not here"
    )
    return dataset


def fitted(dataset: ImageDataset, model: Classifier) -> ImageDataset:
    """Return a data set with its labels in the order of a classifier's classes.

    Raises:
        InputError: If its classes or the size of its images are not the classifier's.
    """
    size = tuple(model.about.get("image_size", dataset.size))
    if dataset.size != size:
        raise InputError(
            f"{dataset.name} has images of {_size(dataset.size)} pixels, and the checkpoint is for {_size(size)}; give "
            f"images of that size, for instance a folder as files:{size[0]}:FOLDER."
        )
    names = tuple(map(str, model.about.get("class_names", ())))
    if not names and len(dataset.class_names) == model.num_classes:
        return dataset  # the checkpoint does not name its classes: their number is all there is to compare
    if set(dataset.class_names) != set(names):
        other = sorted(set(dataset.class_names) ^ set(names))
        first = f", which differ first in {other[0]!r}" if names else ""
        raise InputError(
            f"{dataset.name} has {len(dataset.class_names)} classes and the checkpoint {model.num_classes}{first}; "
            "give the data that it was trained on, or name the classes alike."
        )
    if dataset.class_names == names:
        return dataset
    place = np.array([names.index(name) for name in dataset.class_names])
    return replace(dataset, labels=place[dataset.labels], class_names=names)


def _size(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))

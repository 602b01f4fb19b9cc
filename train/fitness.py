"""Whether data and configuration fit together, and what makes two runs the same."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from ..configs import InputError, RunConfig
from ..configs.merge import merge
from ..data import ImageDataset

OPERATION = ("save_minutes", "keep_states", "log_steps")
"""Settings that change nothing in the result: a run may go on with others."""


def check_data(config: RunConfig, dataset: ImageDataset, processes: int) -> None:
    """Refuse images that do not fit the model or the recipe, and more processes than images.

    Raises:
        InputError: What came, what was expected, what to do.
    """
    recipe = config.train
    if len(dataset.class_names) != config.model.num_classes:
        raise InputError(
            f"{dataset.name} has {len(dataset.class_names)} classes, the model has num_classes "
            f"{config.model.num_classes}; make them equal."
        )
    if min(dataset.size) <= recipe.crop_padding:
        raise InputError(
            f"{dataset.name} has images of {dataset.size[0]} x {dataset.size[1]} pixels, too small for "
            f"crop_padding {recipe.crop_padding}; set train.crop_padding below {min(dataset.size)}."
        )
    images = min(len(dataset) - recipe.validation_images, recipe.batch_size)
    if processes > images > 0:
        raise InputError(
            f"{processes} processes share batches of {images} images; start at most {images} processes, or raise "
            "train.batch_size."
        )


def identity(about: dict[str, Any]) -> dict[str, Any]:
    """Return what makes two runs the same: all of the configuration but what only concerns operation."""
    config = about["config"]
    recipe = {name: value for name, value in config["train"].items() if name not in OPERATION}
    recipe["augment"] = {name: value for name, value in recipe["augment"].items() if name != "workers"}
    return {
        "model": config["model"],
        "train": recipe,
        "data": config["data"],
        "dataset": about["dataset"],
        "images": about["images"],
    }


def completed(saved: dict[str, Any]) -> dict[str, Any]:
    """Return a saved identity with the settings that its version did not know yet at their defaults."""
    defaults = identity(
        {"config": json.loads(json.dumps(asdict(RunConfig()))), "dataset": None, "images": None}
    )
    return merge(defaults, saved)

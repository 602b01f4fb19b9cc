"""A task that a tiny network learns in seconds, for the tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from warplca.attacks import SuiteSession
from warplca.configs import RunConfig, from_dict
from warplca.data import ImageDataset
from warplca.eval import Execution

QUIET = Execution(progress=False)
QUIET_SUITE = SuiteSession(progress=False)

TIMES = ["images_per_second", "data_share"]
"""Columns of the curves that differ between equal runs."""


def stripes(count: int = 96, seed: int = 0) -> ImageDataset:
    """Two classes that differ in the direction of stripes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    rows = (np.arange(16)[None, :, None] // 2 % 2) * np.ones((1, 1, 16))
    images = np.where(labels[:, None, None] == 0, rows, rows.transpose(0, 2, 1)) * 120 + 60
    images = images[..., None] + rng.normal(0, 20, (count, 16, 16, 3))
    return ImageDataset("stripes", np.clip(images, 0, 255).astype(np.uint8), labels, ("rows", "columns"))


CODE = {"features": 8, "kernel_size": 5}
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "conv": CODE,
    "lca": {**CODE, "iterations": 2, "threshold": "soft", "lam": 0.2},
    "warp-lca": {**CODE, "iterations": 2, "threshold": "soft", "lam": 0.2},
}
"""Settings of tiny front-ends."""


def section(frontend: str | None, **settings: Any) -> dict[str, Any]:
    """Return the section of a tiny front-end."""
    name = frontend or "none"
    return {"name": name, **SETTINGS[name], **settings}


def config(
    frontend: str | list[Any] | None = "warp-lca",
    *,
    options: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    changes: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    **recipe: Any,
) -> RunConfig:
    """Return a run of a tiny network on :func:`stripes`: 5 steps an epoch.

    ``settings`` are of the front-end, ``changes`` of the model, ``training`` of ``train.frontend``.
    """
    backbone = {"channels": [8, 8, 16, 16], "stem_width": 8, **(options or {})}
    model = {
        "frontend": frontend if isinstance(frontend, list) else section(frontend, **(settings or {})),
        "num_classes": 2,
        "backbone_options": backbone,
        **(changes or {}),
    }
    train = {"epochs": 3, "batch_size": 16, "learning_rate": 0.1, "validation_images": 16, **recipe}
    train["frontend"] = training or {}
    return from_dict(RunConfig, {"model": model, "train": train}, where="test")


def states(out: Path) -> list[str]:
    """Names of a run's saved states, in order."""
    return sorted(path.name for path in (out / "states").iterdir())


def same_weights(left: nn.Module, right: nn.Module) -> bool:
    """Whether two models hold the same tensors, bit for bit."""
    pairs = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)

"""The saved state of a training run: one safetensors file with JSON in its header, written atomically."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..configs import InputError
from ..configs.atomic import file_written_whole


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: Steps done.
        curves: One row per finished epoch.
        sums: Running sums of the epoch under way.
    """

    step: int
    curves: list[dict[str, float]]
    sums: dict[str, float]


def save_state(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress, config: dict[str, Any]
) -> None:
    """Write all that continuing needs; random numbers are seeded by the step and need no state."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{index}.{name}"] = value
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    about = {"step": progress.step, "curves": progress.curves, "sums": progress.sums, "config": config}
    with file_written_whole(path) as target:
        target.write_bytes(save(tensors, {"warplca": json.dumps(about)}))


def load_state(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, config: dict[str, Any]
) -> Progress:
    """Load a saved state into model and optimiser.

    Raises:
        InputError: If the file is truncated or belongs to a run with another configuration.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["warplca"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the saved state {path} cannot be read; delete it to start this run anew."
        ) from error
    if about["config"] != config:
        changed = [key for key in config if about["config"].get(key) != config[key]]
        raise InputError(
            f"{path.parent} holds a run with another configuration (different: {', '.join(changed) or 'version'}); "
            "choose another output folder, or delete that one."
        )
    model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
    saved = optimiser.state_dict()
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".", 2)
            saved["state"].setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict(saved)
    return Progress(about["step"], about["curves"], about["sums"])

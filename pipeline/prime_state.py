"""The saved state of a priming stage: layer and optimiser in safetensors, the rest as JSON in its header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..configs import InputError
from ..configs.atomic import file_written_whole
from ..frontend.stages import Stage

JOB = "job.json"


def claim_folder(folder: Path, identity: dict[str, Any]) -> None:
    """Write whose states a folder holds, before the first of them.

    Raises:
        InputError: If it belongs to another job.
    """
    file = folder / JOB
    if not file.exists():
        with file_written_whole(file) as target:
            target.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")
        return
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read; delete the folder {folder} to start anew.") from error
    _refuse_another(folder, kept, identity)


def _refuse_another(folder: Path, kept: dict[str, Any], identity: dict[str, Any]) -> None:
    if kept != identity:
        changed = [key for key in identity if kept.get(key) != identity[key]]
        raise InputError(
            f"{folder} holds a priming job with another configuration (different: {', '.join(changed)}); choose "
            "another output folder, or delete that one."
        )


def save_stage(file: Path, stage: Stage, step: int, identity: dict[str, Any]) -> None:
    """Write all that continuing needs, whole or not at all; random numbers follow from the step."""
    tensors = {f"layer.{name}": value for name, value in stage.layer.state_dict().items()}
    for index, state in stage.optimiser.state_dict()["state"].items():
        tensors |= {
            f"optimiser.{index}.{name}": value for name, value in state.items() if isinstance(value, Tensor)
        }
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with file_written_whole(file) as target:
        save_file(tensors, target, {"warplca": json.dumps({"step": step, "job": identity})})


def load_stage(file: Path, stage: Stage, identity: dict[str, Any]) -> int:
    """Load a saved state into a stage's layer and optimiser and return the number of steps done.

    Raises:
        InputError: If the file cannot be read or belongs to another job.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            about = json.loads(opened.metadata()["warplca"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the saved state {file} cannot be read; delete the folder {file.parent} to start anew."
        ) from error
    _refuse_another(file.parent, about["job"], identity)
    stage.layer.load_state_dict(
        {name.removeprefix("layer."): value for name, value in tensors.items() if name.startswith("layer.")}
    )
    saved = stage.optimiser.state_dict()
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".", 2)
            saved["state"].setdefault(int(index), {})[key] = tensor
    stage.optimiser.load_state_dict(saved)
    return about["step"]

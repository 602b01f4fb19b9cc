"""Checkpoint folders: ``model.safetensors``, ``config.json``, ``README.md``; nothing is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from .. import __version__
from ..configs import InputError, ModelConfig, from_dict
from ..configs.atomic import folder_written_whole
from .classifier import Classifier, build_classifier

FORMAT = 1


def save_checkpoint(
    model: Classifier,
    folder: str | Path,
    *,
    class_names: Sequence[str] = (),
    training: Mapping[str, Any] | None = None,
    results: Mapping[str, str] | None = None,
) -> None:
    """Write a checkpoint folder, whole or not at all; an older one of that name is replaced.

    Args:
        model: The classifier.
        folder: Where to.
        class_names: Names of the classes, in the order of the logits.
        training: What a reader should know of the training (recipe, data, seed), as plain values.
        results: Measured results for the model card, e.g. ``{"clean": "62.1 % of 1,000"}``.

    Raises:
        InputError: If the folder cannot be written or the disk is full; what was there before stays.
    """
    config = {
        "architecture": f"warplca_{model.config.backbone}",
        "num_classes": model.num_classes,
        "pretrained_cfg": {
            "input_size": [model.config.in_channels, 32, 32],
            "fixed_input_size": False,
            "mean": [0.0] * model.config.in_channels,
            "std": [1.0] * model.config.in_channels,
            "crop_pct": 1.0,
            "interpolation": "bicubic",
        },
        "warplca": {
            "format": FORMAT,
            "version": __version__,
            "torch": torch.__version__,
            "timm": timm.__version__,
            "model": asdict(model.config),
            "class_names": list(class_names),
            "training": dict(training or {}),
            "results": dict(results or {}),
        },
    }
    with folder_written_whole(Path(folder)) as target:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        (target / "model.safetensors").write_bytes(save(state))
        (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (target / "README.md").write_text(model_card(config), encoding="utf-8")


def read_card(folder: str | Path) -> dict[str, Any]:
    """Return a checkpoint's ``config.json``.

    Raises:
        InputError: If the folder or its config.json is missing, or was not written by warplca.
    """
    path = Path(folder) / "config.json"
    if not Path(folder).is_dir():
        raise InputError(
            f"there is no checkpoint folder {folder}; give the folder that `warplca train` wrote."
        )
    if not path.is_file():
        raise InputError(
            f"{folder} holds no config.json; give a checkpoint folder that `warplca train` wrote."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        written = config["warplca"]["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not the description of a warplca checkpoint.") from error
    if written != FORMAT:
        raise InputError(
            f"{path} has checkpoint format {written}; this version of warplca reads format {FORMAT}."
        )
    return config


def load_checkpoint(folder: str | Path) -> Classifier:
    """Rebuild a classifier from a checkpoint folder, in evaluation mode.

    Raises:
        InputError: If a file is missing or truncated, or the weights belong to another architecture.
    """
    config = from_dict(ModelConfig, read_card(folder)["warplca"]["model"], where=f"{folder}/config.json")
    model = build_classifier(config, load_weights=False)
    load_weights(model, Path(folder) / "model.safetensors")
    return model.eval()


def load_weights(model: Classifier, path: Path) -> None:
    """Load a safetensors file into a classifier; every tensor must match by name and shape."""
    if not path.is_file():
        raise InputError(f"{path.parent} holds no model.safetensors; copy the whole checkpoint folder.")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} cannot be read ({error}): it is truncated or no safetensors file."
        ) from error
    own = model.state_dict()
    differing = sorted(own.keys() ^ state.keys())
    differing += [name for name in own if name in state and own[name].shape != state[name].shape]
    if differing:
        raise InputError(
            f"{path} belongs to another architecture: {len(differing)} tensors differ from {model.config.backbone!r} "
            f"with front-end {model.config.frontend!r}, first {differing[0]!r}; load it with its own config.json."
        )
    model.load_state_dict(state)


def model_card(config: Mapping[str, Any]) -> str:
    """Return the README.md of a checkpoint: what it is, how it was trained, what was measured."""
    ours = config["warplca"]
    model = ours["model"]
    frontend = model["frontend"] or "no front-end"
    lines = [
        "---",
        "library_name: timm",
        "tags: [image-classification, warplca, robustness]",
        "---",
        f"# {model['backbone']} with {frontend}",
        "",
        "Input: RGB pixels in [0, 1], (N, C, H, W); normalisation is inside. Load with",
        "`warplca.models.load_checkpoint(folder)`.",
        "",
        "| part | value |",
        "|---|---|",
    ]
    lines += [f"| {key} | {value} |" for key, value in model.items() if value not in (None, {})]
    for title, table in (("Training", ours["training"]), ("Measured results", ours["results"])):
        lines += ["", f"## {title}", ""]
        rows = [f"| {key} | {value} |" for key, value in table.items()]
        lines += ["| what | value |", "|---|---|", *rows] if rows else ["Nothing recorded."]
    return "\n".join(lines) + "\n"

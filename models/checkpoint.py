"""Checkpoint folders: ``model.safetensors``, ``config.json``, ``README.md``, ``SHA256SUMS``; nothing is unpickled."""

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
from .card import model_card
from .classifier import Classifier, build_classifier, data_config
from .integrity import MANIFEST, refuse_pickle, refuse_pickles, verify_manifest, write_manifest
from .registry import architecture, model_arguments
from .shipped import checkpoint_folder, shipped_checkpoints

FORMAT = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
FILES = (WEIGHTS, CONFIG, CARD, MANIFEST)


def save_checkpoint(
    model: Classifier,
    folder: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    training: Mapping[str, Any] | None = None,
    results: Mapping[str, str] | None = None,
    evidence: Mapping[str, Any] | None = None,
    image_size: tuple[int, int] | None = None,
) -> None:
    """Write a checkpoint folder, whole or not at all; an older one of that name is replaced.

    What is None is taken from ``model.about``, which a loaded model brings along.

    Args:
        model: The classifier.
        folder: Where to.
        class_names: Names of the classes, in the order of the logits.
        training: What a reader should know of the training (recipe, data, seed), as plain values.
        results: Measured figures for the model card, e.g. ``{"clean": "62.1 % of 1,000"}``.
        evidence: Measured cells, settings and verdict, as plain values; see :mod:`~warplca.models.card`.
        image_size: Height and width of the images it was trained on; None takes the backbone's, or 32 x 32.

    Raises:
        InputError: If the folder cannot be written or the disk is full; what was there before stays.
    """
    with folder_written_whole(Path(folder)) as target:
        write_files(
            model,
            target,
            class_names=class_names,
            training=training,
            results=results,
            evidence=evidence,
            image_size=image_size,
        )


def write_files(model: Classifier, folder: Path, **told: Any) -> None:
    """Write a checkpoint's files into a folder; keyword arguments are those of :func:`save_checkpoint`."""
    config = describe(model, {**model.about, **{key: v for key, v in told.items() if v is not None}})
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    (folder / WEIGHTS).write_bytes(save(state))
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(model_card(config), encoding="utf-8")
    write_manifest(folder, (WEIGHTS, CONFIG))  # the card is for people, who may edit it


def describe(model: Classifier, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's ``config.json``: timm's keys, so that timm can rebuild the model, and our own."""
    if not model.num_classes:
        raise InputError("the model has no classification layer; call reset_classifier(num_classes) first.")
    class_names = list(about.get("class_names", ()))
    cfg = data_config(model.config, about.get("image_size"))
    return {
        "architecture": architecture(model.config.backbone),
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        **({"label_names": class_names} if class_names else {}),
        "model_args": model_arguments(model.config),
        "pretrained_cfg": {**cfg, "num_classes": model.num_classes},
        "warplca": {
            "format": FORMAT,
            "version": __version__,
            "torch": torch.__version__,
            "timm": timm.__version__,
            "parameters": sum(p.numel() for p in model.parameters()),
            "model": asdict(model.config),
            "class_names": class_names,
            "training": dict(about.get("training", {})),
            "results": dict(about.get("results", {})),
            "evidence": dict(about.get("evidence", {})),
        },
    }


def read_card(folder: str | Path) -> dict[str, Any]:
    """Return a checkpoint's ``config.json``, after checking the folder's files.

    Raises:
        InputError: If the folder or its config.json is missing, was not written by warplca, differs from its
            manifest, or if there is a pickle.
    """
    folder = checkpoint_folder(folder)
    if folder.is_file():
        refuse_pickle(folder)
    if not folder.is_dir():
        known = f", or a shipped one: {', '.join(shipped_checkpoints())}" if shipped_checkpoints() else ""
        raise InputError(
            f"there is no checkpoint folder {folder}; give the folder that `warplca train` wrote{known}."
        )
    path = folder / CONFIG
    refuse_pickles(folder)
    if not path.is_file():
        raise InputError(
            f"{folder} holds no config.json; give a checkpoint folder that `warplca train` wrote."
        )
    verify_manifest(folder)
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
    """Rebuild a classifier from a checkpoint folder, in evaluation mode; nothing is ever unpickled.

    Args:
        folder: The folder, or the name of a shipped classifier (``shipped_checkpoints()``).

    Raises:
        InputError: If a file is missing, truncated or changed, the folder holds a pickle, or the weights belong
            to another architecture.
    """
    folder = checkpoint_folder(folder)
    card = read_card(folder)
    config = from_dict(ModelConfig, card["warplca"]["model"], where=f"{folder}/config.json")
    model = build_classifier(config, load_weights=False)
    load_weights(model, folder / WEIGHTS)
    keys = ("class_names", "training", "results", "evidence")
    model.about = {key: card["warplca"][key] for key in keys if key in card["warplca"]}
    model.about["image_size"] = tuple(card["pretrained_cfg"]["input_size"][1:])
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
    # Plain numbers saved beside the weights: modules supply those that an older checkpoint does not hold.
    differing = sorted(name for name in own.keys() ^ state.keys() if not name.endswith("_extra_state"))
    differing += [
        name
        for name in own
        if name in state and own[name].shape != state[name].shape and not name.endswith("_extra_state")
    ]
    if differing:
        raise InputError(
            f"{path} belongs to another architecture: {len(differing)} tensors differ from {model.config.backbone!r} "
            f"with front-end {model.config.frontend!r}, first {differing[0]!r}; load it with its own config.json."
        )
    model.load_state_dict(state)

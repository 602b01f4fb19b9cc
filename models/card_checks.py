"""Checks of a checkpoint's description: the file may come from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..configs.errors import InputError, brief, check_class_names

FORMAT = 2

PARTS: dict[str, type] = {
    **dict.fromkeys(("model", "training", "results", "evidence"), dict),
    **dict.fromkeys(("version", "torch", "timm", "source"), str),
    "class_names": list,
    "parameters": int,
}
"""Keys of a description that we read, and their types."""


def described(config: Any, path: Path) -> dict[str, Any]:
    """Return a checkpoint's description after checking what others rely on: the file may come from anywhere.

    Raises:
        InputError: If it is no description of a checkpoint, is damaged, or is of another format.
    """
    ours = config.get("warplca") if isinstance(config, dict) else None
    if not isinstance(ours, dict) or "format" not in ours:
        raise InputError(f"{path} is not the description of a warplca checkpoint.")
    if ours["format"] != FORMAT:
        raise InputError(
            f"{path} has checkpoint format {brief(ours['format'])}; this version of warplca reads format {FORMAT}."
        )
    for key, kind in PARTS.items():
        if not isinstance(ours.setdefault(key, kind()), kind):
            raise InputError(
                f"{path}: {key} is {brief(ours[key])}; the file is damaged, copy the folder again."
            )
    size = (
        config["pretrained_cfg"].get("input_size") if isinstance(config.get("pretrained_cfg"), dict) else None
    )
    if not (
        isinstance(size, list) and len(size) == 3 and all(isinstance(n, int) and 0 < n < 2**14 for n in size)
    ):
        raise InputError(f"{path}: input_size is {brief(size)}; expected channels, height and width.")
    preprocessing = config["pretrained_cfg"]
    if preprocessing.get("crop_mode", "center") != "center" or preprocessing.get("crop_pct", 1.0) != 1.0:
        raise InputError(
            f"{path} prepares images in a way that this version of warplca does not know; use a later one."
        )
    classes = config.get("num_classes")
    ours["class_names"] = list(check_class_names(ours["class_names"], str(path)))
    if not isinstance(classes, int) or len(ours["class_names"]) not in (0, classes):
        raise InputError(
            f"{path} has num_classes {brief(classes)} and {len(ours['class_names'])} class names."
        )
    sections = ours["model"].get("frontend")
    for section in sections if isinstance(sections, list) and sections else [sections]:
        if not isinstance(section, dict) or not isinstance(section.get("name"), str):
            raise InputError(f"{path}: a front-end is {brief(section)}; expected its settings with its name.")
    if not isinstance(ours["model"].get("backbone"), str):
        raise InputError(
            f"{path}: the backbone is {brief(ours['model'].get('backbone'))}; expected its name."
        )
    check_evidence(ours["evidence"], path)
    return config


def check_evidence(evidence: Mapping[str, Any], path: object) -> None:
    """Refuse evidence that no card could show.

    Raises:
        InputError: If a cell lacks what it was, or its accuracy, or has another type there.
    """
    cells = evidence.get("cells", [])
    for cell in cells if isinstance(cells, list) else [cells]:
        if not (isinstance(cells, list) and isinstance(cell, dict) and _is_cell(cell)):
            raise InputError(
                f"{path}: the evidence holds {brief(cell)}, which is no measured cell; it is damaged."
            )
    if not isinstance(evidence.get("settings", {}), Mapping):
        raise InputError(
            f"{path}: the settings of the evidence are {brief(evidence['settings'])}; it is damaged."
        )


def _is_cell(cell: Mapping[str, Any]) -> bool:
    """Tell whether a measured cell has what cards show of it; corruptions stand in tables by severity."""
    shares = [cell.get("accuracy", -1), cell.get("low"), cell.get("high")]
    return (
        all(isinstance(cell.get(key), str) for key in ("kind", "condition"))
        and all(value is None or (isinstance(value, int | float) and 0 <= value <= 1) for value in shares)
        and shares[0] is not None
        and isinstance(cell.get("images", 0), int)
        and isinstance(cell.get("severity"), int if cell["kind"] == "corruption" else int | None)
    )

"""The model card of a checkpoint: what it is, how it was trained, how robust it is and by what evidence.

Evidence comes in as plain values, so that this folder needs nothing of the evaluation::

    {
        "model": "warp-lca", "dataset": "cifar10", "seed": 0,
        "cells": [{"kind": "corruption", "condition": "gaussian_noise", "severity": 3, "threat": "",
                   "accuracy": 0.51, "low": 0.47, "high": 0.55, "images": 500}, ...],
        "settings": {"attack_images": 100, ...},
        "verdict": "trusted" or any mapping of names to plain values,
    }

Unknown keys are shown as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ..configs.errors import InputError, brief, check_class_names
from ..configs.extensions import FRONTENDS
from ..frontend.gate import check_gate

FORMAT = 2

PARTS: dict[str, type] = {
    **dict.fromkeys(("model", "training", "results", "evidence"), dict),
    **dict.fromkeys(("version", "torch", "timm", "source"), str),
    "class_names": list,
    "parameters": int,
}
"""What a description holds of ours, and the types that others rely on."""

UNASSESSED = (
    "Not assessed for gradient masking: accuracies under attack are upper bounds, and nothing shows that the "
    "gradients behind them can be trusted."
)
SHOWN_BEFORE = ("cells", "verdict", "settings")


def model_card(config: Mapping[str, Any]) -> str:
    """Return the README.md of a checkpoint from its ``config.json``; the front matter is the Hub's."""
    ours = config["warplca"]
    model = ours["model"]
    title = _title(model)
    parts = [
        f"---\n{_front_matter(title, ours)}---",
        f"# {title}",
        "Input: RGB pixels in [0, 1], (N, C, H, W); normalisation is inside. Load with\n"
        "`warplca.models.load_checkpoint(folder)` or, once warplca is imported, with\n"
        '`timm.create_model("local-dir:folder", pretrained=True)`.',
        _table_of_parts(model),
        *_gates(model),
        "## Training",
        _facts(ours["training"]),
        "## Measured results",
        _measured(ours),
    ]
    return "\n\n".join(parts) + "\n"


def summary(config: Mapping[str, Any]) -> str:
    """Say what a checkpoint is, how it was trained, how robust it is and by what evidence, for the screen."""
    ours = config["warplca"]
    model = ours["model"]
    names = ", ".join(ours["class_names"]) or "not named"
    size = " x ".join(str(side) for side in config["pretrained_cfg"]["input_size"])
    count = ours.get("parameters", 0)
    weights = f"{count / 1e6:.2f} million weights" if 0 < count < 2**60 else "weights"
    return "\n\n".join(
        [
            f"{_title(model)}: {weights}, images {size}, {config['num_classes']} classes ({names})",
            f"Written by warplca {ours['version']}, torch {ours['torch']}, timm {ours['timm']}.",
            _table_of_parts(model),
            *_gates(model),
            f"## Training\n\n{_facts(ours['training'])}",
            f"## How robust, by what evidence\n\n{_measured(ours)}",
        ]
    )


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
    timm = config["pretrained_cfg"]
    if timm.get("crop_mode", "center") != "center" or timm.get("crop_pct", 1.0) != 1.0:
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


def _title(model: Mapping[str, Any]) -> str:
    names = [section["name"] for section in _frontends(model)]
    return f"{model['backbone']} with {'no front-end' if names == ['none'] else ' + '.join(names)}"


def _frontends(model: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The sections of a model's front-ends, in order."""
    found = model["frontend"]
    return [found] if isinstance(found, Mapping) else found


def _table_of_parts(model: Mapping[str, Any]) -> str:
    rows = [(key, value) for key, value in model.items() if key != "frontend" and value not in (None, {})]
    for section in _frontends(model):
        rows += [
            (f"{section['name']}: {key}", value)
            for key, value in section.items()
            if key != "name" and value is not None
        ]
    return table(("part", "value"), rows)


def _gates(model: Mapping[str, Any]) -> Iterator[str]:
    """What opens each gate, and where that estimate fails; nothing without gates."""
    known, lines = FRONTENDS.items(), []
    for section in _frontends(model):
        damage = known[section["name"]].damage if section["name"] in known else ""
        gate = check_gate(section.get("gate") or None) if damage else None
        if gate:
            lines.append(
                f"- {section['name']} begins to open at {gate[0]:g} and is open at {gate[1]:g}: {damage}"
            )
    if lines:
        yield "\n".join(["## Gates: what opens them, and where that fails", "", *lines])


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    lines += [
        "| " + " | ".join(str(entry).replace("|", "\\|").replace("\n", " ") for entry in row) + " |"
        for row in rows
    ]
    return "\n".join(lines)


def _facts(facts: Mapping[str, Any]) -> str:
    rows = list(_flat(facts))
    return table(("what", "value"), rows) if rows else "Nothing recorded."


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Entries of nested sections under the dotted keys of the command line; unset ones are left out."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _measured(ours: Mapping[str, Any]) -> str:
    evidence = ours.get("evidence", {})
    cells = evidence.get("cells", ())
    parts = [_facts(ours["results"])] if ours["results"] or not cells else []
    parts += _cell_tables(cells)
    if evidence:
        settings = {key: value for key, value in evidence.items() if key not in SHOWN_BEFORE}
        parts += ["### How it was measured", _facts({**settings, **dict(evidence.get("settings", {}))})]
    if evidence.get("verdict") or any(cell["kind"] == "attack" for cell in cells):
        parts += ["### May the adversarial figures be believed?", _verdict(evidence.get("verdict"))]
    return "\n\n".join(parts)


def _verdict(verdict: Any) -> str:
    if not verdict:
        return UNASSESSED
    return _facts(verdict) if isinstance(verdict, Mapping) else str(verdict)


def _cell_tables(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """One table of clean and attacked cells with intervals, one of corruptions over severities."""
    whole = [cell for cell in cells if cell["kind"] != "corruption"]
    rows = [
        (_label(cell), _percent(cell["accuracy"]), _interval(cell), cell.get("images", "")) for cell in whole
    ]
    tables = [table(("images", "accuracy", "95 % interval", "number"), rows)] if rows else []
    corrupted = [cell for cell in cells if cell["kind"] == "corruption"]
    if corrupted:
        severities = sorted({cell["severity"] for cell in corrupted})
        names = dict.fromkeys(cell["condition"] for cell in corrupted)
        found = {(cell["condition"], cell["severity"]): _percent(cell["accuracy"]) for cell in corrupted}
        counts = "/".join(
            sorted({str(cell.get("images", "?")) for cell in corrupted}, key=lambda n: (len(n), n))
        )
        heads = ("corruption", *(f"severity {severity}" for severity in severities))
        rows = [(name, *(found.get((name, s), "") for s in severities)) for name in names]
        mean = sum(cell["accuracy"] for cell in corrupted) / len(corrupted)
        tables += [
            table(heads, rows),
            f"Mean over these {len(corrupted)} cells, {counts} images each: {_percent(mean)}.",
        ]
    return tables


def _label(cell: Mapping[str, Any]) -> str:
    if cell["kind"] == "clean":
        return "clean"
    # What concerns the smoothed classifier must not pass for the network's own accuracy.
    smoothed = cell["kind"] if cell["kind"] in ("certificate", "smoothed attack") else ""
    return ", ".join(str(part) for part in (smoothed, cell["condition"], cell.get("threat")) if part)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _interval(cell: Mapping[str, Any]) -> str:
    if cell.get("low") is None or cell.get("high") is None:
        return ""
    return f"{100 * cell['low']:.1f} to {100 * cell['high']:.1f} %"


def _front_matter(title: str, ours: Mapping[str, Any]) -> str:
    """Return the Hub's metadata; accuracies become results that the Hub shows."""
    evidence = ours.get("evidence", {})
    data = str(evidence.get("dataset", "unknown"))
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=data,
            dataset_name=f"{data}, {_label(cell)}",
            dataset_config=_label(cell),
            metric_type="accuracy",
            metric_value=round(float(cell["accuracy"]), 4),
        )
        for cell in evidence.get("cells", ())
        if cell["kind"] != "corruption"
    ]
    card = ModelCardData(
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["image-classification", "robustness", "warplca"],
        model_name=title if results else None,
        eval_results=results or None,
    )
    return card.to_yaml() + "\n"

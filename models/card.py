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
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ..configs.extensions import FRONTENDS
from ..frontend.gate import check_gate

UNASSESSED = (
    "Not assessed for gradient masking: accuracies under attack are upper bounds, and nothing shows that the "
    "gradients behind them can be trusted."
)
CIFAR10 = ("cifar10-subset", "torchvision", "torchvision-download")
"""Sources of CIFAR-10, which the Hub calls uoft-cs/cifar10."""
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


def headline(config: Mapping[str, Any]) -> str:
    """Say in a few lines how robust a checkpoint is, whether that can be believed, and what it is."""
    ours = config["warplca"]
    gates = [line for text in _gates(ours["model"]) for line in text.splitlines()[2:]]
    lines = [standing(config), "", _identity(config), *gates]
    facts = dict(_flat(ours["training"]))
    shown = [
        f"{key} {facts[key]}" for key in ("data", "epochs", "loss.name", "augment.policy") if key in facts
    ]
    return "\n".join([*lines, f"training: {', '.join(shown) or 'nothing recorded'}"])


def standing(config: Mapping[str, Any]) -> str:
    """Say in a line each how accurate a checkpoint is clean, corrupted and attacked, and whether to believe it."""
    return "\n".join(_standing(config["warplca"].get("evidence", {})))


def _standing(evidence: Mapping[str, Any]) -> Iterator[str]:
    """Clean, corrupted and attacked accuracy in a line each, and whether the attacked ones can be believed."""
    cells = evidence.get("cells", ())
    if not cells:
        yield "how robust: not measured; `warplca export --format safetensors --results FILE` brings results along"
    corrupted = [cell["accuracy"] for cell in cells if cell["kind"] == "corruption"]
    verdict = evidence.get("verdict")
    worst: dict[str, Mapping[str, Any]] = {}
    others: dict[str, Mapping[str, Any]] = {}  # of several choices of images that with most
    for cell in cells:
        if cell["kind"] == "attack":
            threat = str(cell.get("threat"))
            worst[threat] = min(worst.get(threat, cell), cell, key=lambda cell: cell["accuracy"])
        elif cell["kind"] != "corruption":
            label = _label(cell)
            others[label] = max(others.get(label, cell), cell, key=lambda cell: cell.get("images", 0))
    yield from map(_line, others.values())
    if corrupted:
        yield f"corrupted: {_percent(sum(corrupted) / len(corrupted))}, mean of {len(corrupted)} cells"
    for cell in worst.values():
        known = verdict.get(_label(cell)) if isinstance(verdict, Mapping) else None
        yield f"{_line(cell)}{f', {known}' if known else ''}"
    if worst and not isinstance(verdict, Mapping):
        yield str(verdict or UNASSESSED)


def _line(cell: Mapping[str, Any]) -> str:
    return (
        f"{_label(cell)}: {_percent(cell['accuracy'])} [{_interval(cell)}], {cell.get('images', '?')} images"
    )


def _identity(config: Mapping[str, Any]) -> str:
    ours = config["warplca"]
    names = ", ".join(ours["class_names"]) or "not named"
    size = " x ".join(str(side) for side in config["pretrained_cfg"]["input_size"])
    count = ours.get("parameters", 0)
    weights = f"{count / 1e6:.2f} million weights" if 0 < count < 2**60 else "weights"
    return f"{_title(ours['model'])}: {weights}, images {size}, {config['num_classes']} classes ({names})"


def summary(config: Mapping[str, Any]) -> str:
    """Say what a checkpoint is, how it was trained, how robust it is and by what evidence, for the screen."""
    ours = config["warplca"]
    model = ours["model"]
    return "\n\n".join(
        [
            _identity(config),
            f"Written by warplca {ours['version']}, torch {ours['torch']}, timm {ours['timm']}.",
            _table_of_parts(model),
            *_gates(model),
            f"## Training\n\n{_facts(ours['training'])}",
            f"## How robust, by what evidence\n\n{_measured(ours)}",
        ]
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
    """Sentences on the damage that opens each gate, and where its estimate fails; nothing without gates."""
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
            dataset_type=data.replace(" ", "-"),
            dataset_name=f"{data}, {_label(cell)}",
            dataset_config=_label(cell),
            metric_type="accuracy",
            metric_value=round(float(cell["accuracy"]), 4),
        )
        for cell in evidence.get("cells", ())
        if cell["kind"] != "corruption"
    ]
    own = str(ours.get("source", "")).partition(":")[0]
    card = ModelCardData(
        license="unknown",  # whose weights they are only their owner knows
        datasets=["uoft-cs/cifar10"] if own in CIFAR10 else None,
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["image-classification", "robustness", "warplca"],
        model_name=title if results else None,
        eval_results=results or None,
    )
    return card.to_yaml() + "\n"

"""The study's tables and words, from the stores of results alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from common import table, write
from study_config import StudyConfig
from study_costs import network_costs
from study_figure import draw
from study_run import VERDICTS

from warplca.configs import ComparisonConfig
from warplca.configs.load import registered_name
from warplca.eval import Comparison, ResultsStore, compare
from warplca.eval.compare.aggregate import category_means, severity_means
from warplca.eval.compare.wording import (
    SEEDS_FOR_METHODS,
    difference_sentences,
    difference_text,
    figures_of,
    interval_text,
    scope_sentence,
    trust_sentences,
)
from warplca.pipeline.comparison import run_folder

HEADLINE = ("clean", "corruption mean", "extra mean")


def write_study(name: str, config: StudyConfig, runs: Path, out: Path) -> Path:
    """Write ``NAME.md`` and a figure of each part.

    A part of which these runs hold nothing keeps what the text said of it before, or is named as without results.

    Returns:
        The path of the text.
    """
    path = out / f"{name}.md"
    before = _sections(path)
    sections = []
    for part, comparison in config.comparisons().items():
        folder = runs / part
        rows = _rows(comparison, folder)
        text = (
            before.get(part, "No results yet.\n")
            if rows is None
            else "\n".join(_part(name, part, comparison, rows, folder, out))
        )
        sections.append(f"## {part}\n\n{text}")
    head = f"# The study {name}: figures\n\nMade by `python benchmarks/study.py {name} --data cifar10.npz`.\n"
    write(path, "\n".join([head, *sections]))
    return path


def _sections(path: Path) -> dict[str, str]:
    """What the text says of each part now."""
    if not path.exists():
        return {}
    _, *parts = path.read_text(encoding="utf-8").split("\n## ")
    split = (part.split("\n\n", 1) for part in parts)
    return {title: text.rstrip("\n") + "\n" for title, text in split}


def _rows(config: ComparisonConfig, folder: Path) -> pd.DataFrame | None:
    """What was measured of the part's arms; None while the baseline, or all others, are missing."""
    path = folder / "results.sqlite"
    if not path.exists():
        return None
    with ResultsStore(path, read_only=True) as store:
        frame = store.to_frame(predictions=True)
    complete = frame.groupby(["model", "model_seed"])["condition"].transform("size")
    frame = frame[frame["model"].isin(list(config.arms)) & (complete == complete.max())]
    return frame if config.baseline in set(frame["model"]) else None


def _part(
    name: str, part: str, config: ComparisonConfig, frame: pd.DataFrame, folder: Path, out: Path
) -> Iterator[str]:
    found = compare(frame, baseline=config.baseline)
    yield f"{_facts(config, folder)}\n"
    yield _accuracies(found)
    yield _by_kind(found)
    for rows in _fair_rows(frame, config.baseline):
        for baseline in dict.fromkeys((config.baseline, *({"none"} & set(rows["model"])))):
            yield _differences(compare(rows, baseline=baseline))
    yield _trust(found)
    yield from _verdicts(folder)
    yield _costs(config, folder)
    figure = out / f"{name}-{part}.png"
    if draw(figure, found):
        yield f"![{part}]({figure.name})\n"


def _fair_rows(frame: pd.DataFrame, baseline: str) -> Iterator[pd.DataFrame]:
    """All arms; before them, where only some have seeds enough for claims about methods, these arms alone."""
    seeds = frame.groupby("model")["model_seed"].nunique()
    enough = [arm for arm, count in seeds.items() if count >= SEEDS_FOR_METHODS]
    if baseline in enough and 1 < len(enough) < len(seeds):
        yield frame[frame["model"].isin(enough)]
    yield frame


def _facts(config: ComparisonConfig, folder: Path) -> str:
    """Which networks are in the tables, and on what they were made."""
    finished = [path.parent for path in sorted(folder.glob("*/checkpoint"))]
    sessions = [json.loads((run / "run.json").read_text())["sessions"][-1] for run in finished]
    machines = {f"{s['device']}, Python {s['python']}, torch {s['packages']['torch']}" for s in sessions}
    recipe = config.train
    images = f"{config.train_images or 'all'} training images, {recipe.validation_images} of them held out"
    facts = [
        f"{len(sessions)} networks",
        f"{config.model.backbone}, loss {registered_name(recipe.loss)!r}, {recipe.epochs} epochs, {images}",
        f"measured on {config.measure_on} images",
        *sorted(machines),
    ]
    return "; ".join(facts) + "."


def _accuracies(found: Comparison) -> str:
    figures = [name for name in figures_of(found.summary) if name in HEADLINE or name.startswith("worst ")]
    rows = found.summary.to_dict("records")
    body = [[row["model"], row["seeds"], *(interval_text(row, figure) for figure in figures)] for row in rows]
    return table(["arm", "seeds", *figures], body)


def _by_kind(found: Comparison) -> str:
    """Means over seeds of each category and severity, in %; of each cell where there are only extra corruptions."""
    corrupted = found.cells[found.cells["kind"] == "corruption"]
    severities = severity_means(corrupted).rename(columns=lambda severity: f"severity {severity}")
    kinds = [category_means(corrupted), severities]
    if severities.empty:
        names = [
            f"{name} {level}"
            for name, level in zip(corrupted["condition"], corrupted["severity"], strict=True)
        ]
        networks = ["model", "model_seed"]
        kinds = [corrupted.assign(cell=names).pivot(index=networks, columns="cell", values="accuracy")]
    means = 100 * pd.concat(kinds, axis=1).groupby("model").mean().reindex(list(found.summary["model"]))
    body = [
        [model, *(f"{value:.1f}" for value in row)]
        for model, row in zip(means.index, means.to_numpy(), strict=True)
    ]
    return table(["arm", *map(str, means.columns)], body)


def _differences(found: Comparison) -> str:
    """The tests against the baseline in words."""
    sentences = [sentence for _, sentence in difference_sentences(found)]
    sentences += _by_image(found) if found.about_methods else []
    arms = ", ".join(str(arm) for arm in found.summary["model"] if arm != found.baseline)
    lines = [f"**Against {found.baseline}** ({arms}). {scope_sentence(found)}", ""]
    return "\n".join([*lines, *(f"- {sentence}" for sentence in sentences), ""])


def _by_image(found: Comparison) -> list[str]:
    """The same differences paired image by image, which speak of these networks and not of the methods."""
    wanted = found.tests["label"].isin(figures_of(found.summary)) & (found.tests["level"] == "headline")
    return [
        f"{model}, paired by image, these networks alone: {'; '.join(map(difference_text, rows.to_dict('records')))}."
        for model, rows in found.tests[wanted].groupby("model", sort=False)
    ]


def _trust(found: Comparison) -> str:
    """Whether the figures under attack can be trusted, in the words of the verdicts."""
    sentences = [f"- {sentence}" for sentence in trust_sentences(found)]
    return "\n".join(["Can the figures under attack be trusted?", "", *sentences, ""]) if sentences else ""


def _verdicts(folder: Path) -> Iterator[str]:
    """What the attacks that judge, suites among them, say of the networks of the first seed."""
    path = folder / VERDICTS
    if not path.exists():
        return
    with ResultsStore(path, read_only=True) as store:
        rows = store.to_frame()
    rows = rows[rows["kind"] == "attack"].sort_values(["threat", "model", "condition"])
    body = [
        [
            row["model"],
            row["condition"],
            row["threat"],
            f"{100 * row['accuracy']:.1f}",
            row["images"],
            row["verdict"],
        ]
        for row in rows.to_dict("records")
    ]
    yield "First seed, all on the same images; suites have adaptive attacks and checks for gradient masking:\n"
    yield table(["arm", "attack", "threat", "correct, %", "images", "verdict"], body)


def _costs(config: ComparisonConfig, folder: Path) -> str:
    costs = [
        network_costs(arm, run_folder(folder, arm, config.seeds[0]))
        for arm in config.arms
        if (run_folder(folder, arm, config.seeds[0]) / "checkpoint").exists()
    ]
    body = [
        [
            *(
                cost.arm,
                f"{cost.parameters / 1e6:.2f} M",
                f"{cost.macs / 1e6:.1f} M",
                f"{cost.training / 60:.0f} min",
            ),
            *(f"{cost.inference * 1e3:.2f} ms", "" if cost.active is None else f"{100 * cost.active:.1f} %"),
        ]
        for cost in costs
    ]
    head = ["arm", "parameters", "MACs an image", "training", "classifying an image (CPU)", "active units"]
    return table(head, body)

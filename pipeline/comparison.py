"""Train several arms alike, measure them alike, compare, report, export the best: public calls in sequence."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from ..attacks import as_suite
from ..configs import ComparisonConfig, InputError
from ..configs.device import choose_device
from ..data import ImageDataset, load_dataset
from ..eval import Comparison, Execution, ResultsStore, compare, evaluate
from ..models import Classifier, save_checkpoint
from ..train import train
from .arms import Measurement, Run, default_workers, measure_at_once, train_at_once
from .examples import collect_atoms, collect_examples, environment_facts

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """Results of a comparison.

    Attributes:
        comparison: Summary and paired tests.
        chosen: The arm that did best on the validation images.
        report: The self-contained HTML report.
        checkpoint: The chosen classifier's folder, with its results in the card.
        seconds: Time this call took.
    """

    comparison: Comparison
    chosen: str
    report: Path
    checkpoint: Path
    seconds: float


def run_comparison(
    config: ComparisonConfig,
    out: str | Path,
    *,
    device: torch.device | str | None = None,
    say: Say = lambda line: None,
    progress: bool = True,
) -> Outcome:
    """Run a whole comparison; finished parts are kept, so the same call continues a stopped one.

    Args:
        config: Arms, recipe, data and what to measure.
        out: Folder for everything: one folder per run, ``results.sqlite``, ``report.html``, ``best/``.
        device: Device to compute on; None takes all accelerators if there are any, else the CPU.
        say: Receives a line of text at each stage.
        progress: Whether to show progress bars.

    Raises:
        InputError: If the configuration does not fit, or ``out`` holds another comparison.
        Interrupted: On SIGINT or SIGTERM in training, after saving.
    """
    out = Path(out)
    choose_device(device)  # a mistake shows before any work
    started = time.monotonic()
    training = training_images(config)
    validation = validation_images(config, training)
    test = measured_images(config, training)
    models = _train_arms(config, training, out, device, say, progress)
    say(f"measuring {', '.join(f'{arm}-{seed}' for arm, seed in models)}")
    corrupted = out / "corrupted"
    transfers = any(as_suite(setting.attack).checked for setting in config.plan.attacks)
    measurements = [
        Measurement(
            arm,
            seed,
            run_folder(out, arm, seed),
            config.plan,
            out / "results.sqlite",
            {other: run_folder(out, other, seed) for other in config.arms if transfers and other != arm},
            corrupted,
        )
        for arm, seed in models
    ]
    workers = config.workers or default_workers(len(models), device)
    measure_at_once(measurements, test, workers=workers, progress=progress, device=device)
    shutil.rmtree(corrupted, ignore_errors=True)
    with ResultsStore(out / "results.sqlite") as store:
        results = store.to_frame(predictions=True)
    places = {arm: place for place, arm in enumerate(config.arms)}  # in tables, whichever was measured first
    results = results.sort_values("model", key=lambda models: models.map(places), kind="stable")
    comparison = compare(results, baseline=config.baseline)
    chosen = _choose(config, results, validation, models, out, progress)
    seconds = time.monotonic() - started
    report = _write_report(config, results, models, test, out, chosen, seconds)
    first_seed = config.seeds[0]
    checkpoint = _export(comparison, models[chosen, first_seed], chosen, first_seed, test, out)
    return Outcome(comparison, chosen, report, checkpoint, seconds)


def training_images(config: ComparisonConfig) -> ImageDataset:
    """Return the training images of a comparison, those that it holds out included."""
    dataset = load_dataset(config.data, "train")
    if config.train_images:
        if config.train_images > len(dataset):
            raise InputError(f"train_images is {config.train_images}; {dataset.name} has {len(dataset)}.")
        if config.train_images < len(dataset):
            _, dataset = dataset.split(config.train_images, seed=0)
    return dataset


def _train_arms(
    config: ComparisonConfig,
    dataset: ImageDataset,
    out: Path,
    device: torch.device | str | None,
    say: Say,
    progress: bool,
) -> dict[tuple[str, int], Classifier]:
    runs = {
        (arm, seed): Run(arm, config.run(arm, seed), run_folder(out, arm, seed))
        for seed in config.seeds
        for arm in config.arms
    }
    waiting = [run for run in runs.values() if not run.finished]
    workers = config.workers or default_workers(len(waiting), device)
    if workers > 1 and len(waiting) > 1:
        say(f"training {', '.join(run.folder.name for run in waiting)}, {workers} at a time")
        train_at_once(waiting, dataset, workers=workers, progress=progress, device=device)
    models = {}
    for key, run in runs.items():
        if not run.finished:
            say(f"training {run.folder.name}")
        models[key] = train(run.config, dataset, run.folder, device=device, progress=progress)
    return models


def run_folder(out: Path, arm: str, seed: int) -> Path:
    """Return the folder of one training run."""
    return out / f"{arm}-{seed}"


def measured_images(config: ComparisonConfig, training: ImageDataset) -> ImageDataset:
    """Return the images that the plan is measured on."""
    if config.measure_on == "validation":
        return validation_images(config, training)
    return load_dataset(config.data, "test")


def validation_images(config: ComparisonConfig, training: ImageDataset) -> ImageDataset:
    """Return the images that training holds out (all of them in every run, whatever its seed); maybe none."""
    if not config.train.validation_images:
        return training.subset([])
    _, validation = training.split(config.train.validation_images, seed=0)
    return replace(validation, name=f"{training.name}-validation")


def _choose(
    config: ComparisonConfig,
    measured: pd.DataFrame,
    validation: ImageDataset,
    models: dict[tuple[str, int], Classifier],
    out: Path,
    progress: bool,
) -> str:
    """Choose the arm with the best mean accuracy on validation images, never on test images."""
    if not len(validation):
        return config.baseline
    seed = config.seeds[0]
    if config.measure_on == "validation":  # the plan has measured them
        first = measured[measured["model_seed"] == seed]
        frames = {arm: first[first["model"] == arm] for arm in config.arms}
    else:
        with ResultsStore(out / "selection.sqlite") as store:
            frames = {
                arm: evaluate(
                    models[arm, seed],
                    validation,
                    config.selection,
                    results=store,
                    name=arm,
                    execution=Execution(progress=progress),
                )
                for arm in config.arms
            }
    scores = {arm: float(found["accuracy"].to_numpy().mean()) for arm, found in frames.items()}
    return max(scores, key=lambda arm: scores[arm])


def _write_report(
    config: ComparisonConfig,
    results: pd.DataFrame,
    models: dict[tuple[str, int], Classifier],
    test: ImageDataset,
    out: Path,
    chosen: str,
    seconds: float,
) -> Path:
    from ..eval.report.page import RunRecord, write_report

    seed = config.seeds[0]
    first = {arm: models[arm, seed] for arm in config.arms}
    curves = {arm: pd.read_csv(run_folder(out, arm, seed) / "curves.csv") for arm in config.arms}
    path = out / "report.html"
    write_report(
        path,
        results,
        baseline=config.baseline,
        title="WARP-LCA against its baselines",
        run=RunRecord(
            facts=environment_facts(config, test, chosen, seconds),
            atoms=collect_atoms(first),
            examples=collect_examples(first, test, config.plan),
            curves=curves,
        ),
    )
    return path


def _export(
    comparison: Comparison, model: Classifier, arm: str, seed: int, test: ImageDataset, out: Path
) -> Path:
    """Save the chosen classifier with its measured results in the model card."""
    measured = comparison.summary.set_index("model").loc[arm].dropna().to_dict()
    results = {str(key): _shown(str(key), value) for key, value in measured.items()}
    folder = out / "best"
    save_checkpoint(
        model,
        folder,
        class_names=test.class_names,
        training={"arm": arm, "seed": seed},
        results=results,
        image_size=test.size,
        source=test.source,
    )
    return folder


def _shown(name: str, value: object) -> str:
    """Counts as whole numbers, shares with four digits."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if name.endswith(("images", "seeds")) else f"{value:.4f}"

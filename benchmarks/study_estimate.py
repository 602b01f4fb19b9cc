"""What a comparison will cost: short trainings and evaluations on this machine, scaled up."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from warplca.configs import ComparisonConfig, EvaluationPlan, RunConfig
from warplca.configs.recipe import SelectConfig
from warplca.data import ImageDataset
from warplca.eval import Execution, evaluate
from warplca.eval.measure.planning import plan_cells
from warplca.models import Classifier
from warplca.pipeline.comparison import measured_images, training_images
from warplca.train import train
from warplca.train.adversarial import AttackSettings

SAMPLE_BATCHES = 20
SAMPLE_IMAGES = 200
SAMPLE_ATTACKED = 8


@dataclass(frozen=True)
class Cost:
    """Seconds of one run of an arm on the threads that this process has.

    Attributes:
        arm: Name of the arm.
        training: Seconds of training.
        images: Seconds of classifying the clean and corrupted images of the plan.
        attacks: Seconds of the plan's attacks. A rough figure: it is measured on a hardly trained network.
    """

    arm: str
    training: float
    images: float
    attacks: float

    @property
    def total(self) -> float:
        """Their sum."""
        return self.training + self.images + self.attacks


def estimate_costs(config: ComparisonConfig) -> Iterator[Cost]:
    """Measure each arm for some batches and scale up; neither ``selection`` nor what is judged is counted.

    Args:
        config: The comparison.

    Yields:
        The cost of one seed of each arm, as soon as it is known.
    """
    training = training_images(config)
    test = measured_images(config, training)
    for arm in config.arms:
        yield _cost(arm, config.run(arm, config.seeds[0]), config.plan, training, test)


def _cost(arm: str, run: RunConfig, plan: EvaluationPlan, training: ImageDataset, test: ImageDataset) -> Cost:
    model, seconds = _training(run, training)
    plain = replace(plan, attacks=(), severities=plan.severities[:1], corruptions=plan.corruptions[:1])
    sampled = replace(plain, clean_images=SAMPLE_IMAGES, corruption_images=SAMPLE_IMAGES)
    images = (
        _measured(model, test, sampled) * _images(replace(plan, attacks=()), test) / _images(sampled, test)
    )
    attacked = replace(plan, corruptions=(), attack_images=SAMPLE_ATTACKED, clean_images=SAMPLE_ATTACKED)
    attacks = _measured(model, test, attacked) if plan.attacks else 0.0
    return Cost(arm, seconds, images, attacks * (plan.attack_images or len(test)) / SAMPLE_ATTACKED)


def _training(run: RunConfig, dataset: ImageDataset) -> tuple[Classifier, float]:
    """Train for a few batches with the front-end frozen, and a few with it learning; scale up to the recipe."""
    recipe = run.train
    sample = dataset.subset(range(min(SAMPLE_BATCHES * recipe.batch_size, len(dataset))))
    given = recipe.frontend.get("frozen_epochs", 0)
    frozen = recipe.epochs if given is None else given
    kinds = [frozen > 0, frozen < recipe.epochs]
    # "fast" watches held-out images and needs some; choosing the best epoch costs nothing worth telling.
    fast = recipe.loss_class.may_collapse
    loss = AttackSettings(**vars(recipe.loss), steps=1) if fast else recipe.loss
    short = replace(
        recipe,
        epochs=sum(kinds),
        frontend={**recipe.frontend, "frozen_epochs": int(kinds[0])} if frozen else recipe.frontend,
        validation_images=0,
        loss=loss,
        select=SelectConfig(),
    )
    with tempfile.TemporaryDirectory() as folder:
        model = train(replace(run, train=short), sample, folder, progress=False)
        rates = pd.read_csv(Path(folder) / "curves.csv")["images_per_second"].tolist()
    images = len(dataset) - recipe.validation_images
    epochs = [count for count, there in zip((frozen, recipe.epochs - frozen), kinds, strict=True) if there]
    return model, sum(count * images / rate for count, rate in zip(epochs, rates, strict=True))


def _images(plan: EvaluationPlan, test: ImageDataset) -> int:
    """Images that a plan classifies, over all its cells."""
    return sum(len(cell.positions) for cell in plan_cells(plan, test))


def _measured(model: Classifier, test: ImageDataset, plan: EvaluationPlan) -> float:
    started = time.perf_counter()
    evaluate(model, test, plan, execution=Execution(progress=False))
    return time.perf_counter() - started


def cost_line(cost: Cost, seeds: int) -> str:
    """Tell the cost of an arm in words."""
    return (
        f"{cost.arm}: training {_duration(cost.training)}, images {_duration(cost.images)}, "
        f"attacks about {_duration(cost.attacks)}; times {seeds} seeds {_duration(seeds * cost.total)}"
    )


def _duration(seconds: float) -> str:
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 5400.0 else f"{seconds / 3600.0:.1f} h"

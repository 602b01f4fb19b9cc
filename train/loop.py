"""The training loop: seeded by the step, resumable at any step, stopped by a signal without loss."""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import accelerate
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from ..configs import InputError, RunConfig
from ..configs.atomic import file_written_whole
from ..data import ImageDataset
from ..frontend import LCA
from ..models import Classifier, build_classifier, save_checkpoint
from .augment import crop_and_flip
from .interrupt import Interrupted, stop_requested
from .losses import LossResult, StandardLoss
from .optim import make_optimiser, rate_factor
from .state import Progress, load_state, save_state

logger = logging.getLogger(__name__)
STATE_FILE = "state.safetensors"
CURVES_FILE = "curves.csv"
CHECKPOINT_FOLDER = "checkpoint"


def train(
    config: RunConfig,
    dataset: ImageDataset,
    out: str | Path,
    *,
    progress: bool = True,
    stop_after: int | None = None,
) -> Classifier:
    """Train a classifier and write its checkpoint; a run that was stopped goes on where it stopped.

    Args:
        config: Model and recipe.
        dataset: Training images; ``validation_images`` of them are held out.
        out: Folder of the run: ``checkpoint/``, ``curves.csv`` (one row an epoch), and while it is under way
            ``state.safetensors``. A finished run is not trained again.
        progress: Whether to show a progress bar.
        stop_after: Stop as if interrupted after this many steps (for tests).

    Returns:
        The trained classifier, in evaluation mode.

    Raises:
        Interrupted: On SIGINT or SIGTERM, after saving the state.
        InputError: If ``out`` holds another run, the data do not fit, or the loss is not finite.
    """
    run = TrainingRun(config, dataset, Path(out), progress=progress)
    return run.complete(stop_after=stop_after)


class TrainingRun:
    """One run: model, optimiser, images and where it stands."""

    def __init__(self, config: RunConfig, dataset: ImageDataset, out: Path, *, progress: bool) -> None:
        recipe = config.train
        if len(dataset.class_names) != config.model.num_classes:
            raise InputError(
                f"{dataset.name} has {len(dataset.class_names)} classes, the model has num_classes "
                f"{config.model.num_classes}; make them equal."
            )
        if min(dataset.size) <= recipe.crop_padding:
            raise InputError(
                f"{dataset.name} has images of {dataset.size[0]} x {dataset.size[1]} pixels, too small for "
                f"crop_padding {recipe.crop_padding}; set train.crop_padding below {min(dataset.size)}."
            )
        self.config, self.recipe, self.out, self.dataset = config, recipe, out, dataset
        self.accelerator = accelerate.Accelerator(mixed_precision=recipe.precision)
        self.progress = progress and self.accelerator.is_main_process
        torch.manual_seed(recipe.seed)
        self.model = build_classifier(config.model)
        kept, held_out = dataset, None
        if recipe.validation_images:
            kept, held_out = dataset.split(recipe.validation_images, seed=0)
        self.images, self.labels = _resident(kept, self.accelerator.device)
        self.held_out = held_out
        self.steps_per_epoch = math.ceil(len(self.labels) / recipe.batch_size)
        self.total_steps = recipe.epochs * self.steps_per_epoch
        self.loss = StandardLoss(label_smoothing=recipe.label_smoothing, distillation=recipe.distillation)
        self.optimiser = make_optimiser(self.model, recipe)
        identity = {**asdict(config), "dataset": dataset.fingerprint, "images": len(self.labels)}
        self.identity = json.loads(json.dumps(identity))  # as it will be read back: tuples become lists

    def complete(self, stop_after: int | None = None) -> Classifier:
        """Train to the end from wherever the run stands."""
        checkpoint = self.out / CHECKPOINT_FOLDER
        state_file = self.out / STATE_FILE
        wrapped, optimiser = self.accelerator.prepare(self.model, self.optimiser)
        where = Progress(0, [], {})
        if state_file.exists():
            where = load_state(state_file, self.model, optimiser, self.identity)
        trained = where.step < self.total_steps
        if trained:
            where = self._run(wrapped, optimiser, where, stop_after)
            self._save(optimiser, where)
        self.model.eval()
        missing = not (checkpoint / "config.json").exists()
        if self.accelerator.is_main_process and (trained or missing):
            self._write_checkpoint(checkpoint, where)
        return self.model

    def _run(
        self, model: torch.nn.Module, optimiser: Any, where: Progress, stop_after: int | None
    ) -> Progress:
        step, curves, sums = where.step, where.curves, where.sums
        saved = time.monotonic()
        with stop_requested() as stop, self._bar(step) as bar:
            while step < self.total_steps:
                epoch = step // self.steps_per_epoch
                self._freeze(epoch < self.recipe.frozen_epochs)
                started = time.monotonic()
                result, labels = self._step(model, optimiser, step)
                step += 1
                _add(sums, result, labels, time.monotonic() - started)
                bar.update()
                if step % 10 == 0 or step % self.steps_per_epoch == 0:
                    self._show(bar, sums, step)
                if step % self.steps_per_epoch == 0:
                    curves.append({"epoch": epoch + 1, **_means(sums), **self._validate()})
                    sums = {}
                    self._write_curves(curves)
                    model.train()
                if time.monotonic() - saved > 60.0 * self.recipe.save_minutes:
                    self._save(optimiser, Progress(step, curves, sums))
                    saved = time.monotonic()
                if (stop.is_set() or step == stop_after) and step < self.total_steps:
                    self._save(optimiser, Progress(step, curves, sums))
                    raise Interrupted(
                        f"stopped at step {step} of {self.total_steps}; state saved in {self.out}"
                    )
        return Progress(step, curves, sums)

    def _step(self, model: torch.nn.Module, optimiser: Any, step: int) -> tuple[LossResult, Tensor]:
        """Do one step; all its randomness follows from the seed and the step's number."""
        model.train()
        images, labels = self._batch(step)
        factor = rate_factor(step, self.total_steps, self.recipe)
        for group in optimiser.param_groups:
            group.setdefault("peak", group["lr"])
            group["lr"] = group["peak"] * factor
        torch.manual_seed(_seed(self.recipe.seed, 1, step))  # dropout and stochastic depth
        with self.accelerator.autocast():
            result = self.loss(model, images, labels)
        optimiser.zero_grad()
        self.accelerator.backward(result.loss)
        if self.recipe.clip_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        optimiser.step()
        return result, labels

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return this process's share of the step's batch, augmented, pixels in [0, 1]."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = torch.randperm(len(self.labels), generator=_generator(self.recipe.seed, 2, epoch))
        size = self.recipe.batch_size
        chosen = order[position * size : (position + 1) * size]
        chosen = chosen[self.accelerator.process_index :: self.accelerator.num_processes]
        chosen = chosen.to(self.images.device)
        images = self.images[chosen]
        draws = _generator(
            self.recipe.seed, 3, step * self.accelerator.num_processes + self.accelerator.process_index
        )
        images = crop_and_flip(images, draws, padding=self.recipe.crop_padding, flip=self.recipe.flip)
        return images.float() / 255.0, self.labels[chosen]

    def _freeze(self, frozen: bool) -> None:
        if isinstance(self.model.frontend, LCA):
            self.model.frontend.requires_grad_(not frozen)

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        if self.held_out is None:
            return {}
        self.model.eval()
        correct = loss = 0.0
        images, labels = _resident(self.held_out, self.accelerator.device)
        for x, y in zip(
            images.split(self.recipe.batch_size), labels.split(self.recipe.batch_size), strict=True
        ):
            logits = self.model(x.float() / 255.0)
            correct += float((logits.argmax(1) == y).sum())
            loss += float(torch.nn.functional.cross_entropy(logits, y, reduction="sum"))
        return {"val_loss": loss / len(labels), "val_accuracy": correct / len(labels)}

    def _save(self, optimiser: Any, where: Progress) -> None:
        if self.accelerator.is_main_process:
            save_state(self.out / STATE_FILE, self.model, optimiser, where, self.identity)

    def _write_curves(self, curves: list[dict[str, float]]) -> None:
        if self.accelerator.is_main_process:
            with file_written_whole(self.out / CURVES_FILE) as target:
                pd.DataFrame(curves).to_csv(target, index=False)

    def _write_checkpoint(self, folder: Path, where: Progress) -> None:
        training = {
            "data": f"{self.dataset.name}, {len(self.labels)} images",
            **asdict(self.recipe),
            **(
                {"final " + key: round(value, 4) for key, value in where.curves[-1].items()}
                if where.curves
                else {}
            ),
        }
        save_checkpoint(self.model, folder, class_names=self.dataset.class_names, training=training)

    def _bar(self, done: int) -> tqdm:
        arm = self.config.model.frontend or "none"
        return tqdm(
            total=self.total_steps,
            initial=done,
            desc=f"train {arm}",
            unit="step",
            disable=not self.progress,
            dynamic_ncols=True,
        )

    def _show(self, bar: tqdm, sums: dict[str, float], step: int) -> None:
        means = _means(sums)
        parts = [
            f"epoch {(step - 1) // self.steps_per_epoch + 1}/{self.recipe.epochs}",
            f"loss {means['train_loss']:.3f}",
            f"acc {means['train_accuracy']:.1%}",
        ]
        if "active_fraction" in means:
            parts.append(f"active {means['active_fraction']:.1%}")
        bar.set_postfix_str(", ".join([*parts, f"{means['images_per_second']:.0f} img/s"]))


def _resident(dataset: ImageDataset, device: torch.device) -> tuple[Tensor, Tensor]:
    """Keep images as uint8 NCHW on the device: CIFAR-size sets live in memory."""
    images = torch.from_numpy(dataset.images.copy()).permute(0, 3, 1, 2).contiguous().to(device)
    return images, torch.from_numpy(dataset.labels.copy()).to(device)


def _seed(*keys: int) -> int:
    """Mix integers into one seed (splitmix-style), so that neighbouring steps are unrelated."""
    value = 0
    for key in keys:
        value = (value ^ (key + 0x9E3779B97F4A7C15)) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ (value >> 31)) * 0x94D049BB133111EB % 2**64
    return value >> 1


def _generator(*keys: int) -> torch.Generator:
    return torch.Generator().manual_seed(_seed(*keys))


def _add(sums: dict[str, float], result: LossResult, labels: Tensor, seconds: float) -> None:
    """Add a step's figures to the epoch's sums, each image once."""
    loss = float(result.loss.detach())
    if not math.isfinite(loss):
        raise InputError(f"the loss became {loss}; lower learning_rate or clip_norm, and start again.")
    count = len(labels)
    figures = {
        "loss": loss * count,
        "correct": float((result.logits.argmax(1) == labels).sum()),
        "images": float(count),
        "seconds": seconds,
        **{name: float(value) * count for name, value in result.told.items()},
    }
    for name, value in figures.items():
        sums[name] = sums.get(name, 0.0) + value


def _means(sums: dict[str, float]) -> dict[str, float]:
    images = sums["images"]
    means = {
        "train_loss": sums["loss"] / images,
        "train_accuracy": sums["correct"] / images,
        "images_per_second": images / max(sums["seconds"], 1e-9),
    }
    known = {"loss", "correct", "images", "seconds"}
    return means | {name: value / images for name, value in sums.items() if name not in known}

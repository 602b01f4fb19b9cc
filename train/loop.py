"""The training loop: seeded by the step, resumable at any step, stopped by a signal without loss."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from timm.layers.norm_act import convert_sync_batchnorm

from ..configs import InputError, RunConfig
from ..configs.atomic import only_one
from ..configs.device import float32
from ..configs.load import to_plain
from ..data import ImageDataset
from ..models import Classifier, build_classifier, save_checkpoint
from .display import Display
from .distillation import load_teacher
from .folder import CHECKPOINT_FOLDER, STATES_FOLDER, is_finished, refuse_foreign_run
from .initial import digest, start_from, start_from_images
from .losses import auxiliary_weights, build_loss
from .optim import make_optimiser
from .processes import Loaded, chosen_precision, from_main, make_accelerator, stop_requested
from .record import Meter, RunRecord, means
from .sampling import StepOrder
from .source import BatchSource, Share, check_data, probe
from .state import Progress, StateKeeper, identity
from .step import Objective, Stepper, memory_explained
from .validate import Validator, stop_reason
from .weights import Weights

logger = logging.getLogger(__name__)


def train(
    config: RunConfig,
    dataset: ImageDataset,
    out: str | Path,
    *,
    device: torch.device | str | None = None,
    progress: bool = True,
    bar_position: int = 0,
    stop_after: int | None = None,
) -> Classifier:
    """Train a classifier and write its checkpoint; a run that was stopped goes on where it stopped.

    Under ``accelerate launch`` or ``torchrun`` the processes share every batch; only the main one writes.

    Args:
        config: Model and recipe.
        dataset: Training images; ``validation_images`` of them are held out.
        out: Folder of the run: ``checkpoint/``, ``run.json`` (configuration, versions, revision),
            ``curves.csv`` (one row an epoch), ``states/`` (for going on) and, where TensorBoard is installed,
            ``tensorboard/``. A finished run is not trained again.
        device: Device to compute on; None takes the accelerator if there is one. Processes take one each.
        progress: Whether to show a progress bar.
        bar_position: Line of the screen for it, where several runs show theirs.
        stop_after: Stop as if interrupted after this many steps (for tests).

    Returns:
        The trained classifier, in evaluation mode, on the device.

    Raises:
        Interrupted: On SIGINT or SIGTERM, after saving the state.
        InputError: If ``out`` holds another run or cannot be written, the data do not fit, memory runs out, or
            the loss is not finite.
    """
    with float32(tf32=config.train.precision == "tf32"):
        run = TrainingRun(
            config, dataset, Path(out), progress=progress, bar_position=bar_position, device=device
        )
        return run.complete(stop_after=stop_after)


class TrainingRun:
    """One run: model, optimiser, images and where it stands."""

    def __init__(
        self,
        config: RunConfig,
        dataset: ImageDataset,
        out: Path,
        *,
        progress: bool,
        bar_position: int = 0,
        device: torch.device | str | None = None,
    ) -> None:
        config = _completed(config, dataset, device)
        recipe = config.train
        self.config, self.recipe, self.out, self.dataset = config, recipe, out, dataset
        self.training = config.frontend_training
        torch.manual_seed(recipe.seed)
        self.model = build_classifier(config.model)
        start = None if recipe.init is None else start_from(self.model, recipe.init)
        self.teacher = load_teacher(recipe, self.model)
        frozen = any(getattr(part, "frozen_epochs", 0) != 0 for part in self.training)
        learns = self.model.frontend.always_learns and not frozen
        self.accelerator = make_accelerator(recipe.precision, all_parameters_learn=learns, device=device)
        check_data(config, dataset, self.accelerator.num_processes)
        self.progress = progress and self.accelerator.is_main_process
        self.bar_position = bar_position
        kept, held_out = dataset, None
        if recipe.validation_images:
            kept, held_out = dataset.split(recipe.validation_images, seed=0)
        self.order = StepOrder(
            len(kept),
            recipe.batch_size,
            recipe.seed,
            process=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
        )
        self.steps_per_epoch = self.order.steps_per_epoch
        self.total_steps = recipe.epochs * self.steps_per_epoch
        self.source = BatchSource(kept, recipe, self.order, self.accelerator.device)
        self.validate = Validator(held_out, recipe, self.accelerator)
        self._prepare()
        about = {"config": to_plain(config), "dataset": dataset.fingerprint, "images": len(kept)}
        if start is not None:
            about["initial"] = start
        if self.teacher is not None:
            about["teacher"] = digest(self.teacher.state_dict())
        self.about = json.loads(json.dumps(about))  # as it will be read back: tuples become lists
        self.keeper = self._keeper()

    def _prepare(self) -> None:
        """Place model and optimiser on the device, and wrap them for several processes."""
        recipe = self.recipe
        if recipe.sync_norm and self.accelerator.num_processes > 1 and self.accelerator.device.type == "cuda":
            self.model = cast(Classifier, convert_sync_batchnorm(self.model))
        self.model.to(self.accelerator.device)
        probe(self.model, self.source)
        if self.recipe.init is None:
            start_from_images(self.model, self.source.plain_batches())
        self.weights = Weights(self.model, recipe, self.training, self.total_steps)
        optimiser = make_optimiser(self.model, recipe, self.training)
        if self.teacher is not None:
            self.teacher.to(self.accelerator.device)
        loss = build_loss(recipe, auxiliary_weights(self.training), self.teacher)
        objective = Objective(self.model, loss)
        objective, self.optimiser = self.accelerator.prepare(objective, optimiser)
        self.stepper = Stepper(objective, self.optimiser, recipe, self.accelerator, self.total_steps)
        self.state = self.weights.state(self.optimiser, self.accelerator.scaler)

    def _keeper(self) -> StateKeeper:
        return StateKeeper(
            self.out / STATES_FOLDER,
            self.state,
            identity(self.about),
            self.total_steps,
            keep=self.recipe.keep_states,
            seconds=60.0 * self.recipe.save_minutes,
            agree=self._agree,
            writes=self.accelerator.is_main_process,
        )

    def complete(self, stop_after: int | None = None) -> Classifier:
        """Train to the end from wherever the run stands."""
        with ExitStack() as held:  # the folder, against a second run in it
            return self._complete(self._resume(held), stop_after)

    def _complete(self, where: Progress, stop_after: int | None) -> Classifier:
        unfinished = where.step < self.total_steps and not stop_reason(where.curves, self.recipe)
        if unfinished:
            done = len(where.curves)
            record = RunRecord(self.out, self.about, self.accelerator, step=where.step, epochs=done)
            try:
                where = self._run(where, record, stop_after)
            finally:
                record.close()
            self.keeper.save(where)
        self.weights.finish(where.curves, self.source.plain_batches())
        if self.accelerator.is_main_process and (unfinished or not is_finished(self.out)):
            self._write_checkpoint(self.out / CHECKPOINT_FOLDER, where)
        self.accelerator.wait_for_everyone()
        return self.model

    def _resume(self, held: ExitStack) -> Progress:
        """Take the folder for this run, and load the newest state, if there is one, on every process."""
        loaded: Loaded = None
        error = None
        if self.accelerator.is_main_process:
            try:
                refuse_foreign_run(self.out)
                held.enter_context(only_one(self.out))
                loaded = self.keeper.read()
            except InputError as mistake:
                error = mistake
        return self.keeper.restore(from_main(self.accelerator, loaded, error))

    def _run(self, where: Progress, record: RunRecord, stop_after: int | None) -> Progress:
        step, curves = where.step, where.curves
        meter = Meter(self.accelerator, where.sums, step)
        self.model.train()
        with stop_requested() as stop, self._display(step) as display:
            for share in self.source.shares(step, self.total_steps):
                step += 1
                self.step(step, share, meter)
                display.update(step)
                ends = step % self.steps_per_epoch == 0
                if ends or step % self.recipe.log_steps == 0:
                    display.show(meter.read(), step)
                if ends:
                    with memory_explained(self.recipe, step - 1):
                        finished = self._end_epoch(meter, curves, record)
                    display.epoch(curves[-1])
                    if finished:
                        break
                if step < self.total_steps:
                    progress = partial(self._progress, step, curves, meter)
                    self.keeper.after_step(step, progress, stop=stop.is_set() or step == stop_after)
                meter.start_clock()
        self.weights.check_finite(step)
        return Progress(step, curves)

    def step(self, step: int, share: Share, meter: Meter) -> None:
        """Do step number ``step``, counted from 1."""
        self.weights.set_epoch((step - 1) / self.steps_per_epoch)
        figures = self.stepper(step - 1, share)
        self.weights.after_step(step)
        meter.add(figures)
        meter.add_seconds(self.source.take_seconds())

    def _end_epoch(self, meter: Meter, curves: list[dict[str, float]], record: RunRecord) -> bool:
        """Validate, write the curves, and return whether to stop here."""
        row = {"epoch": len(curves) + 1, **means(meter.read())}
        if self.validate.dataset is not None:
            measured = self.weights.measured(self.source.plain_batches())
            curves.append({**row, **self.validate(measured)})
            self.weights.keep_best(measured, curves)
            self.model.train()
        else:
            curves.append(row)
        meter.start_epoch()
        reason = stop_reason(curves, self.recipe)
        record.curves(curves, last=bool(reason) or len(curves) == self.recipe.epochs)
        if reason and self.accelerator.is_main_process:
            logger.warning("training stopped after epoch %d: %s", len(curves), reason)
        return bool(reason)

    def _agree(self, stop: bool, save: bool, step: int) -> tuple[bool, bool]:
        """Return whether any process is to stop, and whether the main one wants to save.

        Several processes ask one another only where they read their figures anyway.
        """
        if self.accelerator.num_processes == 1:
            return stop, save
        if step % self.recipe.log_steps and step % self.steps_per_epoch:
            return False, False
        save = save and self.accelerator.is_main_process
        flags = torch.tensor([stop, save], dtype=torch.float32, device=self.accelerator.device)
        stop, save = (value > 0.0 for value in self.accelerator.reduce(flags, "sum").tolist())  # type: ignore[union-attr]
        return stop, save

    def _progress(self, step: int, curves: list[dict[str, float]], meter: Meter) -> Progress:
        """Return where the run stands within an epoch."""
        sums = meter.read()
        self.weights.check_finite(step)
        return Progress(step, curves, sums)

    def _write_checkpoint(self, folder: Path, where: Progress) -> None:
        final = {f"final {name}": round(value, 4) for name, value in where.curves[-1].items()}
        training = {
            "data": f"{self.dataset.name}, {self.order.images} images",
            **to_plain(self.recipe),
            **final,
        }
        save_checkpoint(
            self.model,
            folder,
            class_names=self.dataset.class_names,
            training=training,
            image_size=self.dataset.size,
            source=self.dataset.source,
        )

    def _display(self, done: int) -> Display:
        return Display(
            self.config.model.frontend_name,
            done=done,
            total=self.total_steps,
            epochs=self.recipe.epochs,
            device=self.accelerator.device,
            shown=self.progress,
            position=self.bar_position,
        )


def _completed(config: RunConfig, dataset: ImageDataset, device: torch.device | str | None) -> RunConfig:
    """Fill in what follows from the data and the device."""
    model = config.model
    if model.num_classes is None:
        model = replace(model, num_classes=len(dataset.class_names))
    precision = chosen_precision(config.train.precision, device)
    return replace(config, model=model, train=replace(config.train, precision=precision))

"""Measure any model: clean, corrupted and attacked, cell by cell, resumable."""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from ...attacks import Suite
from ...configs.device import float32
from ...configs.errors import InputError
from ...configs.execution import Execution
from ...configs.plan import EvaluationPlan, resolve_plan
from ...configs.progress import Bar
from ...data import CorruptedFiles, ImageDataset
from ..results.evaluation import Evaluation
from ..results.records import (
    COMPLETE,
    KEY_COLUMNS,
    NOT_APPLICABLE,
    TF32_NOTE,
    CellResult,
    Entry,
    cell_key,
)
from ..results.store import ResultsStore
from ..results.suites import SuiteRecord, attack_settings, suite_digest
from .attacked import Attacked, Attacker
from .gates import GateWatch, has_gates
from .inference import (
    Answers,
    Model,
    classify,
    evaluation_mode,
    is_opaque,
    is_random,
    network_fingerprint,
    pixel_batches,
)
from .planning import (
    GENERATOR,
    Cell,
    CorruptionSource,
    CorruptionTask,
    corrupted_chunks,
    plan_cells,
    split_positions,
)
from .strangers import chance_remark, check_dataset, check_model, remarks

logger = logging.getLogger(__name__)

RANDOM_PROBE_IMAGES = 16

FINISHED = (COMPLETE, NOT_APPLICABLE)

RANDOM_NOTE = "The model is random between equal calls."


def evaluate(
    model: Model,
    dataset: ImageDataset,
    plan: EvaluationPlan | str = "quick",
    *,
    results: ResultsStore | str | Path | None = None,
    name: str | Entry | None = None,
    execution: Execution = Execution(),  # noqa: B008 - frozen
    corruptions: CorruptionSource = CorruptionSource(),  # noqa: B008 - frozen
    surrogates: Mapping[str, nn.Module] | None = None,
) -> Evaluation:
    """Measure a model under every condition of a plan.

    Finished cells are found in the results store and skipped, so a second or a killed run goes on where the
    last one stopped; inside a suite of attacks it goes on after the last finished batch. An attack that finds nothing
    to work on in this model gives a row with the status ``"not applicable"`` and the reason. A module is put in
    evaluation mode for the time and then left as it was.

    Args:
        model: Any callable, usually an ``nn.Module``, from pixels in [0, 1], (N, C, H, W), to logits
            (N, classes). One that wants normalised pixels or another dtype, an exported program or a foreign ONNX
            file goes through ``warplca.models.as_classifier`` first; a bare timm model gets a note that says so.
        dataset: The test images.
        plan: The conditions to measure, or the name of a preset: ``"clean"``, ``"quick"``, ``"standard"``.
        results: Store, or path of the file, that keeps every prediction; None keeps them for this call only.
        name: The model's name in the results, or an `Entry` with its training seed; None takes the class's name.
        execution: Device and budget. When the budget is over no further attack, and no further batch of a suite,
            starts, and the rows have the status ``"bound so far"`` or ``"not run"``.
        corruptions: Source of corrupted images.
        surrogates: Other classifiers by name, whose adversarial images a suite tries on this model too.

    Returns:
        One row for each cell of the plan, in the plan's order, as `ResultsStore.to_frame` describes; a pandas table
        that prints name, condition, accuracy and interval.

    Raises:
        InputError: The plan does not fit the data set; the model's logits are NaN, random in shape or
            of another number of classes; model or data set are none that can be measured as they are; or the store
            has results of another network under this name and seed.
    """
    check_dataset(dataset)
    check_model(model)
    plan = resolve_plan(plan)
    _check_classes(model, dataset)
    files = corruptions.open(plan, dataset)
    with ExitStack() as stack:
        stack.enter_context(float32(tf32=execution.tf32))
        target = stack.enter_context(evaluation_mode(model, execution.device))
        for other in (surrogates or {}).values():
            stack.enter_context(evaluation_mode(other, target))
        cells = plan_cells(plan, dataset, files, surrogates)
        attacker = Attacker(
            model=model,
            classes=len(dataset.class_names),
            seed=plan.seed,
            batch_size=plan.batch_size,
            deadline=execution.deadline(),
            progress=execution.progress,
        )
        run = _Run(
            model=model,
            dataset=dataset,
            plan=plan,
            store=stack.enter_context(opened(results)),
            entry=named(name, model),
            device=target,
            files=files,
            corruptions=corruptions,
            attacker=attacker,
            notes=[TF32_NOTE] if execution.tf32 else [],
        )
        run.measure(cells)
        return Evaluation(rows_of(run.store.to_frame(), [run.key(cell) for cell in cells]))


def _check_classes(model: Model, dataset: ImageDataset) -> None:
    """Refuse the classes of a data set in another order than a model that knows their names."""
    about = getattr(model, "about", None)
    known = tuple(about.get("class_names", ())) if isinstance(about, Mapping) else ()
    if known != dataset.class_names and set(known) == set(dataset.class_names):
        first = next(
            i for i, names in enumerate(zip(known, dataset.class_names, strict=True)) if names[0] != names[1]
        )
        raise InputError(
            f"class {first} is {known[first]!r} to the model and {dataset.class_names[first]!r} in {dataset.name}: the "
            "same classes in another order; bring them to the model's with warplca.pipeline.own_data.fitted."
        )


def named(name: str | Entry | None, model: Model) -> Entry:
    """The entry of a model in a results store; without a name that of its class, or of a function."""
    if isinstance(name, Entry):
        return name
    kind = model if not isinstance(model, nn.Module) and hasattr(model, "__name__") else type(model)
    return Entry(name or kind.__name__)


@contextmanager
def opened(results: ResultsStore | str | Path | None) -> Iterator[ResultsStore]:
    """The store itself, or one that is open for the block only."""
    if isinstance(results, ResultsStore):
        yield results
        return
    with ResultsStore(results) as store:
        yield store


def rows_of(table: pd.DataFrame, keys: Iterable[tuple[str | int, ...]]) -> pd.DataFrame:
    """The rows of a store's table with these keys, in their order."""
    rows = {key: row for row, key in enumerate(table[list(KEY_COLUMNS)].itertuples(index=False, name=None))}
    return table.iloc[[rows[key] for key in keys]].reset_index(drop=True)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One model on its way through the cells."""

    model: Model
    dataset: ImageDataset
    plan: EvaluationPlan
    store: ResultsStore
    entry: Entry
    device: torch.device
    files: CorruptedFiles | None
    corruptions: CorruptionSource
    attacker: Attacker
    notes: list[str]

    @property
    def classes(self) -> int:
        return len(self.dataset.class_names)

    def measure(self, cells: Sequence[Cell]) -> None:
        """Fill every cell that the store lacks."""
        fingerprint = network_fingerprint(self.model, self.dataset, self.device, self.plan.batch_size)
        # A callable is known by its answers, which are others on other images.
        known_on = self.dataset.fingerprint if is_opaque(self.model) else None
        self.store.claim(self.entry, fingerprint, known_on)
        todo = [cell for cell in cells if not self._finished(cell)]
        if not todo:
            return
        first = todo[0].positions[:RANDOM_PROBE_IMAGES]
        random = is_random(self.model, self.dataset.tensors(first, self.device)[0], self.classes)
        remarked = [*remarks(self.model), *([RANDOM_NOTE] if random else [])]
        for note in remarked:
            logger.warning("model %r: %s (its results carry this note)", self.entry.name, note)
        self.notes.extend(remarked)
        stream = corrupted_chunks(self.dataset, self._tasks(todo), self.corruptions)
        shown = self.attacker.progress
        with Bar(todo, desc=self.entry.name, unit="cell", show=shown) as bar, closing(stream):
            for cell in bar:
                bar.set_postfix_str(cell.condition.label)
                result = self._measure_cell(cell, stream, fingerprint)
                self.store.save(result)
                bar.line(f"{cell.condition.label}: {result.correct.mean():.1%}, {result.seconds:.0f} s")

    def key(self, cell: Cell) -> tuple[str | int, ...]:
        """The values of `KEY_COLUMNS` of a cell."""
        key = cell_key(self.entry.name, self.entry.seed, cell.condition, cell.image_set, self.plan.seed)
        return tuple(key.values())

    def _finished(self, cell: Cell) -> bool:
        found = self.store.find(self.key(cell))
        if found is None or found.status not in FINISHED:
            return False
        if cell.suite is None or not found.details:
            return True
        return SuiteRecord.from_text(found.details).settings == suite_digest(cell.suite)

    def _parts(self, cell: Cell) -> list[NDArray[np.intp]]:
        return split_positions(cell.positions, self.dataset.images[0].nbytes, self.plan.batch_size)

    def _tasks(self, cells: Sequence[Cell]) -> list[CorruptionTask]:
        return [
            CorruptionTask(cell.condition.name, cell.condition.severity, self.plan.seed, part)
            for cell in cells
            if cell.condition.kind == "corruption" and not self._on_disk(cell)
            for part in self._parts(cell)
        ]

    def _measure_cell(self, cell: Cell, stream: Iterator[NDArray[np.uint8]], fingerprint: str) -> CellResult:
        start = time.perf_counter()
        if cell.suite is not None:
            measured = self._attack(cell, cell.suite, fingerprint)
        else:
            watch = GateWatch(self.model) if has_gates(self.model) else None
            answers = self._classify(self._chunks(cell, stream), watch)
            measured = Attacked(answers, details=json.dumps(watch.shares()) if watch else "")
        notes = [*self.notes, *measured.notes]
        if cell.condition.kind == "clean":
            labels = self.dataset.labels[cell.positions]
            notes += chance_remark(measured.answers.predictions, labels, self.classes)
        return CellResult(
            model=self.entry.name,
            model_seed=self.entry.seed,
            fingerprint=fingerprint,
            condition=cell.condition,
            image_set=cell.image_set,
            seed=self.plan.seed,
            predictions=measured.answers.predictions,
            confidences=measured.answers.confidences,
            seconds=time.perf_counter() - start,
            queries=measured.queries,
            gradients=measured.gradients,
            notes=" ".join(notes),
            status=measured.status,
            details=measured.details,
        )

    def _on_disk(self, cell: Cell) -> bool:
        return self.files is not None and not cell.condition.source.startswith(GENERATOR)

    def _chunks(self, cell: Cell, stream: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        parts = self._parts(cell)
        if cell.condition.kind == "clean":
            return (self.dataset.images[part] for part in parts)
        if self.files is not None and self._on_disk(cell):
            images = self.files.images(cell.condition.name, cell.condition.severity)
            return (images[part] for part in parts)
        return itertools.islice(stream, len(parts))

    def _classify(self, chunks: Iterable[NDArray[np.uint8]], model: Model | None = None) -> Answers:
        batches = (
            batch for chunk in chunks for batch in pixel_batches(chunk, self.plan.batch_size, self.device)
        )
        return classify(model or self.model, batches, self.classes)

    def _attack(self, cell: Cell, suite: Suite, fingerprint: str) -> Attacked:
        images, labels = self.dataset.tensors(cell.positions, self.device)
        outcomes = self.store.outcomes(
            model=self.entry.name,
            model_seed=self.entry.seed,
            fingerprint=fingerprint,
            image_set=cell.image_set,
            seed=self.plan.seed,
            batch_size=self.plan.batch_size,
            shape=tuple(images.shape[1:]),
            settings=attack_settings(suite.attacks),
        )
        return self.attacker.attack(images, labels, suite, cell.condition.threat, outcomes)

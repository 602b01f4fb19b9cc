"""Evaluation, certificates and corruption over the processes of torchrun or accelerate: the table of one process.

What is shared out are whole cells and whole files, so that every batch, seed and prediction is that of one
process. Alone, these are the plain calls.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from ..configs import EvaluationPlan, InputError
from ..configs.plan import resolve_plan
from ..data import ImageDataset, write_corruptions
from ..data.corruptions.write import Manifest
from ..eval import (
    CertificationPlan,
    CorruptionSource,
    Entry,
    Evaluation,
    Execution,
    ResultsStore,
    certify,
    evaluate,
)
from ..eval.measure.inference import Model
from ..eval.measure.planning import corruption_names


def processes() -> PartialState:
    """Return the processes that were started together; one alone outside of a launcher.

    They communicate by gloo, whatever they compute on: they only signal that they are done, for which one may have to
    wait for days.
    """
    return PartialState(cpu=True, timeout=timedelta(days=30))


def evaluate_sharded(
    model: Model,
    dataset: ImageDataset,
    plan: EvaluationPlan | str = "quick",
    *,
    results: str | Path | None = None,
    name: str | Entry | None = None,
    execution: Execution = Execution(),  # noqa: B008 - frozen
    corruptions: CorruptionSource = CorruptionSource(),  # noqa: B008 - frozen
) -> Evaluation:
    """Measure a model with the processes that were started together; see ``eval.evaluate``.

    Corruptions and attacks are dealt out like cards. All processes write to one results store, so that a stopped
    call goes on where it stopped; its file must be on a disk that they share and that locks files, which network file
    systems rarely do: evaluate on one machine.

    Args:
        model: The same in every process.
        dataset: The same in every process.
        plan: The same in every process.
        results: Path of the store; None keeps it for this call only.
        name: See ``eval.evaluate``.
        execution: See ``eval.evaluate``.
        corruptions: See ``eval.evaluate``.

    Returns:
        In every process, the rows of the whole plan, as one process measures them.
    """
    state = processes()
    measure = partial(evaluate, model, dataset, name=name, corruptions=corruptions)
    if state.num_processes == 1:
        return measure(plan, results=results, execution=execution)
    plan = resolve_plan(plan)
    with _shared_store(state, results) as path:
        share = share_of_plan(plan, state.process_index, state.num_processes)
        measure(share, results=path, execution=execution)
        state.wait_for_everyone()
        return measure(plan, results=path, execution=replace(execution, progress=False))


def certify_sharded(
    model: Model,
    dataset: ImageDataset,
    plan: CertificationPlan,
    *,
    results: str | Path | None = None,
    name: str | Entry | None = None,
    execution: Execution = Execution(),  # noqa: B008 - frozen
    say: Callable[[str], object] = lambda line: None,
) -> pd.DataFrame:
    """Certify a model with the processes that were started together; see ``eval.certify`` and :func:`evaluate_sharded`.

    Images are dealt out like cards; their votes are those of one process.
    """
    state = processes()
    prove = partial(certify, model, dataset, name=name, say=say)
    if state.num_processes == 1:
        return prove(plan, results=results, execution=execution)
    with _shared_store(state, results) as path:
        share = replace(plan, share=(state.process_index, state.num_processes))
        prove(share, results=path, execution=execution)
        state.wait_for_everyone()
        # Whatever a budget left undone stays so: the rows are made of what the processes found.
        return prove(plan, results=path, execution=replace(execution, progress=False, budget=1e-9))


@contextmanager
def _shared_store(state: PartialState, results: str | Path | None) -> Iterator[Path]:
    """One results store for all processes."""
    with tempfile.TemporaryDirectory() as private:
        path = Path(results or broadcast_object_list([str(Path(private) / "results.sqlite")])[0])
        with ExitStack() as stack:
            if state.is_main_process:
                # Held open throughout: SQLite refuses others while a first one sets up the file, or a last leaves.
                stack.enter_context(ResultsStore(path))
            state.wait_for_everyone()
            yield path
            state.wait_for_everyone()


def share_of_plan(plan: EvaluationPlan, process: int, processes: int) -> EvaluationPlan:
    """Return the part of a plan that falls to a process; the clean images are in each."""
    names = corruption_names(plan)
    entries = [*names, *plan.attacks][process::processes]
    return replace(
        plan,
        corruptions=tuple(entry for entry in entries if isinstance(entry, str)),
        attacks=tuple(entry for entry in entries if not isinstance(entry, str)),
    )


def write_corruptions_sharded(
    dataset: ImageDataset, folder: str | Path, *, names: Sequence[str], **options: Any
) -> list[Path]:
    """Write corrupted images with the processes that were started together; see ``data.write_corruptions``.

    Each process but the main one writes to a folder of its own inside ``folder``, from which the main one takes the
    finished files; ``folder`` must be one that all processes see.

    Returns:
        The files, which are those that one process writes.
    """
    state = processes()
    if state.num_processes == 1:
        return write_corruptions(dataset, folder, names=names, **options)
    folder = Path(folder).expanduser()
    mine = folder if state.is_main_process else _part(folder, state.process_index)
    if share := list(dict.fromkeys(names))[state.process_index :: state.num_processes]:
        write_corruptions(dataset, mine, names=share, **options)
    state.wait_for_everyone()
    if state.is_main_process:
        for process in range(1, state.num_processes):
            _take(_part(folder, process), folder)
    state.wait_for_everyone()
    if state.is_main_process:
        return write_corruptions(
            dataset, folder, names=names, **options
        )  # checks them, and finds nothing to do
    return [folder / f"{name}.npy" for name in names]


def _part(folder: Path, process: int) -> Path:
    return folder / f".process-{process}"


def _take(part: Path, folder: Path) -> None:
    """Move finished files, and their entries in the manifest."""
    found, whole = Manifest.read(part), Manifest.read(folder)
    if found is None:
        return
    if whole is None:
        raise InputError(
            f"{folder} lost its note while corruptions were written; run the same command again."
        )
    whole.check_same_origin(found, folder)
    for name in found.files:
        os.replace(part / f"{name}.npy", folder / f"{name}.npy")
    whole.files.update(found.files)
    whole.write(folder)
    for path in part.iterdir():
        path.unlink()
    part.rmdir()

"""Train, or measure, several networks at once, each in a process of its own with its share of the cores.

Small networks on small images do not fill the cores: two runs of one thread each take about two thirds of the time
that they take one after the other with two threads.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from logging.handlers import QueueHandler
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..configs import EvaluationPlan, InputError, RunConfig
from ..configs.device import choose_device
from ..configs.extensions import import_file, imported_files
from ..configs.notices import log_warnings
from ..configs.progress import on_terminal
from ..data import ImageDataset
from ..eval import CorruptionSource, Entry, Execution, ResultsStore, evaluate
from ..models import load_checkpoint
from ..train import Interrupted, train
from ..train.folder import is_finished
from ..train.processes import stop_requested


@dataclass(frozen=True)
class Share:
    """One process's share of the machine.

    Attributes:
        place: Number of the process.
        device: Device of the process.
        cores: Number of cores that are its own, itself included.
    """

    place: int
    device: torch.device
    cores: int


@dataclass(frozen=True)
class Run:
    """One training run and its folder."""

    name: str
    config: RunConfig
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return is_finished(self.folder)

    def work(self, dataset: ImageDataset, *, share: Share, progress: bool) -> None:
        """Train on these images."""
        augment = self.config.train.augment
        few = replace(augment, workers=min(augment.workers, share.cores - 1))  # the images are the same
        config = replace(self.config, train=replace(self.config.train, augment=few))
        train(config, dataset, self.folder, device=share.device, progress=progress, bar_position=share.place)


@dataclass(frozen=True)
class Measurement:
    """One trained network to be measured.

    Attributes:
        name: The arm.
        seed: Training seed.
        run: Folder of its training run.
        plan: The conditions to measure.
        results: Path of the results store; several processes may write to it.
        others: Training runs of the other arms, whose adversarial images suites try on this one.
        corrupted: Folder that keeps corrupted images for all networks; None makes them for each.
    """

    name: str
    seed: int
    run: Path
    plan: EvaluationPlan
    results: Path
    others: Mapping[str, Path] = field(default_factory=dict)
    corrupted: Path | None = None

    def work(self, dataset: ImageDataset, *, share: Share, progress: bool) -> None:
        """Measure on these images; only the first process shows a bar."""
        evaluate(
            load_checkpoint(self.run / "checkpoint"),
            dataset,
            self.plan,
            results=self.results,
            name=Entry(self.name, self.seed),
            execution=Execution(
                device=share.device, progress=progress and (share.place == 0 or not on_terminal())
            ),
            corruptions=CorruptionSource(
                # On a CPU the network needs the cores itself.
                workers=0 if share.device.type == "cpu" else share.cores - 1,
                cache=self.corrupted,
            ),
            surrogates={name: load_checkpoint(run / "checkpoint") for name, run in self.others.items()},
        )


def default_workers(runs: int, device: torch.device | str | None = None) -> int:
    """Return how many runs to have at once: one a GPU, or one a core.

    Networks too small to fill a GPU gain from more; a comparison's ``workers`` says how many.
    """
    chosen = choose_device(device)
    if chosen.type == "cpu":
        return max(1, min(runs, torch.get_num_threads()))
    return 1 if _numbered(device) else max(1, min(runs, torch.accelerator.device_count()))


def share_of_machine(device: torch.device | str | None, place: int, workers: int) -> Share:
    """Return what process number ``place`` of ``workers`` has: GPUs are dealt out like cards, unless one is named."""
    chosen = choose_device(device)
    if chosen.type == "cpu":
        return Share(place, chosen, max(1, torch.get_num_threads() // workers))
    if not _numbered(device):
        chosen = torch.device(chosen.type, place % torch.accelerator.device_count())
    return Share(place, chosen, max(1, (os.cpu_count() or 1) // workers))


def _numbered(device: torch.device | str | None) -> bool:
    return device is not None and torch.device(device).index is not None


def train_at_once(
    runs: Sequence[Run],
    dataset: ImageDataset,
    *,
    workers: int,
    progress: bool,
    device: torch.device | str | None = None,
) -> None:
    """Train the unfinished ones of several runs, ``workers`` at a time.

    Args:
        runs: The runs to train, with their folders; see ``train.train``.
        dataset: Training images.
        workers: Number of processes; the threads of this one are shared out among them.
        progress: Whether to show a progress bar for each process.
        device: Device; see :func:`share_of_machine`.

    Raises:
        Interrupted: On SIGINT or SIGTERM, after every run has saved its state.
        InputError: As from ``train.train``, from the first run that fails; the others have saved their state.
    """
    _work_at_once([run for run in runs if not run.finished], dataset, workers, progress, device)


def measure_at_once(
    measurements: Sequence[Measurement],
    dataset: ImageDataset,
    *,
    workers: int,
    progress: bool,
    device: torch.device | str | None = None,
) -> None:
    """Measure several networks, ``workers`` at a time; finished cells are skipped.

    Args:
        measurements: The measurements, each with its results store.
        dataset: Images to measure on.
        workers: Number of processes; one measures in this process, on all of its threads.
        progress: Whether to show a progress bar.
        device: Device; see :func:`share_of_machine`.

    Raises:
        Interrupted: On SIGINT or SIGTERM, with all finished cells kept.
        InputError: As from ``eval.evaluate``.
    """
    if workers == 1:
        for measurement in measurements:
            measurement.work(dataset, share=share_of_machine(device, 0, 1), progress=progress)
        return
    with ExitStack() as stores:
        # Held open throughout: SQLite refuses others while a first one sets up the file, or a last leaves.
        for path in {measurement.results for measurement in measurements}:
            stores.enter_context(ResultsStore(path))
        _work_at_once(measurements, dataset, workers, progress, device)


def _work_at_once(
    waiting: Sequence[Run] | Sequence[Measurement],
    dataset: ImageDataset,
    workers: int,
    progress: bool,
    device: torch.device | str | None,
) -> None:
    workers = min(workers, len(waiting))
    context = multiprocessing.get_context("spawn")
    tasks, failures, logged, lock = context.Queue(), context.Queue(), context.Queue(), context.RLock()
    # From the last: configurations go from cheap arms to expensive ones, and a short task fills the end.
    for task in [*reversed(waiting), *[None] * workers]:
        tasks.put(task)
    shared = (tasks, failures, logged, lock, dataset, progress, tuple(imported_files))
    shares = [share_of_machine(device, place, workers) for place in range(workers)]
    # Not daemonic: those may have no processes of their own, which augment images or make corruptions ahead.
    processes = [context.Process(target=_work, args=(share, *shared)) for share in shares]
    with stop_requested() as stop:
        try:
            for process in processes:
                process.start()
            failed = _wait(processes, failures, logged, stop)
        finally:
            for process in processes:
                process.terminate()
    if failed:
        raise failed[0]
    if stop.is_set():
        raise Interrupted("stopped; the state of every run is saved")
    broken = next((process.exitcode for process in processes if process.exitcode), None)
    if broken:
        raise InputError(
            f"a process was ended from outside (exit code {broken}), perhaps for want of memory; the same "
            "command goes on where it stopped, with workers: 1 in less memory."
        )


def _wait(
    processes: Sequence[BaseProcess], failures: Any, logged: Any, stop: threading.Event
) -> list[Exception]:
    """Wait for all processes; after a failure or a signal, ask the others to save and stop."""
    failed: list[Exception] = []
    asked = False
    while True:
        alive = any(process.is_alive() for process in processes)
        _log_here(logged)
        try:
            failed.append(failures.get(timeout=0.2))
        except queue.Empty:
            if not alive:
                return failed
        if (stop.is_set() or failed) and not asked:
            asked = True
            for process in processes:
                process.terminate()


def _log_here(logged: Any) -> None:
    """Pass records of workers to the loggers of this process, which drop repeated ones."""
    with suppress(queue.Empty):
        while True:
            record = logged.get_nowait()
            logging.getLogger(record.name).handle(record)


def _work(
    share: Share,
    tasks: Any,
    failures: Any,
    logged: Any,
    lock: Any,
    dataset: ImageDataset,
    progress: bool,
    imports: Sequence[Path],
) -> None:
    """Train or measure until nothing is left; the life of a worker process."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches every process; outside a run only the first acts
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.WARNING, handlers=[QueueHandler(logged)])
    log_warnings()
    torch.set_num_threads(share.cores if share.device.type == "cpu" else 1)
    tqdm.set_lock(lock)
    name = "a worker process"
    try:
        for file in imports:  # before the first task, whose front-end one of them may register
            import_file(file)
        while (task := _next(tasks)) is not None:
            name = task.name
            task.work(dataset, share=share, progress=progress)
    except Interrupted:
        return
    except InputError as error:
        failures.put(InputError(f"{name}: {error}"))
    except Exception:  # noqa: BLE001 - the parent raises it, with its traceback as text
        failures.put(RuntimeError(f"{name}: {traceback.format_exc()}"))


def _next(tasks: Any) -> Any:
    try:
        return tasks.get()
    except (AttributeError, ImportError) as error:
        raise InputError(
            f"what is to be trained cannot be imported ({error}); define your front-end in a file and load it with "
            "--import FILE.py or warplca.configs.import_file, or take workers: 1."
        ) from error


def _stop_with_parent() -> None:
    """Save and stop when the parent is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

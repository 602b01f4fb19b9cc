"""Display of a run while it trains: a bar, the figures of the epoch, and early on how long it will take."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress

import torch

from ..configs.progress import Bar, note
from .record import epoch_line, means

SKIPPED, TIMED = 3, 5  # steps: the first ones compile, or choose algorithms
BUSY = 0.5  # load per core of other work, above which threads wait for one another


class Display:
    """A progress bar with figures; it prints the run's expected duration after a few steps.

    Args:
        name: Name of the model in training.
        done: Steps done before.
        total: Steps of the run.
        epochs: Epochs of the run.
        device: Device of the run; waited for twice.
        shown: Whether to show anything.
        position: Line of the screen for the bar.
    """

    def __init__(
        self,
        name: str,
        *,
        done: int,
        total: int,
        epochs: int,
        device: torch.device,
        shown: bool,
        position: int = 0,
    ) -> None:
        self.total, self.epochs, self.device, self.shown = total, epochs, device, shown
        self.first, self.began = done, 0.0
        self.load = _load()
        self.bar = Bar(
            total=total, initial=done, desc=f"train {name}", unit="step", position=position, show=shown
        )

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def update(self, step: int) -> None:
        """Count a step."""
        self.bar.update()
        measured = step - self.first - SKIPPED
        if not self.shown or measured not in (0, TIMED):
            return
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        now = time.monotonic()
        if measured == 0:
            self.began = now
            return
        seconds = (now - self.began) / TIMED
        note(f"{self.bar.what}: {duration(seconds, self.total - step)}")
        if self.device.type == "cpu" and (busy := crowded(self.load, torch.get_num_threads())):
            note(busy)

    def epoch(self, row: Mapping[str, float]) -> None:
        """Write the row of a finished epoch where there is no bar."""
        self.bar.line(epoch_line(row, self.epochs))

    def show(self, sums: Mapping[str, float], step: int) -> None:
        """Show the figures of the epoch under way."""
        shown = means(dict(sums))
        steps_per_epoch = self.total // self.epochs
        parts = [
            f"epoch {(step - 1) // steps_per_epoch + 1}/{self.epochs}",
            f"loss {shown['train_loss']:.3f}",
            f"acc {shown['train_accuracy']:.1%}",
        ]
        if "active_fraction" in shown:
            parts.append(f"active {shown['active_fraction']:.1%}")
        self.bar.set_postfix_str(", ".join([*parts, f"{shown['images_per_second']:.0f} img/s"]))


def duration(seconds: float, steps: int) -> str:
    """Return a sentence: how long a run takes from here.

    Args:
        seconds: Duration of a step.
        steps: Number of steps that are left.
    """
    left = seconds * steps
    amount = f"{left / 3600:.1f} hours" if left >= 5400 else f"{max(left / 60, 0.1):.1f} minutes"
    return f"about {amount} left ({steps} steps of {seconds:.2g} s), validation not counted"


def crowded(load: float, threads: int) -> str:
    """Return a sentence where threads share their cores with other work, else nothing.

    Threads of one step wait for the slowest of them, so that a crowded core slows down all.

    Args:
        load: Mean number of other running processes when the run began.
        threads: Threads of this process.
    """
    cores = os.cpu_count() or 1
    if threads == 1 or load + threads <= cores * (1.0 + BUSY):
        return ""
    fewer = max(int(cores - load), 1)
    return (
        f"{load:.1f} other processes run on {cores} cores, and this one's {threads} threads wait for each other; "
        f"OMP_NUM_THREADS={fewer} may be several times faster."
    )


def _load() -> float:
    with suppress(OSError, AttributeError):  # Windows has none
        return float(os.getloadavg()[0])
    return 0.0

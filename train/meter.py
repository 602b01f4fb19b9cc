"""Training figures that gather on the device and are read only now and then: reading waits for the device."""

from __future__ import annotations

import time

import accelerate
import torch
from torch import Tensor

from ..configs import InputError


def precise(value: Tensor) -> Tensor:
    """Return a tensor in double precision, where its device has that (MPS has not)."""
    return value.detach().to(torch.float32 if value.device.type == "mps" else torch.float64)


class Meter:
    """Running sums of an epoch, over all processes.

    Args:
        accelerator: For the device and the other processes.
        sums: Where an interrupted epoch stood.
        step: Steps done so far.
    """

    def __init__(self, accelerator: accelerate.Accelerator, sums: dict[str, float], step: int) -> None:
        self.accelerator = accelerator
        self.device = accelerator.device
        self.dtype = precise(torch.zeros((), device=self.device)).dtype
        kept = sums if accelerator.is_main_process else dict.fromkeys(sums, 0.0)
        self.sums: dict[str, Tensor | float] = dict(kept)
        self.step = step
        self.first_bad = torch.full((), torch.inf, device=self.device)
        self.start_clock()

    def start_clock(self) -> None:
        """Count time from now on, leaving out what went before: validation, or saving."""
        self.ticked = time.monotonic()

    def add_seconds(self, of_data: float) -> None:
        """Count the time since the clock was started or this was last called, and the part that the data took.

        The main process's clock counts: the images are those of all processes, which run at the same time.
        """
        now = time.monotonic()
        for name, value in (("seconds", now - self.ticked), ("data_seconds", of_data)):
            counted = value if self.accelerator.is_main_process else 0.0
            self.sums[name] = self.sums.get(name, 0.0) + counted
        self.ticked = now

    def add(self, figures: dict[str, Tensor | float]) -> None:
        """Add one step's figures, without waiting for the device; "loss", a tensor, is also watched for NaN."""
        self.step += 1
        loss = torch.as_tensor(figures["loss"], device=self.device)
        self.first_bad = torch.minimum(
            self.first_bad, torch.where(torch.isfinite(loss), torch.inf, float(self.step))
        )
        for name, value in figures.items():
            term = precise(value) if isinstance(value, Tensor) else value
            self.sums[name] = self.sums.get(name, 0.0) + term

    def read(self) -> dict[str, float]:
        """Wait for the device and return the sums over all processes.

        Raises:
            InputError: If a loss since the start was NaN or infinite; the message names the first such step.
        """
        names = sorted(self.sums)
        values = torch.zeros(len(names), dtype=self.dtype, device=self.device)
        for place, name in zip(values, names, strict=True):  # no transfer: each place is a view
            place.copy_(torch.as_tensor(self.sums[name], dtype=self.dtype))
        first_bad = self.first_bad[None]
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values, "sum")
            first_bad = self.accelerator.gather(first_bad)
        bad = float(first_bad.min())  # type: ignore[union-attr]
        if bad < torch.inf:
            raise InputError(
                f"the loss was not finite at step {int(bad)}; lower train.learning_rate or train.clip_norm and choose "
                "another output folder. This one keeps the last good state."
            )
        return dict(zip(names, values.tolist(), strict=True))  # type: ignore[union-attr]

    def start_epoch(self) -> None:
        """Forget the sums."""
        self.sums = {}


def means(sums: dict[str, float]) -> dict[str, float]:
    """Turn an epoch's sums into the figures of its row in the curves."""
    images = sums["images"]
    named = {
        "train_loss": sums["loss"] / images,
        "train_accuracy": sums["correct"] / images,
        "images_per_second": images / max(sums["seconds"], 1e-9),
        "data_share": sums["data_seconds"] / max(sums["seconds"], 1e-9),
    }
    known = {"loss", "correct", "images", "seconds", "data_seconds"}
    return named | {name: value / images for name, value in sums.items() if name not in known}

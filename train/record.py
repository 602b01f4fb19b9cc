"""Records of a run: figures summed on the device, curves, configuration, versions, revision."""

from __future__ import annotations

import importlib.util
import json
import logging
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import accelerate
import pandas as pd
import torch
from torch import Tensor

from .. import __version__
from ..configs import InputError
from ..configs.atomic import file_written_whole
from ..configs.untrusted import file_with


def precise(value: Tensor) -> Tensor:
    """Return a tensor in double precision, where its device has that (MPS has not)."""
    return value.detach().to(torch.float32 if value.device.type == "mps" else torch.float64)


class Meter:
    """Running sums of an epoch, over all processes.

    Args:
        accelerator: For the device and the other processes.
        sums: Sums of an interrupted epoch.
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


COUNTED = frozenset({"loss", "correct", "images", "seconds", "data_seconds"})
"""Names of the sums of every run; figures of front-ends have other names."""


def means(sums: dict[str, float]) -> dict[str, float]:
    """Turn an epoch's sums into the figures of its row in the curves."""
    images = sums["images"]
    named = {
        "train_loss": sums["loss"] / images,
        "train_accuracy": sums["correct"] / images,
        "images_per_second": images / max(sums["seconds"], 1e-9),
        "data_share": sums["data_seconds"] / max(sums["seconds"], 1e-9),
    }
    return named | {name: value / images for name, value in sums.items() if name not in COUNTED}


logger = logging.getLogger(__name__)

RUN_FILE = "run.json"

CURVES_FILE = "curves.csv"

is_run_file = file_with(b'"sessions"')
"""Tells whether a file is a run's ``run.json``."""

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "numpy", "safetensors", "foolbox")


class RunRecord:
    """Writes the readable files of a run; only the main process does.

    Args:
        out: The run's folder.
        about: Configuration and data, as plain values.
        accelerator: For the device and the processes.
        step: First step of this session.
        epochs: Number of epochs in the curves by then.
    """

    def __init__(
        self,
        out: Path,
        about: dict[str, Any],
        accelerator: accelerate.Accelerator,
        *,
        step: int,
        epochs: int = 0,
    ) -> None:
        self.out, self.active = out, accelerator.is_main_process
        self.board: Any = None
        if not self.active:
            return
        session = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "from_step": step,
            "processes": accelerator.num_processes,
            "device": str(accelerator.device),
            **environment(),
        }
        self._write_run(about, session)
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            # What a session that was cut off showed beyond this point is shown anew.
            self.board = SummaryWriter(str(out / "tensorboard"), purge_step=epochs + 1)

    def curves(self, rows: Sequence[dict[str, float]], *, last: bool = True) -> None:
        """Write the curves anew, one row an epoch, and show the last one in TensorBoard.

        Raises:
            InputError: If they cannot be written after the last epoch; before it there is a warning instead.
        """
        if not self.active:
            return
        try:
            with file_written_whole(self.out / CURVES_FILE) as target:
                pd.DataFrame(rows).to_csv(target, index=False)
        except InputError as error:
            if last:
                raise
            logger.warning("%s Training goes on; the next epoch writes them all.", error)
        if self.board is not None:
            for name, value in rows[-1].items():
                self.board.add_scalar(name, value, int(rows[-1]["epoch"]))
            self.board.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self.board is not None:
            self.board.close()

    def _write_run(self, about: dict[str, Any], session: dict[str, Any]) -> None:
        path = self.out / RUN_FILE
        try:
            sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"]
        except (OSError, ValueError, KeyError):
            sessions = []  # a first session, or a file that somebody changed
        with file_written_whole(path) as target:
            text = json.dumps({**about, "sessions": [*sessions, session]}, indent=2)
            target.write_text(text + "\n", encoding="utf-8")


def environment() -> dict[str, Any]:
    """Return the versions that results may depend on, and the git revision where there is one."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "warplca": __version__,
        "gpu": gpu,
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "revision": revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
    }


def revision() -> str | None:
    """Return the git revision of this package's own checkout, with "-dirty" after local changes; None elsewhere."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():  # never that of a project which merely contains an installed copy
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def epoch_line(row: Mapping[str, float], epochs: int) -> str:
    """Return an epoch's row of the curves in a line."""
    shown = {name: row[name] for name in ("train_accuracy", "val_accuracy") if name in row}
    figures = "".join(f", {name.replace('_', ' ')} {value:.1%}" for name, value in shown.items())
    return f"epoch {row['epoch']:.0f}/{epochs}: loss {row['train_loss']:.3f}{figures}"

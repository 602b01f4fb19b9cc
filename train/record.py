"""What a run's folder tells: configuration, versions, revision, seeds, curves."""

from __future__ import annotations

import importlib.util
import json
import logging
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import accelerate
import pandas as pd
import torch

from .. import __version__
from ..configs import InputError
from ..configs.atomic import file_written_whole

logger = logging.getLogger(__name__)
RUN_FILE = "run.json"
CURVES_FILE = "curves.csv"
PACKAGES = ("torch", "torchvision", "timm", "accelerate", "numpy", "safetensors", "foolbox")


class RunRecord:
    """Writes the readable files of a run; only the main process does.

    Args:
        out: The run's folder.
        about: Configuration and data, as plain values.
        accelerator: For the device and the processes.
        step: Where this session begins.
        epochs: How many epochs are in the curves by then.
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

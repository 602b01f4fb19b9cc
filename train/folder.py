"""A run's folder: whether it is one, and whether its run is finished."""

from __future__ import annotations

import logging
from pathlib import Path

from ..configs import InputError
from ..configs.atomic import recover, refuse_foreign
from ..models import read_card
from ..models.checkpoint import is_checkpoint
from .record import CURVES_FILE, RUN_FILE, is_run_file

logger = logging.getLogger(__name__)
STATES_FOLDER, CHECKPOINT_FOLDER = "states", "checkpoint"


def is_finished(out: Path) -> bool:
    """Tell whether a run's folder holds its checkpoint, whole; a damaged one is written again from the last state."""
    folder = out / CHECKPOINT_FOLDER
    recover(folder)
    if not folder.exists():
        return False
    try:
        read_card(folder)
    except InputError as error:
        logger.warning("%s It is made again from the run's last state.", error)
        return False
    return True


def refuse_foreign_run(out: Path) -> None:
    """Refuse a folder in which training would replace what is not a run's.

    Raises:
        InputError: If something there has the name of one of a run's files, and is none.
    """
    refuse_foreign(out / CHECKPOINT_FOLDER, is_checkpoint)
    if (
        any((out / STATES_FOLDER).glob("step-*.safetensors"))
        or (out / CHECKPOINT_FOLDER / "config.json").exists()
    ):
        return
    for name in (RUN_FILE, CURVES_FILE):
        refuse_foreign(out / name, lambda path: is_run_file(out / RUN_FILE))

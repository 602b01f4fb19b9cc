"""Warnings for people: one sentence each, once each, from worker processes too, without lines of source."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

from tqdm import tqdm

from .untrusted import plain

PACKAGE = Path(__file__).parents[1]
logger = logging.getLogger(__name__)


class Notices(logging.Handler):
    """Writes our log messages on stderr as ``warplca: SENTENCE``, none of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message that was not seen before."""
        text = plain(record.getMessage())
        ours = record.name.partition(".")[0] == __name__.partition(".")[0]
        if ours and text not in self.seen:
            self.seen.add(text)
            tqdm.write(f"warplca: {text}", file=sys.stderr)  # above a bar, if there is one


def log_warnings() -> None:
    """Turn our own Python warnings into log messages, and leave those of libraries to the developers."""
    warnings.showwarning = _log


def _log(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: object) -> None:
    if Path(filename).is_relative_to(PACKAGE):
        logger.warning("%s", message)

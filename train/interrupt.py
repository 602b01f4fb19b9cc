"""Stopping by Ctrl-C or SIGTERM between two steps, with nothing lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):  # noqa: N818 - not an error: the state is saved
    """The run was asked to stop and has saved its state; the same call continues it."""


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """Yield an event that SIGINT or SIGTERM sets; a second SIGINT stops at once.

    Outside the main thread signals cannot be caught, and the event stays unset.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

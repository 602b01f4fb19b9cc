"""Signs of life of long work: a bar on a terminal, now and then a line in a file, nothing where they are not wanted."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from .untrusted import plain

QUIET = "TQDM_DISABLE"
"""tqdm's own variable of the environment: neither bars nor lines, in worker processes too."""

LINE_SECONDS = 60.0


def on_terminal() -> bool:
    """Tell whether somebody watches: where stderr is a file or a pipe, bars would fill it."""
    return sys.stderr.isatty()


def silenced() -> bool:
    """Tell whether the environment forbids signs of life."""
    return os.environ.get(QUIET, "").lower() not in ("", "0", "false")


@contextmanager
def quiet(wanted: bool = True) -> Iterator[None]:
    """Forbid signs of life meanwhile, in worker processes too, which inherit the environment."""
    before = os.environ.get(QUIET, "")
    os.environ[QUIET] = "1" if wanted else before
    try:
        yield
    finally:
        os.environ[QUIET] = before


def note(text: str, *, show: bool = True) -> None:
    """Write a line on stderr, above the bars that stand there."""
    if show and not silenced():
        tqdm.write(f"warplca: {plain(text)}", file=sys.stderr)
        sys.stderr.flush()


class Bar(tqdm):
    """A tqdm that is a bar on a terminal only; where stderr is a file, a line a minute stands for it.

    Args:
        iterable: The items to iterate over, or None.
        show: Whether signs of life are wanted.
        delay: Seconds before the first one.
        **options: As for tqdm.
    """

    def __init__(
        self, iterable: Iterable[Any] | None = None, *, show: bool = True, delay: float = 0, **options: Any
    ) -> None:
        wanted = show and not silenced()
        self.lines = wanted and not on_terminal()
        self.last_line, self.what = time.monotonic(), str(options.get("desc") or "")
        options = {"dynamic_ncols": True, "delay": delay} | options
        super().__init__(iterable, disable=not wanted or self.lines, **options)
        if self.total is None and hasattr(iterable, "__len__"):
            self.total = len(iterable)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        """Go through the iterable."""
        if not self.lines:
            yield from super().__iter__()
            return
        for item in self.iterable:  # type: ignore[union-attr]
            yield item
            self.update()

    def update(self, n: float | None = 1) -> bool | None:
        """Count; in a file, write how far it is if the last line is a minute old."""
        if not self.lines:
            return super().update(n)
        self.n += n or 0
        if time.monotonic() - self.last_line > LINE_SECONDS:
            of = f" of {self.total:,.0f} ({self.n / self.total:.0%})" if self.total else ""
            self.line(f"{self.n:,.0f}{of}")
        return None

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
        """Name what is counted."""
        self.what = desc or ""
        if not self.disable:
            super().set_description(desc, refresh)

    def line(self, text: str) -> None:
        """Write a line in a file in place of the bar: for what is worth one, such as an epoch or a cell."""
        if self.lines:
            self.last_line = time.monotonic()
            note(f"{self.what}: {text}" if self.what else text)

"""Text for the terminal, without what it would obey: names in files may come from anybody."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable

from ..configs.progress import note
from ..configs.untrusted import plain

Say = Callable[[str], None]


def progress_printer(args: Namespace) -> Say:
    """Return a function that prints messages: on stdout, on stderr if stdout takes JSON or CSV, or nowhere."""
    if args.quiet:
        return lambda line: None
    return echo if getattr(args, "table", "text") == "text" else note


def print_error(text: str) -> None:
    """Print what is wrong on stderr."""
    print(f"warplca: {plain(text)}", file=sys.stderr)


def echo(text: str = "") -> None:
    """Print a text of one or more lines."""
    print(plain(text, lines=True))

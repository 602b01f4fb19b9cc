"""Text for the terminal, without what it would obey: names in files may come from anybody."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable

from ..configs.progress import note
from ..configs.untrusted import plain

Say = Callable[[str], None]


def says(args: Namespace) -> Say:
    """What tells stages of the work: on stdout, on stderr where a table in JSON or CSV goes there, or nothing."""
    if args.quiet:
        return lambda line: None
    return tell if getattr(args, "table", "text") == "text" else note


def complain(text: str) -> None:
    """Print what is wrong on stderr."""
    print(f"warplca: {plain(text)}", file=sys.stderr)


def tell(text: str = "") -> None:
    """Print a text of one or more lines."""
    print(plain(text, lines=True))

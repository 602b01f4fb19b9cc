"""The one exception type that stands for a user's mistake, and what is refused in many places."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable

MOST_LISTED, LONGEST = 40, 200


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one sentence or two that say what was received, what was expected and what to
    do. The command line prints it on stderr and exits with code 2.
    """


def unknown_name(kind: str, name: object, known: Iterable[str], *, where: str = "") -> InputError:
    """Build the error for a name that is not in a list, with its nearest right neighbour.

    Args:
        kind: The kind of thing that is named, e.g. ``"corruption"``.
        name: The name that was received.
        known: All valid names.
        where: Optional place, e.g. a file's name.
    """
    options = sorted(known)
    near = difflib.get_close_matches(str(name), options, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    place = f" in {where}" if where else ""
    shown = ", ".join(options) if len(options) <= MOST_LISTED else f"{len(options)} names"
    return InputError(f"unknown {kind} {name!r}{place}{hint} Known: {shown}.")


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its class where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def in_one_line(error: BaseException, longest: int = LONGEST) -> str:
    """Return an exception's whole message in one line, cut where it is long, or the name of its class."""
    return " ".join(str(error).split())[:longest] or type(error).__name__


def brief(value: object) -> str:
    """Return a value as it would be typed, shortened where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def check_class_names(names: Iterable[object], where: str) -> tuple[str, ...]:
    """Return the names of classes as text.

    Raises:
        InputError: If one is empty, holds control characters (which a terminal would obey), or comes twice.
    """
    known = [str(name) for name in names]
    for name in known:
        if not name or any(unicodedata.category(sign) in ("Cc", "Cs") for sign in name):
            raise InputError(
                f"{where}: the class name {name!r} is empty or holds control characters; rename it."
            )
    twice = next((name for name, count in Counter(known).items() if count > 1), None)
    if twice is not None:
        raise InputError(
            f"{where}: the class name {twice!r} comes twice; give every class a name of its own."
        )
    return tuple(known)


def at_least(name: str, value: int, least: int) -> None:
    """Refuse a number that is too small.

    Raises:
        InputError: If ``value`` is below ``least``.
    """
    if value < least:
        raise InputError(f"{name} is {value}; give at least {least}.")

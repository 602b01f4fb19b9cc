"""Text for the terminal, without what it would obey: names in files may come from anybody."""

from __future__ import annotations

import unicodedata


def plain(text: str, *, lines: bool = False) -> str:
    """Return a text with control characters spelled out.

    Args:
        text: Any text.
        lines: Whether it may have several lines; else line breaks are spelled out as well.
    """
    kept = "\n" if lines else ""
    return "".join(
        repr(sign)[1:-1] if unicodedata.category(sign) == "Cc" and sign not in kept else sign for sign in text
    )


def tell(text: str = "") -> None:
    """Print a text of one or more lines."""
    print(plain(text, lines=True))

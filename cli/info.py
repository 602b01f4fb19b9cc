"""`warplca info`: what a checkpoint is, how robust, by what evidence."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path


def info(args: Namespace) -> int:
    """Print a checkpoint's summary and its model card's results."""
    from ..models import read_card
    from ..models.card import summary
    from ..models.integrity import MANIFEST

    print(summary(read_card(args.checkpoint)))
    if (Path(args.checkpoint) / MANIFEST).is_file():
        print(f"\nThe files match {MANIFEST}.")
    return 0

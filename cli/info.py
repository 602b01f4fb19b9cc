"""`warplca info`: what a checkpoint is, how robust, by what evidence."""

from __future__ import annotations

from argparse import Namespace


def info(args: Namespace) -> int:
    """Print a checkpoint's summary and its model card's results."""
    from ..models import read_card
    from ..models.card import summary
    from ..models.integrity import MANIFEST
    from ..models.shipped import checkpoint_folder

    print(summary(read_card(args.checkpoint)))
    if (checkpoint_folder(args.checkpoint) / MANIFEST).is_file():
        print(f"\nThe files match {MANIFEST}.")
    return 0

"""`warplca train`: train a classifier, alone or as one of several processes."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from ..configs import RunConfig, load_config


def train(args: Namespace) -> int:
    """Train a classifier."""
    from accelerate import PartialState

    from ..data import load_dataset
    from ..train import train as run

    config = load_config(RunConfig, args.config, "train", args.overrides)
    if args.data:
        config = replace(config, data=args.data)
    try:
        run(config, load_dataset(config.data, "train"), args.out)
        if PartialState().is_main_process:
            print(f"checkpoint:  {Path(args.out) / 'checkpoint'}")
    finally:
        PartialState().destroy_process_group()
    return 0

"""Configurations on the screen: the keys that there are, and what a command would run with."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from typing import Any

from ..configs import ComparisonConfig, EvaluationPlan, RunConfig
from ..configs.errors import InputError
from .screen import echo


def config(args: Namespace) -> int:
    """List the keys of a configuration."""
    from ..configs.listing import list_keys, matching
    from ..pipeline.prime import PrimeConfig

    kinds = {"train": RunConfig, "comparison": ComparisonConfig, "plan": EvaluationPlan, "prime": PrimeConfig}
    keys = matching(list_keys(kinds[args.kind]), args.key)
    if not keys:
        raise InputError(f"no key of {args.kind} holds {args.key!r}; `warplca config {args.kind}` lists all.")
    if args.table == "text":
        echo("\n".join(key.to_text() for key in keys))
        return 0
    import pandas as pd

    rows = [dataclasses.asdict(key) | {"of": ", ".join(key.of)} for key in keys]
    print_table(pd.DataFrame(rows), args.table)
    return 0


def printed(args: Namespace, built: Any) -> bool:
    """Print a configuration as YAML where ``--print-config`` asks for that, and return whether it did."""
    if not args.print_config:
        return False
    import yaml

    from ..configs.load import to_plain

    echo(yaml.safe_dump(to_plain(built), sort_keys=False).rstrip())
    return True


def print_table(frame: Any, form: str) -> None:
    """Print a pandas table as JSON (one object a row) or CSV."""
    text = frame.to_csv(index=False) if form == "csv" else frame.to_json(orient="records", indent=2)
    echo(text.rstrip("\n"))

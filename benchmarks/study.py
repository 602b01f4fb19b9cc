"""The study: arms, recipes and seeds of a preset, trained and measured; its tables are written after every part.

    python benchmarks/study.py study-small --data cifar10.npz           # tells its cost, then runs; hours
    python benchmarks/study.py study-small --data cifar10.npz --cost    # only tells its cost
    python benchmarks/study.py study-small --data cifar10.npz --tables  # only writes the tables anew
    python benchmarks/study.py my-study.yaml common.plan.attack_images=200 --data torchvision:DIR

Stopped or killed, the same command goes on. The folder of runs holds everything: checkpoints, every prediction, an HTML
report for each part.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from study_config import PRESETS, StudyConfig
from study_estimate import cost_line, estimate_costs
from study_report import write_study
from study_run import run_study

from warplca.configs import InputError, import_file, load_config
from warplca.train import Interrupted


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "study", help="study-small, study-full, study-pilots, study-ingredients, or a YAML file"
    )
    parser.add_argument("--data", required=True, help="CIFAR-10, a source as `warplca train` takes it")
    parser.add_argument("--runs", type=Path, help="folder of everything (default: runs/STUDY)")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/results"), help="of the tables (default: %(default)s)"
    )
    parser.add_argument("--parts", nargs="+", help="only these parts (default: all)")
    parser.add_argument("--cost", action="store_true", help="print the cost and stop")
    parser.add_argument("--tables", action="store_true", help="write the tables of what there is and stop")
    parser.add_argument(
        "--import", dest="imports", action="append", default=[], help="FILE.py with front-ends"
    )
    parser.add_argument("overrides", nargs="*", help="key=value, for instance common.plan.attack_images=200")
    return parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; changes may stand anywhere on it, after ``--parts`` as well."""
    args = options().parse_intermixed_args(arguments)
    args.overrides += [part for part in args.parts or () if "=" in part]
    args.parts = [part for part in args.parts or () if "=" not in part]
    return args


def print_cost(config: StudyConfig) -> None:
    """Print what each part costs on this machine."""
    for part, comparison in config.comparisons().items():
        print(f"cost of {part}, one run after the other:", flush=True)
        for cost in estimate_costs(comparison):
            print(f"  {cost_line(cost, len(comparison.seeds))}", flush=True)


def main() -> int:
    """Run the study that the command line names."""
    args = parse(sys.argv[1:])
    try:
        for file in args.imports:
            import_file(file)
        config = replace(load_config(StudyConfig, args.study, PRESETS, args.overrides), data=args.data)
        name = Path(args.study).stem
        runs = args.runs or Path("runs") / name
        chosen = config.only(args.parts) if args.parts else config
        if args.cost or not (args.tables or runs.exists()):
            print_cost(chosen)
        if not args.tables and not args.cost:
            tables = partial(write_study, name, config, runs, args.out)
            run_study(chosen, runs, say=partial(print, flush=True), after=lambda part: tables())
        if not args.cost:
            print(f"tables: {write_study(name, config, runs, args.out)}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt):
        print("stopped; the same command goes on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What each command does: read arguments, call the library, print. Heavy imports happen inside."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from ..configs import ComparisonConfig, EvaluationPlan, InputError, load_config
from ..configs.plan import PLANS
from .denoise import denoise
from .export import export
from .info import info
from .predict import predict
from .train import train


def quickstart(args: Namespace) -> int:
    """Run the quick start's comparison."""
    from ..pipeline.comparison import run_comparison
    from ..pipeline.pictures import cycles_fact

    preset = args.config or ("quickstart-fast" if args.fast else "quickstart")
    config = load_config(ComparisonConfig, preset, "comparison", args.overrides)
    out = Path(args.out or Path("runs") / Path(preset).stem)
    outcome = run_comparison(config, out, say=print)
    print(f"\n{outcome.comparison.to_text()}\n")
    print(f"cycles:      {cycles_fact(config)}")
    print(f"report:      {outcome.report}")
    print(f"checkpoint:  {outcome.checkpoint}  ({outcome.chosen}, chosen on validation images)")
    print(f"time:        {outcome.seconds:.0f} s")
    return 0


def prime(args: Namespace) -> int:
    """Prime a front-end."""
    from ..pipeline.prime import PrimeConfig, prime_frontend

    config = load_config(PrimeConfig, args.config, "prime", args.overrides)
    facts = prime_frontend(config, args.data, args.out)
    for name, value in facts.items():
        print(f"{name:<20} {value:.4g}")
    print(f"primed front-end:    {args.out}")
    return 0


def evaluate(args: Namespace) -> int:
    """Measure a checkpoint."""
    from ..data import load_dataset
    from ..eval.aggregate import is_complete, mean_corruption_error
    from ..eval.trust import attack_sentences
    from ..models import load_checkpoint
    from ..pipeline.sharded import evaluate_sharded, processes

    plan = _plan(args.plan, args.overrides)
    model = load_checkpoint(args.checkpoint)
    name = args.name or Path(args.checkpoint).resolve().name
    dataset = load_dataset(args.data, "test")
    frame = evaluate_sharded(
        model,
        dataset,
        plan,
        results=args.results,
        name=name,
        workers=args.workers,
        corruption_source=args.corrupted,
        budget=args.budget,
    )
    if not processes().is_main_process:
        return 0
    columns = ["condition", "severity", "threat", "accuracy", "low", "high", "images", "status"]
    print(frame[columns].to_string(index=False, float_format="%.3f", na_rep="-"))
    for line in attack_sentences(frame):
        print(line)
    if is_complete(frame):
        print(
            f"mCE (unnormalised, 15 corruptions x 5 severities): {mean_corruption_error(frame).iloc[0]:.2f} %"
        )
    print(f"results:     {args.results}")
    return 0


def compare(args: Namespace) -> int:
    """Compare the models of a store."""
    from ..eval import ResultsStore
    from ..eval import compare as run

    if not Path(args.results).exists():
        raise InputError(f"there is no results store {args.results}; `warplca evaluate` writes one.")
    with ResultsStore(args.results, read_only=True) as store:
        print(run(store, baseline=args.baseline, dataset=args.dataset).to_text())
        if args.report:
            from ..eval.report import write_report

            write_report(args.report, store, baseline=args.baseline)
            print(f"report:      {args.report}")
    return 0


def corrupt(args: Namespace) -> int:
    """Write corrupted test images."""
    from ..data import CORRUPTION_GROUPS, load_dataset
    from ..pipeline.sharded import processes, write_corruptions_sharded

    dataset = load_dataset(args.data, "test")
    only = [name for entry in args.only or ["standard"] for name in CORRUPTION_GROUPS.get(entry, (entry,))]
    write_corruptions_sharded(
        dataset, args.out, names=only, severities=args.severity, seed=args.seed, workers=args.workers
    )
    if processes().is_main_process:
        print(f"corrupted images: {args.out}")
    return 0


def data(args: Namespace) -> int:
    """Fetch a data set."""
    from ..data import download_cifar_c

    print(f"downloading CIFAR-10-C to {Path(args.out).resolve()}")
    print(f"files:       {download_cifar_c(args.out)}")
    return 0


def _plan(source: str, overrides: list[str]) -> EvaluationPlan:
    from dataclasses import asdict

    from ..configs import from_dict
    from ..configs.load import apply_overrides

    if source in PLANS:
        return from_dict(
            EvaluationPlan, apply_overrides(asdict(PLANS[source]), overrides), where=f"plan {source!r}"
        )
    if not Path(source).is_file():
        from ..configs.errors import unknown_name

        raise unknown_name("evaluation plan", source, PLANS)
    return load_config(EvaluationPlan, source, "plan", overrides)


RUN: dict[str, Callable[[Namespace], int]] = {
    "quickstart": quickstart,
    "prime": prime,
    "train": train,
    "evaluate": evaluate,
    "compare": compare,
    "export": export,
    "corrupt": corrupt,
    "data": data,
    "denoise": denoise,
    "info": info,
    "predict": predict,
}

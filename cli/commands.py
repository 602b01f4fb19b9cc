"""What each command does: read arguments, call the library, print. Heavy imports happen inside."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from ..configs import ComparisonConfig, EvaluationPlan, InputError, RunConfig, load_config
from ..configs.plan import PLANS


def quickstart(args: Namespace) -> int:
    """Run the quick start's comparison."""
    from ..pipeline.comparison import run_comparison
    from ..pipeline.examples import cycles_fact

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


def train(args: Namespace) -> int:
    """Train a classifier."""
    from dataclasses import replace

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


def evaluate(args: Namespace) -> int:
    """Measure a checkpoint."""
    from ..data import load_dataset
    from ..eval.compare.aggregate import is_complete, mean_corruption_error
    from ..eval.results.suites import attack_sentences
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


def certify(args: Namespace) -> int:
    """Certify the smoothed classifier of a checkpoint."""
    from ..attacks import SmoothAdv
    from ..data import load_dataset
    from ..eval.results.certificates import bracket_lines
    from ..models import load_checkpoint
    from ..pipeline.sharded import certify_sharded, processes

    frame = certify_sharded(
        load_checkpoint(args.checkpoint),
        load_dataset(args.data, "test"),
        args.sigma,
        samples=args.samples,
        images=args.images,
        results=args.results,
        name=args.name or Path(args.checkpoint).resolve().name,
        seed=args.seed,
        attack=None if args.no_attack else SmoothAdv(),
        clip=args.clip,
        tell=args.tell,
        budget=args.budget,
        batch_size=args.batch_size,
        say=print if processes().is_main_process else lambda told: None,
    )
    if not processes().is_main_process:
        return 0
    for line in bracket_lines(frame):
        print(line)
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
            from ..eval.report.page import write_report

            write_report(args.report, store, baseline=args.baseline)
            print(f"report:      {args.report}")
    return 0


def export(args: Namespace) -> int:
    """Export a checkpoint."""
    from ..data import load_dataset
    from ..models import ExportCheck, load_checkpoint, save_checkpoint
    from ..pipeline.exports import EXPORTERS

    model = load_checkpoint(args.checkpoint)
    if args.results:
        from ..pipeline.exports import collect_evidence

        model.about["evidence"] = collect_evidence(args.results, model, name=args.name)
    if args.format == "safetensors":
        save_checkpoint(model, args.out)
        print(f"wrote {args.out}")
        return 0
    check = EXPORTERS[args.format](
        model, Path(args.out), load_dataset(args.data, "test"), load_dataset(args.data, "train")
    )
    print(f"wrote {args.out} ({check.size / 1e6:.1f} MB)")
    if not isinstance(check, ExportCheck):
        print(
            f"measured on {check.images} images: accuracy {check.accuracy:.1%} in int8, {check.float_accuracy:.1%} in "
            f"float32, same prediction on {check.same_prediction:.1%}"
        )
        return 0
    print(
        f"checked against PyTorch on {check.images} images: max logit difference {check.max_difference:.2e},\n"
        f"within 1e-4 on {check.within_tolerance:.1%}, same prediction on {check.same_prediction:.2%}, "
        f"{check.outliers} outliers, of them shown to be threshold flips: {check.flips}"
    )
    double = check.double_difference
    print(f"in float64:  {'not available in this runtime' if double is None else f'{double:.1e}'}")
    print(f"one image:   {check.latency:.1f} ms, in PyTorch {check.eager_latency:.1f} ms (alternating runs)")
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


def denoise(args: Namespace) -> int:
    """Denoise image files."""
    if args.lam is not None and not args.lam > 0:
        raise InputError(f"--lam is {args.lam}; give a number above 0.")
    if args.iterations < 1:
        raise InputError(f"--iterations is {args.iterations}; give 1 or more.")
    import logging

    from ..pipeline.denoise import FRONTEND, denoise_files

    # It would say of each image that its lambda is not the one of priming, which is how this command works.
    logging.getLogger("warplca.frontend.pretrained").setLevel(logging.ERROR)
    options = {"frontend": args.frontend or FRONTEND, "lam": args.lam, "iterations": args.iterations}
    denoise_files(args.images, args.out, **options, overwrite=args.overwrite, say=print)
    return 0


def info(args: Namespace) -> int:
    """Print a checkpoint's summary and its model card's results."""
    from ..models import read_card
    from ..models.card import summary
    from ..models.checkpoint import checkpoint_folder
    from ..models.integrity import MANIFEST

    print(summary(read_card(args.checkpoint)))
    if (checkpoint_folder(args.checkpoint) / MANIFEST).is_file():
        print(f"\nThe files match {MANIFEST}.")
    return 0


def predict(args: Namespace) -> int:
    """Print the most probable classes of each image, and how sparse its code is."""
    import torch

    from ..models import open_predictor

    if args.top < 1:
        raise InputError(f"--top is {args.top}; give 1 or more.")
    predictor = open_predictor(args.checkpoint, native=args.native)
    for path in args.images:
        logits, active = predictor.answer(predictor.read(path))
        probabilities = torch.from_numpy(logits[0]).softmax(0)
        best = probabilities.topk(min(args.top, len(probabilities)))
        told = ", ".join(
            f"{predictor.name(int(index))} {float(value):.1%}" for value, index in zip(*best, strict=True)
        )
        sparsity = "" if active is None else f"; {float(active[0]):.2%} of the code is active"
        print(f"{path}: {told}{sparsity}")
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
    "certify": certify,
    "compare": compare,
    "export": export,
    "corrupt": corrupt,
    "data": data,
    "denoise": denoise,
    "info": info,
    "predict": predict,
}

"""What each command does: read arguments, call the library, print. Heavy imports happen inside."""

from __future__ import annotations

import itertools
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..configs import ComparisonConfig, EvaluationPlan, InputError, RunConfig, load_config
from ..configs.atomic import refuse_foreign, refuse_input
from ..configs.device import choose_device, described
from ..configs.plan import PLANS
from .screen import tell

if TYPE_CHECKING:
    from ..models import Classifier


def quickstart(args: Namespace) -> int:
    """Run the quick start's comparison."""
    from ..pipeline.comparison import run_comparison
    from ..pipeline.examples import cycles_fact

    preset = args.config or ("quickstart-fast" if args.fast else "quickstart")
    config = load_config(ComparisonConfig, preset, "comparison", args.overrides)
    out = Path(args.out or Path("runs") / Path(preset).stem)
    outcome = run_comparison(config, out, device=choose_device(args.device), say=tell)
    tell(f"\n{outcome.comparison.to_text()}\n")
    tell(f"cycles:      {cycles_fact(config)}")
    tell(f"report:      {outcome.report}")
    tell(f"checkpoint:  {outcome.checkpoint}  ({outcome.chosen}, chosen on validation images)")
    tell(f"time:        {outcome.seconds:.0f} s")
    return 0


def prime(args: Namespace) -> int:
    """Prime a front-end."""
    from ..pipeline.prime import PrimeConfig, prime_frontend

    config = load_config(PrimeConfig, args.config, "prime", args.overrides)
    facts = prime_frontend(config, args.data, args.out, device=choose_device(args.device))
    for name, value in facts.items():
        tell(f"{name:<20} {value:.4g}")
    tell(f"primed front-end:    {args.out}")
    return 0


def train(args: Namespace) -> int:
    """Train a classifier."""
    from dataclasses import replace

    from accelerate import PartialState

    from ..data import load_dataset
    from ..train import train as run

    config = load_config(RunConfig, args.config, "train", args.overrides)
    if args.data is not None:
        config = replace(config, data=args.data)
    try:
        run(config, load_dataset(config.data, "train"), args.out, device=choose_device(args.device))
        if PartialState().is_main_process:
            tell(f"checkpoint:  {Path(args.out) / 'checkpoint'}")
    finally:
        PartialState().destroy_process_group()
    return 0


def evaluate(args: Namespace) -> int:
    """Measure a checkpoint."""
    from ..eval.compare.aggregate import is_complete, mean_corruption_error
    from ..eval.results.suites import attack_sentences, note_sentences
    from ..models import load_checkpoint
    from ..pipeline.own_data import data_for
    from ..pipeline.sharded import evaluate_sharded, processes

    plan, device = _plan(args.plan, args.overrides), choose_device(args.device)
    model = load_checkpoint(args.checkpoint)
    name = args.name or _run_name(args.checkpoint)
    dataset = data_for(model, args.data, "test", say=tell if processes().is_main_process else _silent)
    frame = evaluate_sharded(
        model,
        dataset,
        plan,
        results=args.results,
        name=name,
        device=device,
        tf32=args.tf32,
        model_seed=_seed(model, args.model_seed),
        replace=args.replace,
        workers=args.workers,
        corruption_source=args.corrupted,
        budget=args.budget,
    )
    if not processes().is_main_process:
        return 0
    columns = ["condition", "severity", "threat", "accuracy", "low", "high", "images", "status"]
    tell(frame[columns].to_string(index=False, float_format="%.3f", na_rep="-"))
    for line in itertools.chain(attack_sentences(frame), note_sentences(frame)):
        tell(line)
    if is_complete(frame):
        tell(
            f"mCE (unnormalised, 15 corruptions x 5 severities): {mean_corruption_error(frame).iloc[0]:.2f} %"
        )
    tell(f"computed on: {described(device, tf32=args.tf32)}")
    tell(f"results:     {args.results}, under the name {name!r}")
    return 0


def _silent(line: str) -> None:
    """Say nothing."""


def _run_name(checkpoint: str) -> str:
    """A network's name in the results: its run's folder, for every run calls its checkpoint alike."""
    from ..train.folder import CHECKPOINT_FOLDER

    folder = Path(checkpoint).resolve()
    return folder.parent.name if folder.name == CHECKPOINT_FOLDER and folder.parent.name else folder.name


def _seed(model: Classifier, given: int | None) -> int:
    """The training seed that tells networks of one name apart: as given, or as the checkpoint says."""
    told = model.about.get("training", {}).get("seed", 0)
    return given if given is not None else told if isinstance(told, int) else 0


def certify(args: Namespace) -> int:
    """Certify the smoothed classifier of a checkpoint."""
    from ..attacks import SmoothAdv
    from ..eval.results.certificates import bracket_lines
    from ..models import harden, load_checkpoint
    from ..pipeline.own_data import data_for
    from ..pipeline.sharded import certify_sharded, processes

    model = load_checkpoint(args.checkpoint)
    say = tell if processes().is_main_process else _silent
    dataset = data_for(model, args.data, "test", say=say)
    name, seed = _run_name(args.checkpoint), _seed(model, args.model_seed)
    if args.harden is not None:
        model, name = harden(model, args.harden or None), f"{name} + {args.harden or 'chain'}"
    frame = certify_sharded(
        model,
        dataset,
        args.sigma,
        samples=args.samples,
        images=args.images,
        results=args.results,
        name=args.name or name,
        model_seed=seed,
        replace=args.replace,
        device=choose_device(args.device),
        seed=args.seed,
        attack=None if args.no_attack else SmoothAdv(),
        clip=args.clip,
        tell=args.tell,
        budget=args.budget,
        batch_size=args.batch_size,
        say=say,
    )
    if not processes().is_main_process:
        return 0
    for line in bracket_lines(frame):
        tell(line)
    tell(f"results:     {args.results}")
    return 0


def compare(args: Namespace) -> int:
    """Compare the models of a store."""
    from ..eval import ResultsStore
    from ..eval import compare as run
    from ..eval.report.page import is_report

    if not Path(args.results).exists():
        raise InputError(f"there is no results store {args.results}; `warplca evaluate` writes one.")
    if args.report:
        refuse_input(args.report, results=args.results)
        refuse_foreign(Path(args.report), is_report)  # before anything is printed
    with ResultsStore(args.results, read_only=True) as store:
        tell(run(store, baseline=args.baseline, dataset=args.dataset).to_text())
        if args.report:
            from ..eval.report.page import write_report

            write_report(args.report, store, baseline=args.baseline, dataset=args.dataset)
            tell(f"report:      {args.report}")
    return 0


def export(args: Namespace) -> int:
    """Export a checkpoint."""
    from ..models import ExportCheck, load_checkpoint, save_checkpoint
    from ..models.export.checked import is_export
    from ..pipeline.exports import EXPORTERS
    from ..pipeline.own_data import data_for

    refuse_input(args.out, checkpoint=args.checkpoint, data=args.data, results=args.results)
    model = load_checkpoint(args.checkpoint).to(choose_device(args.device or "cpu"))
    if args.results:
        from ..pipeline.exports import collect_evidence

        model.about["evidence"] = collect_evidence(args.results, model, name=args.name, dataset=args.dataset)
    if args.format == "safetensors":
        save_checkpoint(model, args.out)
        tell(f"wrote {args.out}")
        return 0
    refuse_foreign(Path(args.out), is_export)  # before the work
    test, training = data_for(model, args.data, "test", say=tell), data_for(model, args.data, "train")
    check = EXPORTERS[args.format](model, Path(args.out), test, training)
    tell(f"wrote {args.out} ({check.size / 1e6:.1f} MB)")
    if not isinstance(check, ExportCheck):
        tell(
            f"measured on {check.images} images: accuracy {check.accuracy:.1%} in int8, {check.float_accuracy:.1%} in "
            f"float32, same prediction on {check.same_prediction:.1%}"
        )
        return 0
    tell(
        f"checked against PyTorch on {check.images} images: max logit difference {check.max_difference:.2e},\n"
        f"within 1e-4 on {check.within_tolerance:.1%}, same prediction on {check.same_prediction:.2%}, "
        f"{check.outliers} outliers, of them shown to be threshold flips: {check.flips}"
    )
    double = check.double_difference
    tell(f"in float64:  {'not available in this runtime' if double is None else f'{double:.1e}'}")
    tell(f"one image:   {check.latency:.1f} ms, in PyTorch {check.eager_latency:.1f} ms (alternating runs)")
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
        tell(f"corrupted images: {args.out}")
    return 0


def data(args: Namespace) -> int:
    """Fetch a data set."""
    from ..data import download_cifar_c

    tell(f"downloading CIFAR-10-C to {Path(args.out).resolve()}")
    tell(f"files:       {download_cifar_c(args.out)}")
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
    device = choose_device(args.device)
    denoise_files(args.images, args.out, **options, device=device, overwrite=args.overwrite, say=tell)
    return 0


def info(args: Namespace) -> int:
    """Print a checkpoint's summary and its model card's results."""
    from ..configs.integrity import MANIFEST
    from ..models import read_card
    from ..models.card import summary
    from ..models.checkpoint import checkpoint_folder

    tell(summary(read_card(args.checkpoint)))
    if (checkpoint_folder(args.checkpoint) / MANIFEST).is_file():
        tell(f"\nThe files match {MANIFEST}.")
    return 0


def predict(args: Namespace) -> int:
    """Print the most probable classes of each image, and how sparse its code is."""
    import torch

    from ..models import open_predictor

    if args.top < 1:
        raise InputError(f"--top is {args.top}; give 1 or more.")
    predictor = open_predictor(args.checkpoint, trust=args.trust, device=choose_device(args.device))
    for path in args.images:
        logits, active = predictor.answer(predictor.read(path))
        probabilities = torch.from_numpy(logits[0]).softmax(0)
        best = probabilities.topk(min(args.top, len(probabilities)))
        told = ", ".join(
            f"{predictor.name(int(index))} {float(value):.1%}" for value, index in zip(*best, strict=True)
        )
        sparsity = "" if active is None else f"; {float(active[0]):.2%} of the code is active"
        tell(f"{path}: {told}{sparsity}")
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

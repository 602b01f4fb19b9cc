"""What each command does: read arguments, call the library, print. Heavy imports happen inside."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import indent

from ..configs import ComparisonConfig, InputError, RunConfig, load_config
from ..configs.atomic import refuse_foreign, refuse_input
from ..configs.device import choose_device
from ..configs.progress import note
from .listing import config, printed
from .measuring import certify, compare, evaluate
from .parser import USAGE
from .screen import echo, print_error, progress_printer


def quickstart(args: Namespace) -> int:
    """Run the quick start's comparison."""
    from ..pipeline.comparison import run_comparison
    from ..pipeline.examples import cycles_fact
    from ..pipeline.first_look import first_look

    preset = args.config or ("quickstart-fast" if args.fast else "quickstart")
    config = load_config(ComparisonConfig, preset, "comparison", args.overrides)
    if printed(args, config):
        return 0
    out = Path(args.out or Path("runs") / Path(preset).stem)
    if args.config is None:
        first_look(out, images=50 if args.fast else 200, say=progress_printer(args))
    outcome = run_comparison(config, out, device=choose_device(args.device), say=progress_printer(args))
    echo(f"\n{outcome.comparison.to_text()}\n")
    echo(f"cycles:      {cycles_fact(config)}")
    echo(f"report:      {outcome.report}")
    echo(f"checkpoint:  {outcome.checkpoint}  ({outcome.chosen}, chosen on validation images)")
    echo(f"time:        {outcome.seconds:.0f} s")
    return 0


def prime(args: Namespace) -> int:
    """Prime a front-end."""
    from ..pipeline.prime import PrimeConfig, prime_frontend

    config = load_config(PrimeConfig, args.config, "prime", args.overrides)
    if printed(args, config):
        return 0
    facts = prime_frontend(config, args.data, args.out, device=choose_device(args.device))
    for name, value in facts.items():
        echo(f"{name:<20} {value:.4g}")
    echo(f"primed front-end:    {args.out}")
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
    if args.init is not None:
        config = replace(config, train=replace(config.train, init=args.init))
    if printed(args, config):
        return 0
    try:
        run(config, load_dataset(config.data, "train"), args.out, device=choose_device(args.device))
        if PartialState().is_main_process:
            echo(f"checkpoint:  {Path(args.out) / 'checkpoint'}")
    finally:
        PartialState().destroy_process_group()
    return 0


def harden(args: Namespace) -> int:
    """Write a classifier with a front-end before it."""
    from ..pipeline.plugin import own_classifier, save_hardened, timm_classifier

    if args.timm and ":" not in args.timm:
        note(f"fetching timm's weights of {args.timm}, unless they are here")
    model = timm_classifier(args.timm) if args.timm else own_classifier(args.checkpoint)
    echo(f"front-ends:  {save_hardened(model, args.frontend, args.out)}")
    echo(f"checkpoint:  {args.out}")
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
        echo(f"wrote {args.out}")
        return 0
    refuse_foreign(Path(args.out), is_export)  # before the work
    test, training = (
        data_for(model, args.data, "test", say=progress_printer(args)),
        data_for(model, args.data, "train"),
    )
    logging.getLogger("warplca.models.export").setLevel(logging.WARNING if args.quiet else logging.INFO)
    check = EXPORTERS[args.format](model, Path(args.out), test, training)
    echo(f"wrote {args.out} ({check.size / 1e6:.1f} MB)")
    if not isinstance(check, ExportCheck):
        echo(
            f"measured on {check.images} images: accuracy {check.accuracy:.1%} in int8, {check.float_accuracy:.1%} in "
            f"float32, same prediction on {check.same_prediction:.1%}"
        )
        return 0
    echo(
        f"checked against PyTorch on {check.images} images: max logit difference {check.max_difference:.2e},\n"
        f"within 1e-4 on {check.within_tolerance:.1%}, same prediction on {check.same_prediction:.2%}, "
        f"{check.outliers} outliers, of them shown to be threshold flips: {check.flips}"
    )
    double = check.double_difference
    echo(f"in float64:  {'not available in this runtime' if double is None else f'{double:.1e}'}")
    echo(f"one image:   {check.latency:.1f} ms, in PyTorch {check.eager_latency:.1f} ms (alternating runs)")
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
        echo(f"corrupted images: {args.out}")
    return 0


def data(args: Namespace) -> int:
    """Fetch a data set."""
    from ..data import download_cifar_c

    echo(f"downloading CIFAR-10-C to {Path(args.out).resolve()}")
    echo(f"files:       {download_cifar_c(args.out)}")
    return 0


def denoise(args: Namespace) -> int:
    """Denoise image files."""
    if args.lam is not None and not args.lam > 0:
        raise InputError(f"--lam is {args.lam}; give a number above 0.")
    if args.iterations is not None and args.iterations < 1:
        raise InputError(f"--iterations is {args.iterations}; give 1 or more.")
    from ..pipeline.denoise import FRONTEND, Restorer, denoise_files

    # It would say of each image that its lambda is not the one of priming, which is how this command works.
    logging.getLogger("warplca.frontend.pretrained").setLevel(logging.ERROR)
    restorer = Restorer(args.frontend or FRONTEND, args.lam, args.iterations, choose_device(args.device))
    written = denoise_files(
        args.images, args.out, restorer, overwrite=args.overwrite, say=echo, complain=print_error
    )
    return 0 if len(written) == len(args.images) else USAGE


def info(args: Namespace) -> int:
    """Print a checkpoint's summary and its model card's results, or those of the classifiers in the package."""
    from ..configs.integrity import MANIFEST
    from ..models import read_card
    from ..models.card import headline, standing, summary
    from ..models.checkpoint import checkpoint_folder, shipped_checkpoints

    if args.checkpoint is None:
        told = summary if args.all else standing
        echo("\n\n".join(f"{name}\n{indent(told(read_card(name)), '  ')}" for name in shipped_checkpoints()))
        return 0
    card = read_card(args.checkpoint)
    echo(summary(card) if args.all else headline(card))
    if (checkpoint_folder(args.checkpoint) / MANIFEST).is_file():
        echo(f"\nThe files match {MANIFEST}.")
    return 0


def predict(args: Namespace) -> int:
    """Print the most probable classes of each image, how sparse its code is, and what gates decided."""
    import torch

    from ..models import open_predictor

    if args.top < 1:
        raise InputError(f"--top is {args.top}; give 1 or more.")
    predictor = open_predictor(args.checkpoint, trust=args.trust, device=choose_device(args.device))
    failed = 0
    for path in args.images:
        try:
            logits, figures = predictor.answer(predictor.read(path))
        except InputError as error:  # one bad picture of many
            failed += 1
            print_error(str(error))
            continue
        probabilities = torch.from_numpy(logits[0]).softmax(0)
        best = probabilities.topk(min(args.top, len(probabilities)))
        classes = ", ".join(
            f"{predictor.name(int(index))} {float(value):.1%}" for value, index in zip(*best, strict=True)
        )
        echo("; ".join([f"{path}: {classes}", *_figures({name: float(x[0]) for name, x in figures.items()})]))
    return USAGE if failed else 0


def _figures(figures: dict[str, float]) -> Iterator[str]:
    """Describe the front-end's figures of one image in words."""
    for name, value in figures.items():
        kind, _, number = name.partition(" ")
        which = f" {number}" if number else ""
        if kind == "active_fraction":
            yield f"{value:.2%} of the code{which} is active"
        elif kind == "damage":
            opening = figures[f"gate{which}"]
            state = "shut" if opening == 0.0 else "open" if opening == 1.0 else f"{opening:.0%} open"
            yield f"gate{which} {state} at damage {value:.4f}"


RUN: dict[str, Callable[[Namespace], int]] = {
    "quickstart": quickstart,
    "prime": prime,
    "train": train,
    "evaluate": evaluate,
    "certify": certify,
    "compare": compare,
    "harden": harden,
    "export": export,
    "corrupt": corrupt,
    "data": data,
    "denoise": denoise,
    "info": info,
    "predict": predict,
    "config": config,
}

"""The commands that measure, prove and compare: read arguments, call the library, print."""

from __future__ import annotations

import textwrap
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..configs import EvaluationPlan, InputError, load_config
from ..configs.atomic import refuse_foreign, refuse_input
from ..configs.device import choose_device, described
from ..configs.plan import PLANS
from .listing import print_table, printed
from .screen import echo, progress_printer

if TYPE_CHECKING:
    from ..data import ImageDataset
    from ..eval import Entry
    from ..eval.measure.inference import Model
    from ..models import Classifier


def evaluate(args: Namespace) -> int:
    """Measure a checkpoint, or it without and with a front-end before it."""
    from ..eval import CorruptionSource, Execution
    from ..eval.compare.aggregate import is_complete, mean_corruption_error
    from ..eval.compare.wording import WIDTH
    from ..pipeline.plugin import advice, evaluate_plug_in
    from ..pipeline.sharded import evaluate_sharded, processes

    plan = _plan(args.plan or ("quick" if args.harden is None else "plug-in"), args.overrides)
    if printed(args, plan):
        return 0
    device = choose_device(args.device)
    model, dataset, entry = _measured(args)
    options: dict[str, Any] = {
        "results": args.results,
        "name": entry,
        "execution": Execution(device=device, tf32=args.tf32, budget=args.budget),
        "corruptions": CorruptionSource(folder=args.corrupted, workers=args.workers),
    }
    found = None
    if args.harden is None:
        frame = evaluate_sharded(model, dataset, plan, **options)
    else:
        frame, found = evaluate_plug_in(model, dataset, plan, args.harden or None, **options)
    if not processes().is_main_process:
        return 0
    if args.table != "text":
        print_table(frame.to_frame(), args.table)
        return 0
    echo(str(frame))
    if found is not None:
        echo(f"\n{found.to_text()}\n{textwrap.fill(advice(found), WIDTH)}\n")
    elif is_complete(frame):
        echo(
            f"mCE (unnormalised, 15 corruptions x 5 severities): {mean_corruption_error(frame).iloc[0]:.2f} %"
        )
    echo(f"computed on: {described(device, tf32=args.tf32)}")
    echo(f"results:     {args.results}, under the name {entry.name!r}")
    return 0


def _measured(args: Namespace) -> tuple[Model, ImageDataset, Entry]:
    """The classifier, the images, and its entry in the results."""
    from ..data import load_dataset
    from ..eval import Entry
    from ..models import Classifier
    from ..pipeline.own_data import data_for
    from ..pipeline.plugin import open_classifier
    from ..pipeline.sharded import processes

    model = open_classifier(args.checkpoint, trust=args.trust)
    name = args.name or _run_name(args.checkpoint)
    if isinstance(model, Classifier):
        say = progress_printer(args) if processes().is_main_process else _silent
        entry = Entry(name, _seed(model, args.model_seed), args.replace)
        return model, data_for(model, args.data, "test", say=say), entry
    if args.data is None:
        raise InputError(f"{args.checkpoint} does not say which images it is for; give --data.")
    return model, load_dataset(args.data, "test"), Entry(name, args.model_seed or 0, args.replace)


def _silent(line: str) -> None:
    """Say nothing."""


def _run_name(checkpoint: str) -> str:
    """A network's name in the results: its run's folder, for every run calls its checkpoint alike."""
    from ..train.folder import CHECKPOINT_FOLDER

    folder = Path(checkpoint).resolve()
    return folder.parent.name if folder.name == CHECKPOINT_FOLDER and folder.parent.name else folder.name


def _seed(model: Classifier, given: int | None) -> int:
    """The training seed that distinguishes networks of one name: as given, or as the checkpoint says."""
    trained = model.about.get("training", {}).get("seed", 0)
    return given if given is not None else trained if isinstance(trained, int) else 0


def certify(args: Namespace) -> int:
    """Certify the smoothed classifier of a checkpoint."""
    from ..attacks import SmoothAdv
    from ..eval import CertificationPlan, Execution
    from ..eval.results.certificates import bracket_lines
    from ..models import harden
    from ..pipeline.sharded import certify_sharded, processes

    model, dataset, entry = _measured(args)
    if args.harden is not None:
        model = harden(model, args.harden or None, image_size=max(dataset.images[0].shape[:2]))
        if not args.name:
            entry = replace(entry, name=f"{entry.name} + {args.harden or 'front-end'}")
    plan = CertificationPlan(
        sigma=args.sigma,
        samples=args.samples,
        images=args.images,
        seed=args.seed,
        attack=None if args.no_attack else SmoothAdv(),
        clip=args.clip,
        tell=args.tell,
        batch_size=args.batch_size,
    )
    frame = certify_sharded(
        model,
        dataset,
        plan,
        results=args.results,
        name=entry,
        execution=Execution(device=choose_device(args.device), tf32=args.tf32, budget=args.budget),
        say=progress_printer(args) if processes().is_main_process else _silent,
    )
    if not processes().is_main_process:
        return 0
    if args.table != "text":
        print_table(frame, args.table)
        return 0
    for line in bracket_lines(frame):
        echo(line)
    echo(f"results:     {args.results}")
    return 0


def compare(args: Namespace) -> int:
    """Compare the models of a store."""
    from ..eval import ResultsStore
    from ..eval import compare as run
    from ..eval.compare.long import headline_frame
    from ..eval.report.page import is_report

    if not Path(args.results).exists():
        raise InputError(f"there is no results store {args.results}; `warplca evaluate` writes one.")
    if args.report:
        refuse_input(args.report, results=args.results)
        refuse_foreign(Path(args.report), is_report)  # before anything is printed
    with ResultsStore(args.results, read_only=True) as store:
        found = run(store, baseline=args.baseline, dataset=args.dataset)
        if args.table == "text":
            echo(found.to_text())
        else:
            print_table(headline_frame(found), args.table)
        if args.report:
            from ..eval.report.page import write_report

            write_report(args.report, store, baseline=args.baseline, dataset=args.dataset)
            progress_printer(args)(f"report:      {args.report}")
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

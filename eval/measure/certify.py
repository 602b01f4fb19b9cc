"""Certify a smoothed classifier on a data set, and attack the very same one: proven and attacked radii side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from ...configs.device import float32
from ...configs.errors import InputError
from ...configs.execution import Execution
from ...configs.progress import Bar
from ...data import ImageDataset
from ..results.records import Entry
from ..results.store import ResultsStore
from .evaluate import named, opened, rows_of
from .inference import Model, evaluation_mode, is_opaque, network_fingerprint
from .smoothed import CertificationPlan, SmoothedRun
from .strangers import check_dataset, check_model


def certify(
    model: Model,
    dataset: ImageDataset,
    plan: CertificationPlan | float | Sequence[float],
    *,
    results: ResultsStore | str | Path | None = None,
    name: str | Entry | None = None,
    execution: Execution = Execution(),  # noqa: B008 - frozen
    say: Callable[[str], object] = lambda line: None,
) -> pd.DataFrame:
    """Prove accuracies of the smoothed classifier, and bound them from above by attacks on the same classifier.

    Votes are kept image by image, so that a second or a killed run goes on where the last one stopped. All that is
    counted follows from the seed and each image alone.

    Args:
        model: Any callable on [0, 1] pixels to logits, one fixed function of one image; its noisy copies leave [0, 1].
        dataset: The test images.
        plan: The certificates to compute; a number, or several, stand for ``CertificationPlan(sigma)``.
        results: Store, or path of the file, that keeps the votes; None keeps them for this call only.
        name: The model's name in the results, or an `Entry` with its training seed; None takes the class's name.
        execution: Device, and budget of time.
        say: Called with the expected time before the work.

    Returns:
        One row for each sigma and radius, first 0, of the kinds ``"certificate"`` (share of images whose class is right
        and proven) and ``"smoothed attack"`` (share not attacked), as `ResultsStore.to_frame` describes with
        predictions. The first row of a sigma holds the radii of every image in ``details``, see `Bracket`.

    Raises:
        InputError: Model, images or numbers cannot be used.
    """
    from ...models.smoothing.classifier import smooth
    from ...models.smoothing.statistics import SamplingPlan

    plan = plan if isinstance(plan, CertificationPlan) else CertificationPlan(sigma=plan)
    check_model(model)
    check_dataset(dataset)
    if not len(dataset):
        raise InputError(f"data set {dataset.name!r} holds no images: nothing can be certified.")
    sampling, deadline = SamplingPlan.of(plan.samples), execution.deadline()
    with ExitStack() as stack:
        store = stack.enter_context(opened(results))
        stack.enter_context(float32(tf32=execution.tf32))
        target = stack.enter_context(evaluation_mode(model, execution.device))
        entry = named(name, model)
        fingerprint = network_fingerprint(model, dataset, target, plan.batch_size)
        store.claim(entry, fingerprint, dataset.fingerprint if is_opaque(model) else None)
        runs = [
            SmoothedRun(
                smoothed=smooth(model, sigma, clip=plan.clip, tell=plan.tell, batch_size=plan.batch_size),
                plan=plan,
                sampling=sampling,
                dataset=dataset,
                order=plan.order(dataset.labels),
                store=store,
                entry=entry,
                fingerprint=fingerprint,
                device=target,
                deadline=deadline,
                tf32=execution.tf32,
            )
            for sigma in plan.sigmas
        ]
        _measure(runs, progress=execution.progress, say=say)
        keys = [key for run in runs if plan.share is None for key in run.save_cells()]
        return rows_of(store.to_frame(predictions=True), keys)


def _measure(runs: Sequence[SmoothedRun], *, progress: bool, say: Callable[[str], object]) -> None:
    """Sample look by look, and attack."""
    for run in runs:
        run.prepare()
    passes = sum(run.passes_left() for run in runs)
    if passes:
        rate = runs[0].passes_per_second()
        say(
            f"{len(runs[0].order)} images, {len(runs)} sigma, at most {passes:,} passes at {rate:,.0f} a second: "
            f"up to {_duration(passes / rate)}; images that cannot be proven take less"
        )
    looks = range(1, len(runs[0].sampling.looks) + 1)
    with Bar(total=len(looks) * sum(len(run.order) for run in runs), unit="image", show=progress) as bar:
        for look in looks:
            for run in runs:
                bar.set_description(f"sigma {run.smoothed.sigma:g}")
                run.sample(look, bar.update)
    with Bar(total=sum(len(run.order) for run in runs), unit="image", show=progress) as bar:
        for run in runs:
            bar.set_description(f"attack, sigma {run.smoothed.sigma:g}")
            run.attack_in_turn(bar.update)


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{max(seconds / 60, 0.1):.1f} minutes"

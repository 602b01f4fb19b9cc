"""Certify a smoothed classifier on a data set, and attack the very same one: proven and attacked radii side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from ...attacks import SmoothAdv
from ...configs.errors import InputError, at_least
from ...configs.progress import Bar
from ...data import ImageDataset
from ..results.records import KEY_COLUMNS, choose_images
from ..results.store import ResultsStore
from .evaluate import PROBE_IMAGES, default_name
from .inference import (
    Model,
    answers_fingerprint,
    classify,
    evaluation_mode,
    is_opaque,
    module_fingerprint,
    pixel_batches,
)
from .smoothed import SmoothedRun
from .strangers import check_dataset, check_model

RADII = (0.25, 0.5, 0.75, 1.0)


def certify(
    model: Model,
    dataset: ImageDataset,
    sigma: float | Sequence[float],
    *,
    samples: int | Sequence[int] = 10_000,
    images: int | None = 500,
    results: ResultsStore | str | Path | None = None,
    name: str | None = None,
    model_seed: int = 0,
    seed: int = 0,
    attack: SmoothAdv | None = SmoothAdv(),  # noqa: B008 - frozen
    radii: Sequence[float] = RADII,
    clip: bool = False,
    tell: bool = False,
    budget: float | None = None,
    device: torch.device | str | None = None,
    batch_size: int = 100,
    share: tuple[int, int] | None = None,
    replace: bool = False,
    progress: bool = True,
    say: Callable[[str], object] = lambda told: None,
) -> pd.DataFrame:
    """Prove accuracies of the smoothed classifier, and bound them from above by attacks on the same classifier.

    Votes are kept image by image, so that a second or a killed run goes on where the last one stopped. All that is
    counted follows from the seed and each image alone.

    Args:
        model: Any callable on [0, 1] pixels to logits, one fixed function of one image; its noisy copies leave [0, 1].
        dataset: The test images.
        sigma: Standard deviations of the noise in pixels; each gives another smoothed classifier.
        samples: Noisy copies of each image, fixed beforehand, or the numbers at planned looks, which share the failure
            probability of 0.001: with a budget, all images come to the first look before any goes on.
        images: Images at most, the first of the class-balanced choice that ``evaluate`` makes; 0 or None means all.
        results: Store, or path of the file, that keeps the votes; None keeps them for this call only.
        name: The model's name in the results; None takes the class's name.
        model_seed: Training seed that tells several networks of one name apart.
        seed: Seed of the choice of images and of all noise.
        attack: The attack on the smoothed classifier; None leaves it out.
        radii: L2 radii, in pixels, of the rows; those that the samples cannot prove even if all agree are left out.
        clip: Clip noisy copies to [0, 1], for strangers that take no others.
        tell: Tell front-ends with adaptive lambda the strength of the noise.
        budget: Minutes; when they are over nothing further starts. A later call goes on.
        device: Where to compute; None means where the model is.
        batch_size: Most noisy copies in one pass.
        share: Number of this process and of all: only its share of the images is certified, and no row is saved. A call
            without a share then finds the votes of all.
        replace: Delete results of another network under this name and seed, which are refused otherwise.
        progress: Show a progress bar on stderr.
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

    if budget is not None and not budget > 0:
        raise InputError(f"budget is {budget} minutes; expected a number above 0, or None for no limit.")
    check_model(model)
    check_dataset(dataset)
    at_least("images", images or 0, 0)
    if not len(dataset):
        raise InputError(f"data set {dataset.name!r} holds no images: nothing can be certified.")
    sigmas = [sigma] if isinstance(sigma, int | float) else list(dict.fromkeys(sigma))
    if not sigmas:
        raise InputError("sigma is empty; give at least one number, such as 0.25.")
    plan = SamplingPlan.of(samples)
    order = choose_images(dataset.labels, images, seed)
    order = order if share is None else order[share[0] :: share[1]]
    store = results if isinstance(results, ResultsStore) else ResultsStore(results)
    try:
        with ExitStack() as stack:
            target = stack.enter_context(evaluation_mode(model, device))
            label = name or default_name(model)
            mark = network_fingerprint(model, dataset, seed, target)
            treat = store.discard_other if replace else store.refuse_other
            treat(label, model_seed, mark, dataset.fingerprint if is_opaque(model) else None)
            runs = [
                SmoothedRun(
                    smoothed=smooth(model, value, clip=clip, tell=tell, batch_size=batch_size),
                    plan=plan, dataset=dataset, order=order, store=store, name=label, model_seed=model_seed,
                    fingerprint=mark, seed=seed, device=target, attack=attack, radii=tuple(sorted(set(radii))),
                    deadline=None if budget is None else time.monotonic() + 60 * budget,
                )
                for value in sigmas
            ]  # fmt: skip
            _measure(runs, progress=progress, say=say)
            keys = [key for run in runs if share is None for key in run.save_cells()]
        table = store.to_frame(predictions=True)
    finally:
        if store is not results:
            store.close()
    rows = {key: row for row, key in enumerate(table[list(KEY_COLUMNS)].itertuples(index=False, name=None))}
    return table.iloc[[rows[key] for key in keys]].reset_index(drop=True)


def network_fingerprint(model: Model, dataset: ImageDataset, seed: int, device: torch.device) -> str:
    """Fingerprint of a network: of its settings and weights, or of a callable's answers to probe images."""
    if isinstance(model, nn.Module) and not is_opaque(model):
        return module_fingerprint(model)
    probe = dataset.images[choose_images(dataset.labels, PROBE_IMAGES, seed)]
    return answers_fingerprint(
        classify(model, pixel_batches(probe, 128, device), len(dataset.class_names)).predictions
    )


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
    looks = range(1, len(runs[0].plan.looks) + 1)
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

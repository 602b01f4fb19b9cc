"""Prime a front-end on a data set and save it with its card; a stopped job continues at the same step.

A stage is saved as a training run is, see ``train.state``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..configs import InputError
from ..configs.atomic import file_written_whole, only_one
from ..configs.device import choose_device
from ..configs.extensions import FRONTENDS
from ..configs.load import read_sections, to_plain
from ..data import load_dataset
from ..frontend import Equaliser, Frontend, PrimingPlan, WarpLCA, WarpLCASettings, measure, save_frontend
from ..frontend.pretrained import open_primed
from ..frontend.priming import make_stages, progress_bar, split
from ..frontend.priming.stages import Stage
from ..train.processes import Interrupted, stop_requested
from ..train.state import Progress, RunState, StateKeeper, refuse_another
from .spectrum import learn_spectrum, spectrum_card

JOB = "job.json"

_refuse_another = partial(refuse_another, job="priming job")

SAVE_SECONDS = 60.0


class Primed(NamedTuple):
    """A primed front-end, what was measured of it, and its README.md."""

    frontend: Frontend
    facts: dict[str, float]
    card: str


Primer: TypeAlias = "Callable[[PrimeConfig, Tensor, str, PrimingJob], Primed]"
"""Primes a front-end on images, which the text describes, saving on the way."""


@dataclass(frozen=True)
class PrimeConfig:
    """Configuration of a priming job.

    Attributes:
        frontend: Settings of the WARP-LCA layer: geometry and dynamics that it is primed for; or, by its name, an
            equaliser.
        plan: Lengths of the stages.
        images: Use only the first so many training images; 0 for all.
        start: Name or folder of a primed front-end of the same geometry to start from; empty for random weights.
    """

    frontend: Any = field(default_factory=WarpLCASettings)
    plan: PrimingPlan = field(default_factory=PrimingPlan)
    images: int = 0
    start: str = ""

    def __post_init__(self) -> None:
        section = self.frontend
        if isinstance(section, Mapping) and "name" not in section:
            section = {"name": "warp-lca", **section}
        (settings,) = read_sections(FRONTENDS, section, where="the priming job", prefix="frontend")
        if FRONTENDS.of(settings) not in PRIMERS:
            known = " or ".join(str(FRONTENDS.name_of(cls.Settings)) for cls in PRIMERS)
            raise InputError(
                f"frontend is {FRONTENDS.name_of(type(settings))!r}, which learns nothing from images alone; give "
                f"{known}."
            )
        object.__setattr__(self, "frontend", settings)

    @property
    def primer(self) -> Primer:
        """The function that primes such a front-end."""
        return PRIMERS[FRONTENDS.of(self.frontend)]


def prime_frontend(
    config: PrimeConfig,
    data: str,
    out: str | Path,
    *,
    device: torch.device | str | None = None,
    progress: bool = True,
    stop_after: int | None = None,
) -> dict[str, float]:
    """Prime a front-end and write it as a folder.

    While it runs, its state lies in the folder ``OUT.priming``; the same call continues from there, with the same
    result as if it had never stopped.

    Args:
        config: Layer and plan.
        data: Source of the training images; labels are not used.
        out: Folder to write.
        device: Device to compute on; None takes the accelerator if there is one.
        progress: Whether to show progress bars.
        stop_after: Stop after so many steps of this call, as Ctrl-C would (for tests).

    Returns:
        Energies on held-out images; see ``frontend.measure``.

    Raises:
        Interrupted: If it was asked to stop; the state is saved.
        InputError: On too few images, on the state of a job with another configuration, or if ``out`` holds anything
            but a front-end of this very job, which is then not primed again.
    """
    out = Path(out).resolve()
    dataset = load_dataset(data, "train")
    if config.images:
        if config.images > len(dataset):
            raise InputError(f"images is {config.images}; {dataset.name} has {len(dataset)} training images.")
        dataset = dataset.subset(_spread(dataset.labels, config.images))
    identity = json.loads(
        json.dumps({**to_plain(config), "dataset": dataset.fingerprint, "images": len(dataset)})
    )
    finished = finished_facts(out, identity)
    if finished is not None:
        return finished
    images, _ = dataset.tensors(_spread(dataset.labels, len(dataset)), choose_device(device))
    seen = f"{dataset.name}, {len(dataset)} training images, without labels"
    folder = out.with_name(out.name + ".priming")
    try:
        with only_one(folder):
            primed = config.primer(config, images, seen, PrimingJob(folder, identity, progress, stop_after))
    finally:
        with suppress(OSError):
            folder.rmdir()  # where nothing was saved
    known = {"data": dataset.name, "images": len(dataset), **primed.facts, "job": identity}
    save_frontend(primed.frontend, out, card=primed.card, facts=known)
    shutil.rmtree(folder, ignore_errors=True)
    return primed.facts


def _stage_by_stage(config: PrimeConfig, images: Tensor, seen: str, job: PrimingJob) -> Primed:
    """Prime a WARP-LCA layer, stage by stage."""
    torch.manual_seed(config.plan.seed)
    layer = WarpLCA(config.frontend)
    if config.start:
        layer.load_primed(open_primed(config.start))
    layer.to(images.device)
    held_out, rest = split(layer, images, config.plan)
    job.claim()
    layer.train()
    for stage in make_stages(layer, rest, config.plan, folder=job.folder / "targets", progress=job.progress):
        job.complete(stage)
    layer.eval()
    facts = measure(layer, held_out)
    return Primed(layer, facts, frontend_card(config, seen, facts))


def _spectrum(config: PrimeConfig, images: Tensor, seen: str, job: PrimingJob) -> Primed:
    """Let an equaliser learn, in one pass."""
    if config.plan != PrimingPlan() or config.start:
        name = "start" if config.start else "plan"
        raise InputError(f"{name} is set, and an equaliser has no stages of priming; leave it out.")
    equaliser = Equaliser(config.frontend)
    facts = learn_spectrum(equaliser, images)
    return Primed(equaliser, facts, spectrum_card(seen, (images.shape[2], images.shape[3]), facts))


PRIMERS: dict[type[Frontend], Primer] = {WarpLCA: _stage_by_stage, Equaliser: _spectrum}
"""The primer of each front-end that learns from images alone; a new one is one entry."""


def finished_facts(out: Path, identity: dict[str, Any]) -> dict[str, float] | None:
    """Return what was measured when this very job ended; None where there is nothing yet.

    Raises:
        InputError: If the place holds something else, which priming would replace.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    facts: dict[str, Any] = {}
    with suppress(OSError, ValueError, KeyError, TypeError):
        facts = dict(json.loads((out / "config.json").read_text(encoding="utf-8"))["facts"])
    if facts.get("job") != identity:
        raise InputError(
            f"{out} holds something else than this priming job's front-end; choose another output folder, or delete "
            "that one."
        )
    return {name: value for name, value in facts.items() if isinstance(value, float)}


def _spread(labels: np.ndarray, count: int) -> list[int]:
    """The first images; in a seeded random order where they come class by class, as folders do."""
    order = np.arange(len(labels))
    if (np.diff(labels) >= 0).all():
        order = np.random.default_rng(0).permutation(order)
    return order[:count].tolist()


class PrimingJob:
    """Does stages, saving on the way.

    Args:
        folder: Folder for the states.
        identity: What the job is; a state of another one is refused.
        progress: Whether to show progress bars.
        stop_after: Stop after so many steps, as Ctrl-C would.
    """

    def __init__(
        self, folder: Path, identity: dict[str, Any], progress: bool, stop_after: int | None
    ) -> None:
        self.folder, self.identity, self.progress = folder, identity, progress
        self.steps_left = stop_after

    def claim(self) -> None:
        """Write whose states the folder holds, before the first of them.

        Raises:
            InputError: If it belongs to another job.
        """
        file = self.folder / JOB
        if not file.exists():
            with file_written_whole(file) as target:
                target.write_text(json.dumps(self.identity, indent=2) + "\n", encoding="utf-8")
            return
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{file} cannot be read; delete the folder {self.folder} to start anew."
            ) from error
        _refuse_another(self.folder, kept, self.identity)

    def complete(self, stage: Stage) -> None:
        """Do a stage's steps from wherever it stands."""
        states = StateKeeper(
            self.folder / f"{stage.number}-{stage.name}",
            RunState(stage.layer, stage.optimiser),
            self.identity,
            stage.steps,
            keep=2,
            seconds=SAVE_SECONDS,
            name=f"stage {stage.name!r}",
            check=_refuse_another,
        )
        step = states.restore(states.read()).step
        with stop_requested() as stop:

            def check_stop() -> None:
                if stop.is_set():
                    raise Interrupted(
                        f"stopped while states settle; those that have are saved in {self.folder}"
                    )

            if step < stage.steps:
                stage.prepare(check_stop)
            if step == 0:
                stage.begin()
            with progress_bar(stage, step, self.progress) as bar:
                while step < stage.steps:
                    bar.set_postfix_str(f"loss {stage.advance(step):.3f}")
                    bar.update()
                    step += 1
                    if self.steps_left is not None:
                        self.steps_left -= 1
                    stopping = stop.is_set() or self.steps_left == 0
                    states.after_step(step, partial(Progress, step), stop=stopping)
        states.save(Progress(stage.steps))


def frontend_card(config: PrimeConfig, data: str, facts: dict[str, float]) -> str:
    """Return the README.md of a primed front-end."""
    layer = config.frontend
    unit = (
        "energies per image"
        if layer.output == "code"
        else "PSNR in dB, at noise of so many of 255 grey levels"
    )
    lines = [
        f"# WARP-LCA front-end: {layer.features} atoms of {layer.kernel_size} x {layer.kernel_size}, "
        f"stride {layer.stride}",
        "",
        f"Threshold {layer.threshold}, lambda {layer.lam}, primed for {layer.iterations} cycles.",
        "",
        f"- Data: {data}.",
        *([f"- Started from the front-end `{config.start}`."] if config.start else []),
        f"- Seed: {config.plan.seed}.",
        "- Licence: yours to choose.",
        "",
        f"Measured on 64 of these images that priming left out ({unit}):",
        "",
        "| what | value |",
        "|---|---|",
        *[f"| {name} | {value:.4g} |" for name, value in facts.items()],
    ]
    return "\n".join(lines) + "\n"

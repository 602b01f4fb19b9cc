"""The saved states of a run or a priming job: safetensors with JSON in the header, written whole, the newest kept.

A state belongs to one run, which its configuration and data identify.
"""

from __future__ import annotations

import json
import logging
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..configs import InputError, RunConfig, from_dict
from ..configs.atomic import file_written_whole
from ..configs.load import to_plain
from .processes import Interrupted, Loaded

OPERATION = ("save_minutes", "keep_states", "log_steps")
"""Settings that change nothing in the result: a run may go on with others."""


def identity(about: dict[str, Any]) -> dict[str, Any]:
    """Return what makes two runs the same: all of the configuration but what only concerns operation."""
    config = about["config"]
    recipe = {name: value for name, value in config["train"].items() if name not in OPERATION}
    recipe["augment"] = {name: value for name, value in recipe["augment"].items() if name != "workers"}
    return {
        "model": config["model"],
        "train": recipe,
        "data": config["data"],
        "dataset": about["dataset"],
        "images": about["images"],
        "initial": about.get("initial"),
        "teacher": about.get("teacher"),
    }


def completed(saved: dict[str, Any]) -> dict[str, Any]:
    """Return a saved identity with the settings that its version did not know yet at their defaults."""
    parts = {name: saved[name] for name in ("model", "train", "data")}
    try:
        config = from_dict(RunConfig, parts, where="the saved state")
    except InputError:  # of a version that knew settings which there are no more: another run in any case
        return saved
    return identity({**saved, "config": json.loads(json.dumps(to_plain(config)))})


logger = logging.getLogger(__name__)

HEADER, FORMAT = "warplca", 2


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

    Attributes:
        step: Steps done.
        curves: One row per finished epoch.
        sums: Running sums of the epoch under way.
    """

    step: int = 0
    curves: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)


@dataclass
class RunState:
    """All that continuing needs; random numbers follow from the seed and the step and need no state.

    Attributes:
        model: The model as it trains.
        optimiser: With its momenta.
        average: The averaged model, if one is kept.
        best: Weights of the best epoch so far, if they are kept.
        scaler: The gradient scaler of float16 training, if there is one.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    average: nn.Module | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    scaler: Any = None

    def tensors(self) -> dict[str, Tensor]:
        """Return everything as named tensors on the CPU."""
        parts: dict[str, Mapping[str, Tensor]] = {"model": self.model.state_dict(), "best": self.best}
        if self.average is not None:
            parts["average"] = self.average.state_dict()
        for index, momenta in self.optimiser.state_dict()["state"].items():
            parts[f"optimiser.{index}"] = {k: v for k, v in momenta.items() if isinstance(v, Tensor)}
        return {
            f"{part}.{name}": value.detach().cpu().contiguous()
            for part, named in parts.items()
            for name, value in named.items()
        }

    def restore(self, tensors: Mapping[str, Tensor], scaler: Mapping[str, Any] | None) -> None:
        """Put named tensors back where :meth:`tensors` took them."""
        self.model.load_state_dict(_under("model", tensors))
        if self.average is not None:
            self.average.load_state_dict(_under("average", tensors))
        self.best = _under("best", tensors)
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        saved = self.optimiser.state_dict()
        for name, tensor in _under("optimiser", tensors).items():
            index, key = name.split(".", 1)
            # In its parameter's memory layout, as it was: sums run in the same order.
            like = parameters[int(index)]
            same = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
            saved["state"].setdefault(int(index), {})[key] = same
        self.optimiser.load_state_dict(saved)
        if self.scaler is not None and scaler:
            self.scaler.load_state_dict(dict(scaler))


def save_state(
    folder: Path, state: RunState, progress: Progress, identity: dict[str, Any], *, keep: int
) -> None:
    """Write a state, and delete all but the ``keep`` newest.

    Raises:
        InputError: If the folder cannot be written or the disk is full; older states stay.
    """
    tensors = state.tensors()
    about = {
        "step": progress.step,
        "curves": progress.curves,
        "sums": progress.sums,
        "config": identity,
        "scaler": state.scaler.state_dict() if state.scaler is not None else None,
        "format": FORMAT,
    }
    about["checksum"] = _checksum(tensors, about)
    with file_written_whole(folder / f"step-{progress.step:09d}.safetensors") as target:
        target.write_bytes(save(tensors, {HEADER: json.dumps(about)}))
    for path in [*list(_newest_first(folder))[keep:], *folder.glob(".*.part")]:  # .part: left by a kill
        path.unlink(missing_ok=True)


def check_identity(run: Path, saved: dict[str, Any], identity: dict[str, Any]) -> None:
    """Refuse a state of a run with another configuration, naming what differs."""
    refuse_another(run, completed(saved), identity)


def refuse_another(
    folder: Path, saved: Mapping[str, Any], identity: Mapping[str, Any], *, job: str = "run"
) -> None:
    """Refuse to go on with a job that is another one, naming what differs.

    Raises:
        InputError: If it is.
    """
    if saved == identity:
        return
    changed = [key for key in identity if saved.get(key) != identity[key]]
    details = [
        f"{key}.{name}"
        for key in changed
        if isinstance(identity[key], dict) and isinstance(saved.get(key), dict)
        for name in identity[key]
        if saved[key].get(name) != identity[key][name]
    ]
    raise InputError(
        f"{folder} holds a {job} with another configuration (different: {', '.join(changed) or 'version'}"
        f"{'; ' + ', '.join(details) if details else ''}); choose another output folder, or delete that one."
    )


Check: TypeAlias = Callable[[Path, dict[str, Any], dict[str, Any]], None]


def read_state(folder: Path, identity: dict[str, Any], check: Check = check_identity) -> Loaded:
    """Read the newest good state of a run: its header and its tensors; None if there is none yet.

    A newest state that is truncated or damaged is passed over for the one before, with a warning.

    Args:
        folder: Folder of its states.
        identity: What the run is.
        check: Called with the folder of the run, the identity of a state and that of the run; refuses another one's.

    Raises:
        InputError: If no state can be read, or they belong to a run with another configuration.
    """
    bad: list[str] = []
    for path in _newest_first(folder):
        try:
            about, tensors = _read(path)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            bad.append(path.name)
            continue
        check(folder.parent, about["config"], identity)
        if bad:
            logger.warning(
                "the saved state %s is truncated or damaged; going on from the one before, at step %d",
                ", ".join(bad),
                about["step"],
            )
        return about, tensors
    if bad:
        raise InputError(
            f"the saved states in {folder} cannot be read ({', '.join(bad)}); delete them to start this run anew."
        )
    return None


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()[HEADER])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = {key: value for key, value in about.items() if key != "checksum"}
    if about["checksum"] != _checksum(tensors, header):
        raise ValueError("the checksum does not fit")
    return about, tensors


def _newest_first(folder: Path) -> Iterator[Path]:
    return iter(sorted(folder.glob("step-*.safetensors"), reverse=True))


def _checksum(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> int:
    """Over the header, too: steps, curves and configuration decide what a run goes on with."""
    value = zlib.crc32(json.dumps(about, sort_keys=True).encode())
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name].numpy().tobytes(), value)
    return value


def _under(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{part}."): value for name, value in tensors.items() if name.startswith(f"{part}.")
    }


@dataclass
class StateKeeper:
    """Saves the states of resumable work: every so many seconds, and when it is asked to stop.

    Attributes:
        folder: Folder of the states, inside the folder of the run or job.
        state: All that continuing needs.
        identity: What the work is.
        total: Number of steps of the work.
        keep: Number of states to keep.
        seconds: Time between two states.
        name: Part of the work, for the message that it stopped.
        check: Refuses states of other work; see :func:`read_state`.
        agree: Maps whether to stop, whether to save, and the step to what all processes do.
        writes: Whether this process writes.
    """

    folder: Path
    state: RunState
    identity: dict[str, Any]
    total: int
    keep: int
    seconds: float
    name: str = ""
    check: Check = check_identity
    agree: Callable[[bool, bool, int], tuple[bool, bool]] = lambda stop, save, step: (stop, save)
    writes: bool = True
    saved: float = field(init=False, default_factory=time.monotonic)

    def read(self) -> Loaded:
        """Read the newest good state; None if there is none yet."""
        return read_state(self.folder, self.identity, self.check)

    def restore(self, loaded: Loaded) -> Progress:
        """Continue from what :meth:`read` returned."""
        self.saved = time.monotonic()
        if loaded is None:
            return Progress()
        about, tensors = loaded
        self.state.restore(tensors, about["scaler"])
        return Progress(about["step"], about["curves"], about["sums"])

    def save(self, progress: Progress, *, needed: bool = True) -> None:
        """Save the state; where it is not needed now, a full disk only costs a warning."""
        if not self.writes:
            return
        try:
            save_state(self.folder, self.state, progress, self.identity, keep=self.keep)
        except InputError as error:
            if needed:
                raise
            logger.warning("%s The work goes on; the state will be saved at the next chance.", error)

    def after_step(self, step: int, progress: Callable[[], Progress], *, stop: bool) -> None:
        """Save the state if it is time to, or if the work is to stop.

        Args:
            step: Steps done.
            progress: Returns where the work stands.
            stop: Whether this process was asked to stop.

        Raises:
            Interrupted: If the work is to stop; its state is saved.
        """
        stop, due = self.agree(stop, time.monotonic() - self.saved > self.seconds, step)
        if not (stop or due):
            return
        self.save(progress(), needed=stop)
        self.saved = time.monotonic()
        if stop:
            part = f" of {self.name}" if self.name else ""
            raise Interrupted(
                f"stopped at step {step} of {self.total}{part}; state saved in {self.folder.parent}"
            )

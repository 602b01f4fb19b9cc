"""Signals and processes: stopping between two steps with nothing lost, and runs shared out by accelerate."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any

import accelerate
import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    broadcast_object_list,
    patch_environment,
)
from torch import Tensor

from ..configs import InputError
from ..configs.device import choose_device


class Interrupted(Exception):  # noqa: N818 - not an error: the state is saved
    """The run was asked to stop and has saved its state; the same call continues it."""


logger = logging.getLogger(__name__)


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """Yield an event that SIGINT or SIGTERM sets; a second SIGINT stops at once.

    Outside the main thread signals cannot be caught, and the event stays unset.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


Loaded = tuple[dict[str, Any], dict[str, Tensor]] | None


PATIENCE = timedelta(hours=2)
"""How long processes wait for the main one, which may be writing to a slow disk; NCCL's own limit is ten minutes."""


def chosen_precision(precision: str, device: torch.device | str | None) -> str:
    """Return the precision of a run, "auto" replaced by what the device computes fastest, which is logged."""
    if precision != "auto":
        return precision
    here = choose_device(device)
    if here.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = here.type == "cpu" and (
            torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        )
    chosen = "bf16" if fast else "no"
    logger.warning("train.precision is auto: %s on %s", chosen, here)
    return chosen


def make_accelerator(
    precision: str, *, all_parameters_learn: bool, device: torch.device | str | None = None
) -> accelerate.Accelerator:
    """Return the accelerator of a run: processes from the environment, device and precision as asked for.

    Args:
        precision: "no", "tf32", "bf16" or "fp16".
        all_parameters_learn: Whether every parameter gets a gradient in every step; if not, processes look for
            the idle ones, which costs a little.
        device: As for ``configs.device.choose_device``.

    Raises:
        InputError: If there is no such device, or it cannot train in this precision.
    """
    chosen = choose_device(device)
    if precision == "fp16" and chosen.type == "cpu":
        raise InputError("train.precision is fp16, which needs a GPU; give bf16, or no, on the CPU.")
    # The state of an earlier run in this process would refuse another precision, or keep its device.
    alone = PartialState._shared_state.get("num_processes", 1) == 1
    AcceleratorState._reset_state(reset_partial_state=alone)
    handlers = [
        DistributedDataParallelKwargs(find_unused_parameters=not all_parameters_learn),
        InitProcessGroupKwargs(timeout=PATIENCE),
    ]
    # Without an accelerator accelerate joins the other processes, by gloo, only if its device is the CPU.
    with patch_environment(accelerate_torch_device=str(chosen)):
        return accelerate.Accelerator(
            cpu=chosen.type == "cpu",
            mixed_precision="no" if precision == "tf32" else precision,
            kwargs_handlers=handlers,
        )


def from_main(accelerator: accelerate.Accelerator, loaded: Loaded, error: InputError | None) -> Loaded:
    """Give every process what the main one read; others need not see its files.

    Args:
        accelerator: Accelerator of the run.
        loaded: What the main process read: a description and tensors; ignored on other processes.
        error: What went wrong on the main process, if anything; raised on every process.
    """
    if accelerator.num_processes == 1:
        if error:
            raise error
        return loaded
    shapes = {} if loaded is None else {n: (t.dtype, tuple(t.shape)) for n, t in loaded[1].items()}
    header = [(str(error) if error else None, None if loaded is None else loaded[0], shapes)]
    message, about, shapes = broadcast_object_list(header)[0]
    if message:
        raise error or InputError(message)
    if about is None:
        return None
    tensors = {}
    for name, (dtype, shape) in shapes.items():
        mine = loaded[1][name] if loaded else torch.empty(shape, dtype=dtype)
        moved = mine.to(accelerator.device)
        torch.distributed.broadcast(moved, 0)
        tensors[name] = moved.cpu()
    return about, tensors

"""Where to compute and how exactly: what every command, job and layer asks; torch is imported when it is asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    import torch


def choose_device(name: torch.device | str | None = None) -> torch.device:
    """Return the device to compute on, and make it the current one.

    Processes that torchrun or accelerate started together take one accelerator each, by their number on the machine.

    Args:
        name: "cpu", "cuda", "cuda:1", "mps", ...; None takes the accelerator if there is one, else the CPU.

    Raises:
        InputError: If there is no such device here, or processes started together would share one.
    """
    import torch

    here = torch.accelerator.current_accelerator(check_available=True)
    asked = _parsed(name) if name is not None else here or torch.device("cpu")
    if asked.type == "cpu":
        return torch.device("cpu")
    if here is None or asked.type != here.type:
        found = f"cpu or {here.type}" if here else "cpu: torch sees no accelerator here"
        raise InputError(f"device is {str(name)!r}, and this computer has {found}; give one of those.")
    count, together = torch.accelerator.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if asked.index is not None and together > 1:
        raise InputError(
            f"device is {str(name)!r}, and {together} processes were started together; leave the number out, and each "
            "takes one of its own."
        )
    index = int(os.environ.get("LOCAL_RANK", "0")) % count if asked.index is None else asked.index
    if index >= count:
        raise InputError(f"device is {str(name)!r}, and this computer has {count} of them, numbered from 0.")
    torch.accelerator.set_device_index(index)
    return torch.device(asked.type, index)


def _parsed(name: torch.device | str) -> torch.device:
    import torch

    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InputError(
            f"device is {str(name)!r}; give cpu, cuda, cuda:1 or another name that torch knows."
        ) from error


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a CPU tensor's copy on a device, for which nothing waits: it goes through page-locked memory."""
    if device.type in ("cpu", "mps"):
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


_tf32: bool | None = None  # whether the innermost block allows TF32; None outside of any


@contextmanager
def float32(*, tf32: bool | None = None) -> Iterator[None]:
    """Compute convolutions and matrix products of float32 in full in the block, or in TensorFloat-32.

    NVIDIA's TF32 keeps 10 of 23 bits; cuDNN takes it by default.

    Args:
        tf32: Whether TF32 is allowed; None takes what the surrounding block has, not allowed outside of any.
    """
    global _tf32
    outer = _tf32
    switches, exact, fast = _switches()
    before = [getattr(*switch) for switch in switches]
    try:
        _tf32 = bool(outer) if tf32 is None else tf32
        for switch in switches:
            setattr(*switch, fast if _tf32 else exact)
        yield
    finally:
        _tf32 = outer
        for switch, value in zip(switches, before, strict=True):
            setattr(*switch, value)


def _switches() -> tuple[list[tuple[Any, str]], Any, Any]:
    """Return torch's switches, and their values for full float32 and for TF32."""
    from torch.backends import cuda, cudnn

    name = "fp32_precision"
    conv: Any = getattr(cudnn, "conv")  # noqa: B009 - unknown to the type checker
    return [(conv, name), (cudnn.rnn, name), (cuda.matmul, name)], "ieee", "tf32"


def exactly(values: torch.Tensor) -> AbstractContextManager[Any]:
    """Return ``float32()`` where that changes anything for ``values``: on NVIDIA GPUs, outside of any such block.

    What is compiled or exported heeds the block that it runs in.
    """
    import torch

    if values.device.type != "cuda" or _tf32 is not None or torch.compiler.is_compiling():
        return nullcontext()
    return float32()


def precisely(values: torch.Tensor) -> AbstractContextManager[Any]:
    """Return what switches autocast off for the device of ``values``, and TF32 as :func:`exactly` does."""
    import torch

    kind = values.device.type
    if not torch.is_autocast_enabled(kind):
        return exactly(values)
    stack = ExitStack()
    stack.enter_context(exactly(values))
    stack.enter_context(torch.autocast(kind, enabled=False))
    return stack


def on_tensor_cores(values: torch.Tensor, dtype: torch.dtype) -> bool:
    """Return whether convolutions of ``values`` in ``dtype`` run on NVIDIA's tensor cores, which want channels last."""
    import torch

    low = dtype in (torch.float16, torch.bfloat16)
    return values.device.type == "cuda" and (low or (dtype == torch.float32 and bool(_tf32)))


_watching = True


@contextmanager
def unwatched() -> Iterator[None]:
    """Let models take their input and their codes for sound in the block, where looking would wait for the device.

    For callers who know their pixels: training, evaluation and attacks, which look before and after.
    """
    global _watching
    before, _watching = _watching, False
    try:
        yield
    finally:
        _watching = before


def may_look(values: torch.Tensor) -> bool:
    """Tell whether to look at values: on the CPU always, elsewhere outside of ``unwatched``; never while compiling."""
    import torch

    return (_watching or values.device.type == "cpu") and not torch.compiler.is_compiling()


def described(device: torch.device, *, tf32: bool = False) -> str:
    """Return a device and its precision in words, for results."""
    import torch

    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return f"{device}{name}, {'TF32' if tf32 else 'full float32'}"

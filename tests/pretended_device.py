"""A device that is none: tensors hold CPU values and behave as a GPU's would, so that its faults show without one.

Operations on tensors of two devices raise, so does numpy; ``watched`` lists what would make the host wait for the
device, and counts what would be launched on it. Where there is a real GPU, :func:`device` gives that one, and
``watched`` asks CUDA.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretended"
aten = torch.ops.aten

WAITING = {
    "_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "_unique2", "unique_dim",
    "unique_consecutive", "_linalg_check_errors", "bincount", "allclose",
}  # fmt: skip
"""Operations whose result the host must see; copies and boolean indices are recognised by their arguments."""

FREE = {
    "empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh",
}  # fmt: skip
LOW = (torch.float16, torch.bfloat16)
CAST = (
    "conv1d", "conv2d", "conv3d", "conv_transpose2d.input", "matmul", "mm", "bmm", "addmm", "baddbmm",
    "linear",
)  # fmt: skip
"""What autocast computes in low precision; the rest of CUDA's list does not occur."""

FULL = (
    "exp",
    "log",
    "softmax.int",
    "log_softmax.int",
    "nll_loss",
    "cumsum",
    "prod",
    "pow.Tensor_Scalar",
    "rsqrt",
)


@dataclass
class Watch:
    """What happened in a block.

    Attributes:
        waits: For each wait of the host the operation, and the lines of the package that led to it.
        launched: Number of operations launched on the device.
        low: Names of linear-algebra operations that low precision reached.
    """

    waits: list[tuple[str, str]] = field(default_factory=list)
    launched: int = 0
    low: list[str] = field(default_factory=list)


_watches: list[Watch] = []


class Pretended(torch.Tensor):
    """A tensor of the device: ``held`` has its values."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Pretended:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=f"{NAME}:0",
        )
        made.held = held
        return made

    def __repr__(self) -> str:
        return f"Pretended({self.held!r})"

    def tolist(self) -> Any:
        """Return the values, as a subclass cannot without asking."""
        return self.cpu().tolist()

    __module__ = "torch"  # by which other libraries know a tensor of torch
    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func._schema.name.removeprefix("aten::")
    tensors = list(_tensors((args, kwargs)))
    _check_devices(name, args, tensors)
    for watch in _watches:
        watch.launched += _launches(func, name)
        if _waits(name, args, kwargs):
            watch.waits.append((name, _where()))
        if name.startswith(("linalg", "_linalg", "cholesky")) and any(t.dtype in LOW for t in tensors):
            watch.low.append(name)
    known = {id(t.held): t for t in tensors if isinstance(t, Pretended)}
    home = _is_cpu(kwargs.get("device"))  # a copy to the CPU stays there
    inner = {**kwargs, "device": torch.device("cpu")} if kwargs.get("device") is not None else kwargs
    inner = {key: value for key, value in inner.items() if key != "pin_memory"}
    found = func(*_held(args), **_held(inner))
    target = args[0] if name == "copy_" else None
    if home or (isinstance(target, torch.Tensor) and not isinstance(target, Pretended)):
        return found

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return (
            known[id(value)] if id(value) in known else Pretended(value)
        )  # what was written to stays itself

    return tree_map(wrapped, found)


def _is_cpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cpu"


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _held(value: Any) -> Any:
    return tree_map(lambda t: t.held if isinstance(t, Pretended) else t, value)


def _check_devices(name: str, args: Any, tensors: list[torch.Tensor]) -> None:
    """As CUDA: numbers, sources of copies and indices may be on the CPU."""
    if name in ("copy_", "_to_copy", "index", "index_put_", "_index_put_impl_"):
        return
    for tensor in tensors:
        if not isinstance(tensor, Pretended) and tensor.ndim:
            raise RuntimeError(
                f"{name}: tensors on two devices, {NAME}:0 and cpu of shape {tuple(tensor.shape)}"
            )


def _launches(func: Any, name: str) -> int:
    alias = func._schema.returns[0].alias_info if func._schema.returns else None
    is_view = alias is not None and not alias.is_write
    return 0 if is_view or name in FREE or name.startswith("_local") else 1


def _waits(name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    if name in WAITING or name.startswith(("_linalg_eigh", "_linalg_svd")):
        return True
    if name == "_to_copy":
        return _is_cpu(kwargs.get("device")) and not kwargs.get("non_blocking", False)
    if name == "copy_":
        target, source = args[:2]
        if isinstance(target, Pretended) == isinstance(source, Pretended):
            return False
        free = (len(args) > 2 and args[2]) or kwargs.get("non_blocking", False)
        return not (free and (isinstance(source, Pretended) or hasattr(source, "page_locked")))
    if name in ("index", "index_put_", "_index_put_impl_"):
        indices = [t for t in args[1] if t is not None]
        return any(t.dtype in (torch.bool, torch.uint8) or not isinstance(t, Pretended) for t in indices)
    return False


def _where() -> str:
    """Return the lines of the package that led here, the last first."""
    frames = [
        f for f in traceback.extract_stack() if "/warplca/" in f.filename and "/tests/" not in f.filename
    ]
    return " < ".join(f"{f.filename.rsplit('/warplca/', 1)[1]}:{f.lineno}" for f in reversed(frames[-4:]))


class _Module:
    """What torch expects of a device's module."""

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def get_rng_state(device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        """Random numbers are the CPU's."""

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return list(LOW)


_kept: list[Any] = []


def device() -> torch.device:
    """Return the accelerator of this computer, or the pretended one, which is registered at first use."""
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    if not _kept:
        _register()
    return torch.device(NAME, 0)


def _register() -> None:
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    library = torch.library.Library("aten", "IMPL")
    for name, op in _factories():
        library.impl(name, _made_by(op), "PrivateUse1")
    # torch.tensor(..., device=...) copies by this, without asking the tensor's class.
    library.impl("_copy_from", _copied, "PrivateUse1")
    for kind, dtype in ((CAST, None), (FULL, torch.float32)):
        for name in kind:
            base, _, overload = name.partition(".")
            op = getattr(getattr(aten, base), overload or "default")
            library.impl(name, _cast_by(op, dtype), "AutocastPrivateUse1")
    others = torch.library.Library("_", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    _kept.extend((library, others))

    def pin_memory(tensor: torch.Tensor, device: Any = None) -> torch.Tensor:
        pinned = tensor.clone()
        pinned.page_locked = True  # type: ignore[attr-defined]
        return pinned

    plain = torch.Generator

    class Generator(plain):  # type: ignore[misc, valid-type]
        def __new__(cls, device: Any = "cpu") -> torch.Generator:
            return plain("cpu" if torch.device(device).type == NAME else device)

    def synchronize(device: Any = None) -> None:
        for watch in _watches:
            watch.waits.append(("synchronize", _where()))

    torch.accelerator.synchronize = synchronize  # the backend has no streams
    torch.Tensor.pin_memory = pin_memory  # type: ignore[method-assign, assignment]
    torch.Generator = Generator  # type: ignore[misc, assignment]


def _factories() -> Iterator[tuple[str, Any]]:
    """Every operation that makes tensors out of none."""
    for full in torch._C._dispatch_get_all_op_names():
        if not full.startswith("aten::"):
            continue
        base, _, overload = full.removeprefix("aten::").partition(".")
        try:
            op = getattr(getattr(aten, base), overload or "default")
        except (AttributeError, RuntimeError):
            continue
        arguments = op._schema.arguments
        takes = any("Tensor" in str(a.type) or "Storage" in str(a.type) for a in arguments)
        gives = len(op._schema.returns) == 1 and str(op._schema.returns[0].type) == "Tensor"
        if gives and not takes and any(a.name == "device" for a in arguments):
            yield full.removeprefix("aten::"), op


def _copied(source: torch.Tensor, target: torch.Tensor, free: bool = False) -> torch.Tensor:
    return _run(aten.copy_.default, (target, source, free), {})


def _made_by(op: Any) -> Any:
    return lambda *args, **kwargs: _run(op, args, kwargs)


def _cast_by(op: Any, dtype: torch.dtype | None) -> Any:
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def cast(*args: Any, **kwargs: Any) -> Any:
        wanted = dtype or torch.get_autocast_dtype(NAME)

        def of(value: Any) -> Any:
            floats = isinstance(value, torch.Tensor) and value.dtype in (torch.float32, *LOW)
            return value.to(wanted) if floats and value.device.type == NAME else value

        with torch._C._ExcludeDispatchKeyGuard(keys):
            return op(*(of(value) for value in args), **{key: of(value) for key, value in kwargs.items()})

    return cast


@contextmanager
def watched() -> Iterator[Watch]:
    """Watch the block; on a real GPU only its waits are listed, by CUDA's own account."""
    watch = Watch()
    if torch.cuda.is_available():
        with _asking_cuda(watch):
            yield watch
        return
    _watches.append(watch)
    try:
        yield watch
    finally:
        _watches.remove(watch)


@contextmanager
def _asking_cuda(watch: Watch) -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *rest: (
            watch.waits.append(("synchronising", _where())) if "synchronizing" in str(message) else None
        )
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)

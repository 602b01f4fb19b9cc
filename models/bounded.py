"""A model from an untrusted description takes no more memory than its weights on disk say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn
from torch.nn.modules.module import register_module_buffer_registration_hook as on_buffer
from torch.nn.modules.module import register_module_parameter_registration_hook as on_parameter

from ..configs import InputError
from ..configs.errors import first_line

SLACK = (
    2**26
)  # bytes: buffers that are not saved, and the parts of timm's models that are built and thrown away


@contextmanager
def no_larger_than(weights: Path) -> Iterator[None]:
    """Stop the building of a model whose tensors outgrow its weights file.

    A module registers a tensor when memory is reserved for it, and fills it afterwards: what is refused was never
    touched.

    Raises:
        InputError: If they do, or there is no such file, or building fails.
    """
    if not weights.is_file():
        raise InputError(f"{weights.parent} holds no {weights.name}; copy the whole checkpoint folder.")
    left = 2 * weights.stat().st_size + SLACK

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal left
        left -= 0 if tensor is None else tensor.numel() * tensor.element_size()
        if left < 0:
            raise InputError(
                f"{weights.parent}/config.json describes a network far larger than {weights.name}; they do not belong "
                "together. Copy the checkpoint folder again from where it came from."
            )

    hooks = (on_parameter(count), on_buffer(count))
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{weights.parent}/config.json describes a network that cannot be built ({first_line(error)}); "
            "copy the folder again."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()

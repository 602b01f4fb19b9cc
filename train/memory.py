"""Running out of memory, said as a setting to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..configs import InputError, TrainConfig

SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")


@contextmanager
def memory_explained(recipe: TrainConfig, step: int) -> Iterator[None]:
    """Turn a failed allocation in a step into a sentence that names the settings.

    Raises:
        InputError: If the block ran out of the device's or the computer's memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _explanation(recipe, step) from error
    except RuntimeError as error:
        # On the CPU, torch reports a failed allocation as a plain RuntimeError.
        if any(sign in str(error).lower() for sign in SIGNS):
            raise _explanation(recipe, step) from error
        raise


def _explanation(recipe: TrainConfig, step: int) -> InputError:
    parts = min(2 * recipe.accumulation, recipe.batch_size)
    advice = (
        f"raise train.accumulation to {parts} (the same step in smaller parts, each with its own statistics in batch "
        "norm), or lower train.batch_size; where this folder has saved states, choose another one with it."
        if parts > recipe.accumulation
        else "take a smaller model, or fewer cycles of its front-end."
    )
    return InputError(
        f"out of memory at step {step + 1}: train.batch_size {recipe.batch_size} in {recipe.accumulation} part(s) does "
        f"not fit; {advice}"
    )

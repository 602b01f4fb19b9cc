"""Which network is this? A fingerprint, so that a re-trained model never inherits old results."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def module_fingerprint(model: nn.Module) -> str:
    """SHA-256 (32 hex digits) of a module's structure and of every tensor in its state.

    The printed structure counts too: the number of iterations or the threshold of a front-end changes the
    answers without changing a weight. Device and memory addresses do not count.
    """
    digest = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", repr(model)).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()[:32]


def answers_fingerprint(predictions: NDArray[np.integer]) -> str:
    """SHA-256 (32 hex digits) of the classes predicted on probe images: all there is to know of a callable."""
    return hashlib.sha256(predictions.astype("<i8").tobytes()).hexdigest()[:32]

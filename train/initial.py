"""Initial weights of a run: a trained network's, or for a new one a first layer fitted to the images."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..configs import InputError
from ..configs.untrusted import plain_file
from ..models import Classifier, load_checkpoint

logger = logging.getLogger(__name__)
SEEN = 5000  # training images that a first layer is set from
LEAST = 0.5  # share of the backbone's weights that must be found
WRAPPED = re.compile(r"^(module|_orig_mod|model|backbone|network)\.")


def start_from(model: Classifier, source: str) -> str:
    """Load a trained network's weights into the backbone; what has another shape keeps its random start.

    A first convolution that sees a code instead of an image, or a head for other classes, has another shape.

    Args:
        model: The classifier.
        source: A checkpoint folder of ours, the name of a shipped classifier, or a safetensors file with the state of a
            network of the same architecture; prefixes such as ``module.`` do not matter.

    Returns:
        Digest of the weights.

    Raises:
        InputError: If they cannot be read, or fit less than half of the backbone.
    """
    found = read_weights(source)
    own = model.backbone.state_dict()
    fitting = {name: value for name, value in found.items() if name in own and value.shape == own[name].shape}
    share = sum(own[name].numel() for name in fitting) / max(sum(value.numel() for value in own.values()), 1)
    left = [name for name in own if name not in fitting]
    if share < LEAST:
        raise InputError(
            f"train.init: the weights of {source} fit {share:.0%} of the backbone {model.config.backbone!r}; "
            f"{left[0]!r} is the first that they lack or have in another shape. Name the backbone that they belong to, "
            "and let the front-end output images (output: reconstruction) where it was trained on images."
        )
    model.backbone.load_state_dict(fitting, strict=False)
    if left:
        logger.warning(
            "train.init: %s start at random, as %s has none of their shape", ", ".join(left), source
        )
    return digest(fitting)


@torch.no_grad()
def start_from_images(model: Classifier, images: Iterable[Tensor]) -> None:
    """Let a backbone that has ``start_from_images`` set its first layer by what it will see of training images.

    Args:
        model: The classifier, on its device.
        images: Batches of training images in [0, 1].
    """
    learn = getattr(model.backbone, "start_from_images", None)
    if learn is None:
        return
    seen: list[Tensor] = []
    training = model.training
    model.eval()
    for batch in images:
        seen.append(model.backbone_input(batch).cpu())
        if sum(len(part) for part in seen) >= SEEN:
            break
    model.train(training)
    learn(torch.cat(seen))


def read_weights(source: str) -> dict[str, Tensor]:
    """Return the backbone's weights by name from a checkpoint folder, a shipped classifier or a safetensors file."""
    if Path(source).suffix != ".safetensors":
        return load_checkpoint(source).backbone.state_dict()
    try:
        state = load_file(plain_file(source))
    except (OSError, SafetensorError) as error:
        raise InputError(f"train.init: {source} cannot be read as safetensors ({error}).") from error
    return {_bare(name): value for name, value in state.items()}


def _bare(name: str) -> str:
    while (shorter := WRAPPED.sub("", name)) != name:
        name = shorter
    return name


def digest(state: Mapping[str, Tensor]) -> str:
    """Return a short name of weights, which differ where it differs."""
    found = hashlib.sha256()
    for name, value in sorted(state.items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:32]

"""The usual spectrum of a user's own unlabelled images, for an equaliser."""

from __future__ import annotations

import torch
from torch import Tensor

from ..configs import InputError
from ..frontend import Equaliser
from ..frontend.priming import HELD_OUT

FEWEST = 100


def learn_spectrum(equaliser: Equaliser, images: Tensor) -> dict[str, float]:
    """Let an equaliser learn from images (N, C, H, W), and measure it on 64 others.

    Returns:
        Quantiles of the damage of clean images: a gate belongs above them.

    Raises:
        InputError: On too few images.
    """
    if len(images) < FEWEST + HELD_OUT:
        raise InputError(
            f"priming got {len(images)} images; give at least {FEWEST + HELD_OUT} for an equaliser."
        )
    equaliser.to(images.device).eval()
    equaliser.learn(images[HELD_OUT:])
    with torch.no_grad():
        damage = equaliser.encode(images[:HELD_OUT]).gated.damage
    return {f"damage_{share}": float(damage.quantile(share / 100)) for share in (50, 95, 100)}


def spectrum_card(data: str, size: tuple[int, int], facts: dict[str, float]) -> str:
    """Return the README.md of an equaliser."""
    return "\n".join(
        [
            f"# Equaliser for images of {size[0]} x {size[1]} pixels",
            "",
            "The usual spectrum: mean amplitudes in six bands of frequency. It belongs to images of this size.",
            "",
            f"- Data: {data}.",
            "- Made by `warplca prime --config equaliser`.",
            "",
            "Damage (root mean square of log(amplitude / usual)) of 64 of these images that it did not learn from; a "
            "gate that leaves such images alone begins above it:",
            "",
            "| share of images below, % | damage |",
            "|---|---|",
            *[f"| {name.removeprefix('damage_')} | {value:.4g} |" for name, value in facts.items()],
            "",
        ]
    )

"""Prime a front-end on a data set and save it with its card: public calls in sequence."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from ..configs import InputError
from ..data import load_dataset
from ..frontend import PrimingPlan, WarpLCA, prime, save_frontend


@dataclass(frozen=True)
class LayerConfig:
    """The geometry and dynamics a front-end is primed for; see :class:`~warplca.frontend.WarpLCA`."""

    in_channels: int = 3
    features: int = 64
    kernel_size: int = 9
    stride: int = 2
    lam: float = 0.5
    threshold: str = "hard"
    iterations: int = 10
    momentum: float = 0.9
    predictor_width: int = 64
    predictor_depth: int = 3


@dataclass(frozen=True)
class PrimeConfig:
    """What to prime and how long.

    Attributes:
        layer: The layer.
        plan: Lengths of the stages.
        images: Use only the first so many training images; 0 for all.
    """

    layer: LayerConfig = field(default_factory=LayerConfig)
    plan: PrimingPlan = field(default_factory=PrimingPlan)
    images: int = 0


def prime_frontend(
    config: PrimeConfig, data: str, out: str | Path, *, progress: bool = True
) -> dict[str, float]:
    """Prime a WARP-LCA front-end and write it as a folder.

    Args:
        config: Layer and plan.
        data: Source of the training images; labels are not used.
        out: Folder to write.
        progress: Whether to show progress bars.

    Returns:
        Energies on held-out images; see ``frontend.measure``.
    """
    dataset = load_dataset(data, "train")
    if config.images:
        if config.images > len(dataset):
            raise InputError(f"images is {config.images}; {dataset.name} has {len(dataset)} training images.")
        dataset = dataset.subset(range(config.images))
    torch.manual_seed(config.plan.seed)
    layer = WarpLCA(**asdict(config.layer))
    images, _ = dataset.tensors()
    facts = prime(layer, images, config.plan, progress=progress)
    card = frontend_card(config, f"{dataset.name}, {len(dataset)} training images, without labels", facts)
    save_frontend(layer, out, card=card, facts={"data": dataset.name, "images": len(dataset), **facts})
    return facts


def frontend_card(config: PrimeConfig, data: str, facts: dict[str, float]) -> str:
    """Return the README.md of a primed front-end."""
    layer = config.layer
    lines = [
        f"# WARP-LCA front-end: {layer.features} atoms of {layer.kernel_size} x {layer.kernel_size}, "
        f"stride {layer.stride}",
        "",
        f"Threshold {layer.threshold}, lambda {layer.lam}, primed for {layer.iterations} cycles.",
        "",
        f"- Data: {data}.",
        f"- Seed: {config.plan.seed}.",
        "- Licence: MIT, like the package.",
        "",
        "Measured on 64 of these images that priming left out (energies per image):",
        "",
        "| what | value |",
        "|---|---|",
        *[f"| {name} | {value:.4g} |" for name, value in facts.items()],
    ]
    return "\n".join(lines) + "\n"

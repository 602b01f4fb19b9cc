"""What a trained network of the study costs: weights, arithmetic, time, activity."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from warplca.configs.atomic import file_written_whole
from warplca.data import load_dataset
from warplca.models import Classifier, load_checkpoint

TIMED_IMAGES = 100
REPEATS = 5


@dataclass(frozen=True)
class NetworkCosts:
    """Costs of one network.

    Attributes:
        arm: Its name in the study.
        parameters: Number of weights.
        macs: Multiplications with addition in convolutions and matrix products, for an image.
        training: Seconds of training, as the run's curves tell; runs side by side slow one another.
        inference: Seconds to classify an image in a batch of 100, on all threads.
        active: Share of active units on images of the embedded subset; None without a code.
    """

    arm: str
    parameters: int
    macs: float
    training: float
    inference: float
    active: float | None


def network_costs(arm: str, run: Path) -> NetworkCosts:
    """Measure a run's network once, and keep what was found in ``costs.json`` in the run's folder."""
    kept = run / "costs.json"
    if kept.exists():
        return NetworkCosts(**json.loads(kept.read_text()))
    model = load_checkpoint(run / "checkpoint")
    images, _ = load_dataset("cifar10-subset", "test").tensors(range(TIMED_IMAGES))
    curves = pd.read_csv(run / "curves.csv")
    trained = json.loads((run / "run.json").read_text())
    costs = NetworkCosts(
        arm=arm,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=_macs(model, images),
        training=float((trained["images"] / curves["images_per_second"]).sum()),
        inference=_inference(model, images),
        active=_active(model, images),
    )
    with file_written_whole(kept) as temporary:
        temporary.write_text(json.dumps(asdict(costs)))
    return costs


@torch.no_grad()
def _macs(model: Classifier, images: torch.Tensor) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        model(images)
    return counter.get_total_flops() / 2 / len(images)


@torch.no_grad()
def _inference(model: Classifier, images: torch.Tensor) -> float:
    """Median time of an image."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        model(images)
        times.append(time.perf_counter() - started)
    return sorted(times)[REPEATS // 2] / len(images)


@torch.no_grad()
def _active(model: Classifier, images: torch.Tensor) -> float | None:
    active = model.inspect(images).encoding.figures().get("active_fraction")
    return None if active is None else float(active.mean())

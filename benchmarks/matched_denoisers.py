"""What restores as well as WARP-LCA at equal cost: networks trained alike, and WARP-LCA without each of its parts.

Usage: python benchmarks/matched_denoisers.py --data cifar10.npz --classifiers DIR [--minutes 3] [--seeds 3]

Every network sees the same training images, noise and loss, those of `warplca prime --config restore-64x9s2`, for
equal processor time on one thread, the rate rising to 0.001 and falling alike. Measured: PSNR on the first 100 test
images of the study, and the accuracy of a published ResNet-20 behind each network under the three noise corruptions,
all behind one gate. DIR as in plugin.py.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Arrays, fingerprint, kept, table, write
from denoisers import CONVOLUTIONS
from plugin import FIRST, NOISE
from plugin_rows import behind_gate, parser, published
from torch import Tensor, nn

from warplca.data import ImageDataset, corrupt, load_dataset
from warplca.frontend import WarpLCA
from warplca.frontend.priming.restoring import ERROR_FLOOR, LEVELS, SHARE, STRONGEST, noisy, psnr
from warplca.frontend.sparse import functional
from warplca.frontend.sparse.operator import ConvOperator
from warplca.frontend.sparse.problem import Problem

START = "cifar10-64x9s2-soft"
START_OPTIONS = {
    "lam": 0.05,
    "adaptive_lam": 1.5,
    "learn_lam": True,
    "iterations": 3,
    "output": "reconstruction",
}
BATCH = 32


def warp(kind: type[WarpLCA] = WarpLCA, **changed: object) -> WarpLCA:
    """WARP-LCA as the shipped one is before it learns to restore: 3 cycles, lambda and its rule learned."""
    return kind.from_pretrained(START, **{**START_OPTIONS, **changed})


def unprimed() -> WarpLCA:
    """The same without any priming, as the convolutions start."""
    return WarpLCA(threshold="soft", momentum=0.9, **START_OPTIONS)


class NoStates(nn.Module):
    """In the predictor's place: every cycle starts from states that are zero."""

    def __init__(self, layer: WarpLCA) -> None:
        super().__init__()
        self.lam, self.features, self.stride = (
            layer.predictor.lam,
            layer.settings.features,
            layer.settings.stride,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return zeros for images (N, C, H, W)."""
        height, width = (math.ceil(side / self.stride) for side in images.shape[2:])
        return images.new_zeros(len(images), self.features, height, width)


def without_predictor(cycles: int) -> WarpLCA:
    """The same, from states that are zero."""
    layer = warp(iterations=cycles)
    layer.predictor = NoStates(layer)  # pyright: ignore[reportAttributeAccessIssue]
    return layer


class ThresholdsPerAtom(WarpLCA):
    """WARP-LCA whose lambda has a factor for each atom."""

    def __init__(self, settings: Any = None, **options: Any) -> None:
        super().__init__(settings, **options)
        self.factor_log = nn.Parameter(torch.zeros(self.settings.features, 1, 1))

    def problem(self, images: Tensor, lam: Tensor | float) -> Problem:
        """Return what is minimised."""
        return super().problem(images, lam * self.factor_log.exp())


class Untied(WarpLCA):
    """WARP-LCA whose analysis has filters of its own, as in CDLNet; they start as the atoms."""

    def __init__(self, settings: Any = None, **options: Any) -> None:
        super().__init__(settings, **options)
        self.analysis = nn.Parameter(self.atoms().detach().clone())

    def problem(self, images: Tensor, lam: Tensor | float) -> Problem:
        """Return what the cycles iterate on; it minimises nothing where analysis and synthesis differ."""
        problem = super().problem(images, lam)
        parts = {field.name: getattr(problem.operator, field.name) for field in fields(problem.operator)}
        return replace(problem, operator=_UntiedOperator(**parts, analysis=self.analysis))


@dataclass(frozen=True)
class _UntiedOperator(ConvOperator):
    analysis: Tensor | None = None

    def analyse(self, images: Tensor) -> Tensor:
        """Correlate images with the filters of the analysis."""
        assert self.analysis is not None
        return functional.analyse(images, self.analysis, self.stride)


ARMS: dict[str, Callable[[], nn.Module]] = {
    "WARP-LCA": warp,
    "WARP-LCA from random atoms": unprimed,
    "WARP-LCA, thresholds per atom": lambda: warp(ThresholdsPerAtom),
    "WARP-LCA, untied analysis": lambda: warp(Untied),
    "no predictor, equal multiply-adds": lambda: without_predictor(8),
    "no sparsity (lambda 0)": lambda: warp(lam=1e-6, adaptive_lam=0.0, learn_lam=False),
    **{f"convolutions, {name}": build for name, build in CONVOLUTIONS.items()},
}
RATE = 1e-3  # peak, as published for DnCNN and FFDNet, and as the restoring stage has


def trained(
    build: Callable[[], nn.Module], images: Tensor, share: Callable[[int], float], seed: int
) -> nn.Module:
    """Train on the images' device until the share that is done, given the number of steps, is 1."""
    torch.manual_seed(seed)
    network = build().to(images.device).train()
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    few, many = [w for w in weights if w.ndim < 1 or w.numel() < 10], [w for w in weights if w.numel() >= 10]
    groups = [{"params": many, "lr": RATE}, *([{"params": few, "lr": 10 * RATE}] if few else [])]
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))
    peaks = [group["lr"] for group in optimiser.param_groups]
    steps = 0
    while (done := share(steps)) < 1.0:
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * min(done / 0.05, 0.5 * (1 + math.cos(math.pi * done)))
        generator = torch.Generator().manual_seed(seed * 10_000_000 + steps)
        loss = weighted_error(network, images, generator)
        optimiser.zero_grad()
        loss.backward()
        for group in optimiser.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
        optimiser.step()
        steps += 1
    print(f"  {steps} steps, last loss {float(loss.detach()):.3f}", flush=True)
    return network.eval()


def minutes_of_processor(minutes: float) -> Callable[[int], float]:
    """Count minutes of processor time from now on: faster networks take more steps."""
    start = time.process_time()
    return lambda steps: (time.process_time() - start) / (60 * minutes)


def weighted_error(network: nn.Module, images: Tensor, generator: torch.Generator) -> Tensor:
    """The loss of the restoring stage on a random batch."""
    batch = images[torch.randint(len(images), (BATCH,), generator=generator).to(images.device)]
    shape = (BATCH, 1, 1, 1)
    sigma = STRONGEST * torch.rand(shape, generator=generator).to(images)
    clipped = torch.rand(shape, generator=generator) < 0.5
    error = (network(noisy(batch, sigma, generator, clipped=clipped)) - batch).square().flatten(1).mean(1)
    return (error / (ERROR_FLOOR + SHARE * sigma.flatten().square())).mean()


@torch.no_grad()
def measured(network: nn.Module, classifier: nn.Module, dataset: ImageDataset) -> Arrays:
    """Return PSNR of each of 100 images at each level, and whether each image of each noise cell is classified."""
    some = dataset.tensors(list(range(min(100, len(dataset)))))[0]
    found = {}
    for level in LEVELS:
        seen = noisy(some, level / 255, torch.Generator().manual_seed(level), clipped=True)
        found[f"psnr {level}"] = psnr(network(seen), some).numpy()
    labels = np.asarray(dataset.labels)
    for name, severity in [("clean", 0), *((noise, s) for noise in NOISE for s in range(1, 6))]:
        pixels = corrupt(dataset.images, name, severity=severity, seed=0) if severity else dataset.images
        images = torch.from_numpy(np.asarray(pixels)).permute(0, 3, 1, 2).float() / 255
        classes = [
            classifier(behind_gate(batch, network(batch))).argmax(1).numpy() for batch in images.split(100)
        ]
        found[f"{name} {severity}"] = np.concatenate(classes) == labels
    return found


def line(name: str, runs: list[Arrays]) -> list[str]:
    """Mean over seeds, and their spread."""
    columns = [[float(run[f"psnr {level}"].mean()) for run in runs] for level in LEVELS]
    columns += [[100 * float(run["clean 0"].mean()) for run in runs]]
    columns += [
        [100 * float(np.mean([run[f"{noise} {s}"].mean() for s in range(1, 6)])) for run in runs]
        for noise in NOISE
    ]
    return [
        name,
        *(
            f"{np.mean(values):.2f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.2f}"
            for values in columns
        ),
    ]


def main() -> None:
    """Run from the command line."""
    options = parser(__doc__)
    options.add_argument(
        "--minutes", type=float, default=3.0, help="of training, each (default: %(default)s)"
    )
    options.add_argument("--seeds", type=int, default=3, help="(default: %(default)s)")
    options.add_argument(
        "--images", type=int, default=300, help="test images from 1,000 on (default: %(default)s)"
    )
    options.add_argument(
        "--work", type=Path, default=Path("runs/matched"), help="finished runs (default: %(default)s)"
    )
    arguments = options.parse_args()
    torch.set_num_threads(1)
    training = load_dataset(arguments.data, "train")
    images = training.tensors(list(range(len(training) - 5000)))[0]
    dataset = load_dataset(arguments.data, "test").subset(list(range(FIRST, FIRST + arguments.images)))
    classifier = published(arguments.classifiers, "resnet20")
    runs: dict[str, list[Arrays]] = {name: [] for name in ARMS}
    for seed in range(arguments.seeds):
        for name, build in ARMS.items():
            print(f"{name}, seed {seed}", flush=True)
            key = fingerprint(name, arguments.minutes, seed, arguments.images, len(images))
            runs[name].append(
                kept(
                    arguments.work,
                    key,
                    lambda build=build, seed=seed: measured(
                        trained(build, images, minutes_of_processor(arguments.minutes), seed),
                        classifier,
                        dataset,
                    ),
                )
            )
        text = report(runs, arguments)
        print(text, flush=True)
    write(arguments.out / "plugin-matched.md", text)


def report(runs: dict[str, list[Arrays]], arguments: argparse.Namespace) -> str:
    """The table of all networks."""
    head = ["trained alike", *(f"PSNR {level}" for level in LEVELS), "clean", "Gaussian", "shot", "impulse"]
    weights = {
        name: sum(w.numel() for w in build().parameters() if w.requires_grad) for name, build in ARMS.items()
    }
    lines = [line(f"{name} ({weights[name]:,} weights)", found) for name, found in runs.items() if found]
    return (
        table(head, lines)
        + f"\nMade by `python benchmarks/matched_denoisers.py --minutes {arguments.minutes:g} "
        + f"--seeds {arguments.seeds} --images {arguments.images}`. dB, and % correct of {arguments.images} test "
        + "images, means of all severities; mean and standard deviation over seeds. The WARP-LCA rows start from the "
        + "shipped coding front-end, whose own priming is not counted in the minutes; the convolutions start at "
        + "random.\n"
    )


if __name__ == "__main__":
    main()

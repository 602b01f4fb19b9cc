"""Training throughput: our loop against a minimal one, WARP-LCA against the bare backbone, and the input's share.

    python benchmarks/training_speed.py                          # ResNet-18, all comparisons
    python benchmarks/training_speed.py --timm CHECKOUT          # and timm's own training script, from a checkout
    python benchmarks/training_speed.py --backbone resnet10_slim --batch-size 64 --seconds 30

The contestants take turns, step by step, so that a busy machine slows all of them alike; shown are the ratios of
medians and their spread.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from common import synchronise
from torchvision.transforms import v2

from warplca.configs import RunConfig, from_dict
from warplca.configs.device import float32
from warplca.configs.recipe import AugmentConfig
from warplca.data import ImageDataset, load_dataset
from warplca.models import Stem, create_backbone
from warplca.train.loop import TrainingRun
from warplca.train.mixture import Mixture
from warplca.train.record import Meter

Step = Callable[[], float]
PLAIN_CYCLES = 100
TIMM_ROUNDS, TIMM_STEPS = 3, 24


def loop_steps(config: dict, dataset: ImageDataset, folder: Path) -> tuple[Step, Callable[[], float]]:
    """Return one step of our loop as a call that returns its seconds, and a call for the input's seconds so far."""
    run = TrainingRun(from_dict(RunConfig, config, where="benchmark"), dataset, folder, progress=False)
    meter = Meter(run.accelerator, {}, 0)
    run.model.train()
    shares = run.source.shares(0, run.total_steps)
    number = [0]

    def step() -> float:
        started = time.perf_counter()
        number[0] += 1
        run.step(number[0], next(shares), meter)
        if number[0] % run.recipe.log_steps == 0:
            meter.read()
        synchronise()
        return time.perf_counter() - started

    def data_seconds() -> float:
        return float(meter.sums.get("data_seconds", 0.0))

    return step, data_seconds


def minimal_steps(args: argparse.Namespace, dataset: ImageDataset) -> Step:
    """Return one step of a loop written by hand: the same network, optimiser, crops and flips, and nothing else."""
    device = torch.device(device_name())
    model = create_backbone(args.backbone, in_channels=3, num_classes=10, stem=Stem(stride=2)).to(device)
    model = model.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    images = torch.from_numpy(dataset.images.copy()).permute(0, 3, 1, 2).contiguous().to(device)
    labels = torch.from_numpy(dataset.labels.copy()).to(device)

    def step() -> float:
        started = time.perf_counter()
        chosen = torch.randint(len(images), (args.batch_size,)).to(device)
        x = F.pad(images[chosen], (4, 4, 4, 4), mode="reflect")
        top, left = torch.randint(9, (2,)).tolist()
        x = x[:, :, top : top + 32, left : left + 32]
        x = (x.flip(3) if top % 2 else x).float() / 255.0
        x = (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)
        loss = F.cross_entropy(model(x.contiguous(memory_format=torch.channels_last)), labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        synchronise()
        return time.perf_counter() - started

    return step


def device_name() -> str:
    """Return the kind of device to compute on."""
    return str(torch.accelerator.current_accelerator(check_available=True) or "cpu")


def settings(args: argparse.Namespace, frontend: str | None, **recipe: object) -> dict:
    """Return a run's configuration: stride 2, no clipping or smoothing beyond what the minimal loop has."""
    section: dict = {"name": frontend or "none"}
    train: dict = {"epochs": 1000, "batch_size": args.batch_size, "learning_rate": 0.01}
    if frontend in ("lca", "warp-lca"):
        section |= {"weights": "cifar10-64x9s2", "iterations": 10 if frontend == "warp-lca" else PLAIN_CYCLES}
        train |= {"frontend": {"frozen_epochs": None}}
    model = {"backbone": args.backbone, "frontend": section}
    return {"model": model, "train": {**train, "clip_norm": 0.0, "label_smoothing": 0.0, **recipe}}


def take_turns(steps: dict[str, Step], seconds: float) -> dict[str, list[float]]:
    """Run the contestants in turn until each had its share of the time; the first three rounds warm up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    limit, rounds = time.perf_counter() + seconds, 0
    while rounds < 6 or time.perf_counter() < limit:
        for name, step in steps.items():
            taken = step()
            if rounds >= 3:
                times[name].append(taken)
        rounds += 1
    return times


def show(times: dict[str, list[float]], reference: str, batch_size: int) -> None:
    """Print images a second and the ratio to the reference, with the quartiles of the ratios within a round."""
    print(f"{'':<34}{'ms/step':>9}{'images/s':>10}{'of ' + reference:>24}")
    for name, values in times.items():
        middle = statistics.median(values)
        ratios = sorted(base / own for base, own in zip(times[reference], values, strict=True))
        low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
        ratio = statistics.median(times[reference]) / middle
        print(
            f"{name:<34}{1e3 * middle:>9.1f}{batch_size / middle:>10.1f}{ratio:>10.2f}x [{low:.2f}, {high:.2f}]"
        )


def compare_loops(args: argparse.Namespace, dataset: ImageDataset, folder: Path) -> None:
    """Bare backbone: our loop against the minimal one."""
    ours, _ = loop_steps(settings(args, None), dataset, folder / "bare")
    times = take_turns({"minimal loop": minimal_steps(args, dataset), "warplca train": ours}, args.seconds)
    show(times, "minimal loop", args.batch_size)


def compare_arms(args: argparse.Namespace, dataset: ImageDataset, folder: Path) -> None:
    """The arms at equal feature-map size, front-ends frozen."""
    names = {
        "bare": None,
        "conv": "conv",
        "WARP-LCA, 10 cycles, frozen": "warp-lca",
        f"plain LCA, {PLAIN_CYCLES} cycles, frozen": "lca",
    }
    steps = {
        name: loop_steps(settings(args, arm), dataset, folder / str(arm))[0] for name, arm in names.items()
    }
    show(take_turns(steps, args.seconds), "bare", args.batch_size)


def input_shares(args: argparse.Namespace, dataset: ImageDataset, folder: Path) -> None:
    """The input's share of the step time, for each kind of augmentation."""
    kinds: dict[str, dict] = {
        "crop and flip": {},
        "crop, flip and noise": {"augment": {"noise": 0.1, "noise_share": 0.5}},
        "RandAugment": {"augment": {"policy": "randaugment", "severity": 9}},
        "AugMix": {"augment": {"policy": "augmix"}},
        "AugMix, JSD (three views)": {"augment": {"policy": "augmix"}, "loss": {"name": "jsd", "beta": 12.0}},
        "PRIME": {"augment": {"policy": "prime"}},
        "PRIME, JSD (three views)": {"augment": {"policy": "prime"}, "loss": {"name": "jsd", "beta": 12.0}},
    }
    for workers in (0, 2):
        for name, recipe in kinds.items():
            if workers:
                if name != "RandAugment":
                    continue
                recipe = {**recipe, "augment": {**recipe["augment"], "workers": workers}}
            step, data_seconds = loop_steps(settings(args, None, **recipe), dataset, folder / "input")
            for _ in range(2):
                step()
            before, total = data_seconds(), 0.0
            for _ in range(8):
                total += step()
            share = (data_seconds() - before) / total
            print(f"{name:<34}{workers} workers: {share:>6.1%} of {1e3 * total / 8:.0f} ms a step")


def views(args: argparse.Namespace, dataset: ImageDataset, folder: Path) -> None:
    """A view of AugMix and of PRIME, a batch at a time, against torchvision's AugMix image by image and a step."""
    images = torch.from_numpy(dataset.images[: args.batch_size].copy()).permute(0, 3, 1, 2).contiguous()
    single = v2.AugMix(severity=3, mixture_width=3, all_ops=False)

    def timed(work: Callable[[int], object]) -> Step:
        number = [0]

        def step() -> float:
            number[0] += 1
            started = time.perf_counter()
            work(number[0])
            synchronise()
            return time.perf_counter() - started

        return step

    def mixture(policy: Literal["augmix", "prime"]) -> Step:
        made = Mixture.of(AugmentConfig(policy=policy))
        assert made is not None
        there, count = images.to(device_name()), len(images)
        return timed(lambda seed: made(there, views=1, seed=seed, count=count, rows=slice(0, count)))

    step, _ = loop_steps(settings(args, None), dataset, folder / "views")
    by_itself = "AugMix, image by image (torchvision)"
    steps = {"training step": step, by_itself: timed(lambda _: [single(image) for image in images])}
    steps |= {"AugMix, batch by batch": mixture("augmix"), "PRIME, batch by batch": mixture("prime")}
    times = take_turns(steps, args.seconds)
    print(f"{'':<38}{'ms an image':>12}{'of a step':>10}{'image by image / this':>30}")
    for name, values in times.items():
        middle = statistics.median(values)
        ratios = sorted(before / own for before, own in zip(times[by_itself], values, strict=True))
        low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
        ratio = statistics.median(ratios)
        part = middle / statistics.median(times["training step"])
        print(
            f"{name:<38}{1e3 * middle / args.batch_size:>12.2f}{part:>10.1%}{ratio:>14.1f} [{low:.1f}, {high:.1f}]"
        )


def against_timm(args: argparse.Namespace, dataset: ImageDataset, folder: Path) -> None:
    """timm's train.py: the same network and images in memory, in turn; it augments nothing, we crop and flip."""
    arms: dict[str, list[float]] = {"ours": [], "0": [], "1": []}
    step, _ = loop_steps(settings(args, None), dataset, folder / "against")
    for _ in range(TIMM_ROUNDS):
        for workers in ("0", "1"):
            arms[workers].append(timm_rate(args, workers, folder / "timm"))
        times = [step() for _ in range(TIMM_STEPS)]
        arms["ours"].append(args.batch_size / statistics.median(times[len(times) // 2 :]))
    for workers in ("0", "1"):
        ratios = sorted(own / theirs for own, theirs in zip(arms["ours"], arms[workers], strict=True))
        print(
            f"{statistics.median(arms[workers]):.1f} images/s with --workers {workers}, warplca train "
            f"{statistics.median(arms['ours']):.1f}: {statistics.median(ratios):.2f}x "
            f"[{ratios[0]:.2f}, {ratios[-1]:.2f}]"
        )


def timm_rate(args: argparse.Namespace, workers: str, folder: Path) -> float:
    """Return the images a second of timm's train.py by its own report, in the second half of an epoch."""
    command = [
        sys.executable, str(Path(__file__).with_name("timm_in_memory.py")), str(Path(args.timm) / "train.py"),
        str(TIMM_STEPS * args.batch_size), "--data-dir", "unused", "--model", f"warplca_{args.backbone}",
        "--model-kwargs", "frontend=none", "--num-classes", "10", "--input-size", "3", "32", "32",
        "--batch-size", str(args.batch_size), "--epochs", "1", "--opt", "sgd", "--lr", "0.01", "--weight-decay", "5e-4",
        "--no-aug", "--smoothing", "0", "--workers", workers, "--log-interval", "1", "--output", str(folder),
        "--channels-last", "--no-prefetcher", "--device", device_name(),
    ]  # fmt: skip
    full = {**os.environ, "NVIDIA_TF32_OVERRIDE": "0"}  # as ours computes, where there is a GPU
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=full)
    rates = [float(rate) for rate in re.findall(r"([\d.]+)/s\s+\(", done.stdout + done.stderr)]
    if done.returncode or len(rates) < TIMM_STEPS // 2:
        raise SystemExit(f"timm's train.py did not run: {(done.stderr or done.stdout)[-600:]}")
    return statistics.median(rates[len(rates) // 2 :])


def main() -> None:
    """Run the comparisons."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each comparison")
    parser.add_argument("--timm", default=None, help="checkout of pytorch-image-models")
    parser.add_argument("--only", choices=("loops", "arms", "input", "views", "timm"), default=None)
    args = parser.parse_args()
    dataset = load_dataset("cifar10-subset", "train")
    about = {"backbone": args.backbone, "batch_size": args.batch_size, "threads": torch.get_num_threads()}
    print(json.dumps({**about, "torch": torch.__version__}))
    parts = {"loops": compare_loops, "arms": compare_arms, "input": input_shares, "views": views}
    if args.timm:
        parts["timm"] = against_timm
    with tempfile.TemporaryDirectory() as folder, float32():
        for name, part in parts.items():
            if args.only in (None, name):
                print(f"\n{(part.__doc__ or '').splitlines()[0]}")
                part(args, dataset, Path(folder))


if __name__ == "__main__":
    main()

"""Figures of one device: float32's rounding, a profile of training steps, throughput, the cost of a cycle.

    python benchmarks/gpu/measure.py rounding profile throughput cycle launches --device cuda --out runs/gpu/measured
    python benchmarks/gpu/measure.py throughput cycle --precision tf32 --compile --out runs/gpu/tf32
    python benchmarks/gpu/measure.py throughput --set model.frontend.convolution_dtype=bfloat16 --out runs/gpu/bfloat16

Each part writes a JSON file as soon as it has its figures. ``--precision`` is that of training: "no" computes network
and front-end in full float32, as `train.precision=no` does, "tf32" both in TF32, "bf16" both under autocast.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from warplca.configs import RunConfig, from_dict
from warplca.configs.device import choose_device, float32
from warplca.configs.load import apply_overrides
from warplca.data import load_dataset
from warplca.frontend import WarpLCA
from warplca.frontend.sparse.solver import solve
from warplca.models import create_classifier
from warplca.train.loop import TrainingRun
from warplca.train.record import Meter

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import synchronise, write_json

FRONTEND = "cifar10-64x9s2"
ARMS = ("none", "conv", "warp-lca")
STEPS = 10


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Median seconds of a call, the first two left out."""
    times = []
    for _ in range(rounds + 2):
        started = time.perf_counter()
        work()
        synchronise()
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


def some_images(count: int, device: torch.device) -> Tensor:
    """Test images, (count, 3, 32, 32)."""
    dataset = load_dataset("cifar10-subset", "test")
    return dataset.tensors([i % len(dataset) for i in range(count)], device)[0]


@torch.no_grad()
def rounding(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Codes of the primed front-end against those of the CPU: float64, float32 in full, TF32, and within autocast."""
    images = some_images(args.images, torch.device("cpu"))
    layer = WarpLCA.from_pretrained(FRONTEND)
    exact = copy.deepcopy(layer).double().encode(images.double()).code
    there = copy.deepcopy(layer).to(device)
    found = {"float64": copy.deepcopy(layer).double().to(device).encode(images.double().to(device)).code}
    for name, tf32 in (("float32", False), ("tf32", True)):
        with float32(tf32=tf32):
            found[name] = there.encode(images.to(device)).code
    with torch.autocast(device.type, dtype=torch.bfloat16):
        found["bf16 autocast"] = there.encode(images.to(device)).code
    figures: dict[str, Any] = {}
    for name, code in found.items():
        difference = (code.cpu().double() - exact).abs().flatten(1).amax(1)
        flips = ((code.cpu() > 0) != (exact > 0)).double().mean()
        largest, middle = float(difference.max()), float(difference.median())
        figures[name] = {"median": middle, "largest": largest, "flips": float(flips)}
    return figures


def training_run(
    args: argparse.Namespace, arm: str, device: torch.device, folder: Path, *, compiled: bool = False
) -> Callable[[], None]:
    """Return a call that does ten training steps of an arm, its front-end frozen."""
    section: dict[str, Any] = {"name": arm}
    train: dict[str, Any] = {"epochs": 10_000, "batch_size": args.batch_size, "precision": args.precision}
    train["compile"] = compiled
    if arm == "warp-lca":
        section |= {"weights": FRONTEND}
        train |= {"frontend": {"frozen_epochs": None}}
    values = {"model": {"backbone": args.backbone, "frontend": section}, "train": train}
    own = [entry for entry in args.set if arm == "warp-lca" or not entry.startswith("model.frontend.")]
    config = from_dict(RunConfig, apply_overrides(values, own), where="--set")
    if config.train.precision != args.precision:
        raise SystemExit(
            "train.precision is given by --precision, which cycles heed too; leave it out of --set."
        )
    run = TrainingRun(config, load_dataset("cifar10-subset", "train"), folder, progress=False, device=device)
    meter = Meter(run.accelerator, {}, 0)
    run.model.train()
    shares = enumerate(run.source.shares(0, run.total_steps), start=1)

    def steps() -> None:
        for _ in range(STEPS):
            number, share = next(shares)
            run.step(number, share, meter)

    return steps


def profile(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Operations of ten training steps of each arm, the dearest first."""
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for arm in ARMS:
            steps = training_run(args, arm, device, Path(folder) / arm)
            steps()
            with torch.profiler.profile() as profiler:
                steps()
                synchronise()
            kind = "self_device_time_total" if device.type != "cpu" else "self_cpu_time_total"
            events = sorted(profiler.key_averages(), key=lambda event: getattr(event, kind), reverse=True)
            figures[arm] = {
                "launches a step": sum(e.count for e in events if "LaunchKernel" in e.key) / STEPS,
                "waits a step": sum(e.count for e in events if "ynchronize" in e.key) / STEPS,
                "operations": {e.key: [e.count, getattr(e, kind)] for e in events[:25]},
            }
    return figures


def throughput(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Images a second in training, arm by arm in turn, and of the bare network alike eager or compiled."""
    ways = [(arm, way) for way in ("", ", compiled")[: 1 + args.compile] for arm in ARMS]
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            arm + way: training_run(args, arm, device, Path(folder) / (arm + way), compiled=bool(way))
            for arm, way in ways
        }
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(args.rounds):
            for name, steps in runs.items():
                times[name].append(seconds(steps, 1) / STEPS)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        arm + way: {
            "images a second": args.batch_size / medians[arm + way],
            "of the bare network": medians["none" + way] / medians[arm + way],
        }
        for arm, way in ways
    }


@torch.no_grad()
def cycle(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """One cycle of the primed layer against its bare convolutions, eager and compiled."""
    short = torch.autocast(device.type, torch.bfloat16) if args.precision == "bf16" else nullcontext()
    with short:
        return cycle_figures(args, device)


def cycle_figures(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Milliseconds, and ratios."""
    layer = WarpLCA.from_pretrained(FRONTEND).to(device)
    x = layer.standardise(some_images(args.batch_size, device)).images
    problem = layer.problem(x, layer.lam).prepared()
    state = problem.operator.arranged(layer.initial_state(problem.images))
    operator, code = problem.operator, problem.code(state)

    def bare() -> None:
        operator.analyse(operator.synthesise(code, (32, 32)))
        operator.precondition(code)

    def cycles(run: Callable[..., Tensor], count: int) -> Callable[[], object]:
        return lambda: run(problem, layer.schedule(problem, count), state=state)

    figures = {"bare convolutions": 1e3 * seconds(bare, args.rounds * STEPS)}
    ways = {"eager": solve, "compiled": torch.compile(solve)} if args.compile else {"eager": solve}
    for name, run in ways.items():
        few, many = (seconds(cycles(run, count), args.rounds * STEPS) for count in (2, 12))
        figures[name] = 1e3 * (many - few) / 10
        figures[f"{name}, over the bare convolutions"] = figures[name] / figures["bare convolutions"]
    return figures


def launches(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Operations launched in a forward pass of the network alone and behind 5 and 10 cycles."""
    figures: dict[str, Any] = {}
    for cycles in (0, 5, 10):
        section = {"name": "warp-lca", "weights": FRONTEND, "iterations": cycles} if cycles else None
        model = create_classifier(args.backbone, section).to(device).eval()
        images = some_images(8, device)
        with torch.no_grad():
            model(images)
            with torch.profiler.profile() as profiler:
                model(images)
                synchronise()
        launched = sum(e.count for e in profiler.key_averages() if "LaunchKernel" in e.key)
        figures[f"{cycles} cycles" if cycles else "bare"] = launched
    return figures


PARTS = {part.__name__: part for part in (rounding, profile, throughput, cycle, launches)}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--device", default=None, help="(default: the accelerator if there is one)")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--images", type=int, default=500, help="for rounding (default: %(default)s)")
    parser.add_argument(
        "--precision", default="no", choices=("no", "tf32", "bf16"), help="(default: %(default)s)"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="of runs; model.frontend.* is WARP-LCA's alone",
    )
    parser.add_argument("--rounds", type=int, default=3, help="of timings (default: %(default)s)")
    parser.add_argument("--compile", action="store_true", help="time compiled steps and cycles too")
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures")
    args = parser.parse_args()
    device = choose_device(args.device)
    for name in args.parts:
        with float32(tf32=args.precision == "tf32"):
            figures = PARTS[name](args, device)
        print(name, figures, flush=True)
        about = {"device": str(device), "torch": torch.__version__, "batch size": args.batch_size}
        write_json(
            args.out / f"{name}.json",
            {**about, "precision": args.precision, "set": args.set, "figures": figures},
        )


if __name__ == "__main__":
    main()

"""Accuracy against processor minutes on a CPU: `quick94` for a few epochs, and the plain preset for equal times.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/quick94_curve.py --data cifar10.npz --out runs/curve
    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/quick94_curve.py --data cifar10.npz --out runs/curve --seeds 1 2

Every run is a whole one, whose rate ends at zero: an epoch of a longer one says less. The plain preset (`none`: the
slim ResNet) first trains for one epoch, which tells how many it may have for the minutes of each run of `quick94`.
``curve.csv`` gets a line after each run: accuracy on the 5,000 held-out training images, processor minutes (looking at
those images after each epoch included), by them images and GFLOP a second (thrice a forward pass for each image), and
what the machine does at a large multiplication of matrices. The same command goes on where it was stopped, and after a
kill with the epoch that was under way. Time is that of the process: other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from warplca.configs import RunConfig, load_config
from warplca.configs.atomic import file_written_whole
from warplca.data import ImageDataset, load_dataset
from warplca.models import build_classifier
from warplca.train import Interrupted, train

HELD_OUT = 5000
PRESETS = {"quick94": "quick94", "plain": "none"}
SIDE, TIMES = 2048, 5  # of the matrices that show the machine's peak


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", required=True, help="CIFAR-10, a source as `warplca train` takes it")
    options.add_argument(
        "--epochs", nargs="+", type=int, default=[1, 2, 4], help="of quick94 (default: %(default)s)"
    )
    options.add_argument("--seeds", nargs="+", type=int, default=[0], help="(default: %(default)s)")
    options.add_argument("--also", nargs="*", default=[], help="further KEY=VALUE of every run, for trials")
    options.add_argument("--out", type=Path, default=Path("runs/curve"), help="(default: %(default)s)")
    return options


class Curve:
    """The runs, and a line for each that has ended.

    Args:
        args: The options.
        dataset: Training images.
    """

    def __init__(self, args: argparse.Namespace, dataset: ImageDataset) -> None:
        self.args, self.dataset = args, dataset
        self.path = args.out / "curve.csv"
        self.rows = pd.read_csv(self.path).to_dict("records") if self.path.exists() else []

    def minutes(self, recipe: str, epochs: int, seed: int) -> float:
        """Return the processor minutes of a run, which is trained first if need be."""
        key = {"recipe": recipe, "epochs": epochs, "seed": seed}
        row = next((row for row in self.rows if key.items() <= row.items()), None)
        if row is None:
            row = key | self._trained(recipe, epochs, seed)
            self.rows.append(row)
            with file_written_whole(self.path) as target:
                pd.DataFrame(self.rows).to_csv(target, index=False)
            print(row, flush=True)
        return float(row["processor_minutes"])

    def _trained(self, recipe: str, epochs: int, seed: int) -> dict[str, float]:
        out = self.args.out / f"{recipe}-{epochs}-{seed}"
        words = [f"train.validation_images={HELD_OUT}", f"train.epochs={epochs}", f"train.seed={seed}"]
        config = load_config(RunConfig, PRESETS[recipe], "train", [*words, *self.args.also])
        # States are saved where an epoch ends, or at a signal, and the time up to there is noted with them.
        config = replace(config, train=replace(config.train, save_minutes=1e6))
        steps = -(-(len(self.dataset) - HELD_OUT) // config.train.batch_size)
        noted = out / "processor.json"
        seconds = json.loads(noted.read_text()) if noted.exists() else {}
        done = max(map(int, seconds), default=0)
        for state in states(out):
            if step_of(state) > done:  # killed between the two: that epoch is trained again
                state.unlink()
        for end in range(done // steps * steps + steps, epochs * steps + 1, steps):
            began = time.process_time()
            with suppress(Interrupted):
                train(config, self.dataset, out, progress=False, device="cpu", stop_after=end)
            reached = max(map(step_of, states(out)))
            seconds[str(reached)] = time.process_time() - began
            with file_written_whole(noted) as target:
                target.write_text(json.dumps(seconds))
            if reached < end:
                raise SystemExit(f"stopped at step {reached} of {out}; the same command goes on")
        curves = pd.read_csv(out / "curves.csv")
        total = sum(seconds.values()) / 60.0
        speed = epochs * (len(self.dataset) - HELD_OUT) / (60.0 * total)
        return {
            "processor_minutes": round(total, 2),
            "images_a_second": round(speed, 1),
            "gflops": round(3e-9 * operations(config) * speed, 1),
            "peak_gflops": round(peak(), 1),
            "held_out_accuracy": float(curves["val_accuracy"].iloc[-1]),
            "train_accuracy": round(float(curves["train_accuracy"].iloc[-1]), 4),
        }


def operations(config: RunConfig) -> int:
    """Floating-point operations of an image's forward pass."""
    model = build_classifier(config.model).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.rand(1, 3, 32, 32))
    return counter.get_total_flops()


def peak() -> float:
    """The most GFLOP a second of processor time that a multiplication of float32 matrices gives."""
    one, other = torch.randn(2, SIDE, SIDE)
    seconds = []
    for _ in range(TIMES):
        began = time.process_time()
        one @ other
        seconds.append(time.process_time() - began)
    return 2e-9 * SIDE**3 / min(seconds)


def states(out: Path) -> list[Path]:
    """The saved states of a run."""
    return list((out / "states").glob("step-*.safetensors"))


def step_of(state: Path) -> int:
    """How many steps a saved state has behind it."""
    return int(state.stem.removeprefix("step-"))


def main() -> None:
    """Run from the command line."""
    args = parser().parse_args()
    torch.set_num_threads(1)
    curve = Curve(args, load_dataset(args.data, "train"))
    for seed in args.seeds:
        an_epoch = curve.minutes("plain", 1, seed)
        for epochs in args.epochs:
            allowed = curve.minutes("quick94", epochs, seed)
            curve.minutes("plain", max(round(allowed / an_epoch), 1), seed)


if __name__ == "__main__":
    main()

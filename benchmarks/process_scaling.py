"""Training throughput over the number of processes, each with the same number of threads.

    python benchmarks/process_scaling.py                          # 1 and 2 processes of one thread, slim ResNet
    python benchmarks/process_scaling.py --processes 1 2 4 8 --config warp-lca+resnet18 --data cifar10.npz

Every run sees the same batches (`train.batch_size` is that of all processes together). Shown are images a second in the
last of the epochs, the first being warm-up; the runs are repeated in turn and the best of each counts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
from tqdm import tqdm


def throughput(args: argparse.Namespace, processes: int, folder: Path) -> float:
    """Train for two epochs and return images a second in the second."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "warplca.cli.main", "train", "--config", args.config, "--data", args.data]
    command += ["--out", str(folder), "train.epochs=2", "train.frontend.frozen_epochs=2", *args.overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        mistakes = [line for line in done.stderr.splitlines() if line.startswith("warplca:")]
        sys.exit(mistakes[0] if mistakes else done.stderr)
    return float(pd.read_csv(folder / "curves.csv")["images_per_second"].iloc[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="warp-lca+resnet10-slim", help="as `warplca train` takes it")
    parser.add_argument("--data", default="cifar10-subset", help="as `warplca train` takes it")
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("overrides", nargs="*", help="key=value, for instance train.batch_size=256")
    args = parser.parse_args()
    best = dict.fromkeys(args.processes, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        runs = [(number, processes) for number in range(args.rounds) for processes in args.processes]
        for number, processes in tqdm(runs, unit="run"):
            rate = throughput(args, processes, Path(folder) / f"{number}-{processes}")
            best[processes] = max(best[processes], rate)
    first = args.processes[0]
    for processes, rate in best.items():
        ratio = rate / best[first]
        share = ratio * first / processes
        print(
            f"{processes} processes: {rate:.0f} images/s, {ratio:.2f} times that of {first}, {share:.0%} efficient"
        )


if __name__ == "__main__":
    main()

"""Peak memory and time of one training step through the layer, by kind of gradient and number of iterations.

Usage: python benchmarks/gradient_memory.py [--out FILE.json] [--batch 16] [--keep-freed]

A step is the forward pass of a front-end with a soft threshold, a loss on its code, and the backward pass to the
dictionary. Every figure comes from a process of its own. On a CPU it is the growth of its resident memory over what it
had after a warm-up with one image, on an NVIDIA GPU what the allocator handed out at most beyond what was in use
before. ``implicit`` also shows the relative residual at which its adjoint equation stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from common import synchronise

from warplca.configs.device import choose_device
from warplca.frontend import LCA

CASES: list[dict[str, Any]] = [
    {"gradient_mode": "implicit", "iterations": 10},
    {"gradient_mode": "implicit", "iterations": 100},
    {"gradient_mode": "unroll", "iterations": 10},
    {"gradient_mode": "unroll", "iterations": 100},
    {"gradient_mode": "unroll", "iterations": 100, "checkpoint_every": 10},
]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--keep-freed",
        action="store_true",
        help="let the C library keep freed memory as it does by default, which blurs the figures",
    )
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case is not None:
        device = choose_device(arguments.device)
        print(json.dumps(one_step(CASES[arguments.case], arguments.batch, device)))
        return
    figures = []
    environment = dict(os.environ)
    if not arguments.keep_freed:
        # Memory that is freed goes back at once, so that the peak is what was needed and not what was kept.
        environment |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    for index, case in enumerate(CASES):
        command = [sys.executable, __file__, "--case", str(index), "--batch", str(arguments.batch)]
        command += ["--device", arguments.device]
        output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        figures.append({**case, **json.loads(output.splitlines()[-1])})
        print(", ".join(f"{key} {value}" for key, value in figures[-1].items()))
    ratio = figures[1]["peak_bytes"] / figures[0]["peak_bytes"]
    print(f"implicit, 100 against 10 iterations: {ratio:.3f} times the peak memory")
    if arguments.out:
        arguments.out.write_text(json.dumps({"cases": figures, "implicit_ratio": ratio}, indent=2) + "\n")


def one_step(case: dict[str, Any], batch: int, device: torch.device) -> dict[str, Any]:
    """Do one training step and return its peak memory and time."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layer = LCA(lam=0.5, threshold="soft", momentum=0.9, **case).to(device)
    with torch.no_grad():
        layer.dictionary.weight.copy_(LCA.from_pretrained("cifar10-64x9s2").dictionary.weight)
    images = torch.rand(batch, 3, 32, 32, device=device)
    layer(images[:1]).square().sum().backward()
    before = _in_use(device)
    start = time.perf_counter()
    layer(images).square().sum().backward()
    after = _peak(device)
    result = {"peak_bytes": after - before, "seconds": round(time.perf_counter() - start, 3)}
    if layer.adjoint_residual is not None:
        result["adjoint_residual"] = float(layer.adjoint_residual.max())
    return result


def _in_use(device: torch.device) -> int:
    """Bytes from which :func:`_peak` grows."""
    if device.type == "cpu":
        return _peak(device)
    synchronise()
    torch.cuda.reset_peak_memory_stats()  # the warm-up's, else
    return torch.cuda.memory_allocated()


def _peak(device: torch.device) -> int:
    """Peak memory in bytes up to now."""
    if device.type == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    synchronise()
    return torch.cuda.max_memory_allocated()


if __name__ == "__main__":
    main()

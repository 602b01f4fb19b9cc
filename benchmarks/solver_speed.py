"""What one iteration costs: ours, its floor, and lca-pytorch.

Usage: python benchmarks/solver_speed.py [--lca-pytorch FOLDER] [--out FILE.json] [--threads 1] [--device cpu]

The floor is the bare pair of convolutions, Phi^T x and Phi a, in the faster of both memory formats. All compute in full
float32 but where the name says otherwise. lca-pytorch
(https://github.com/lanl/lca-pytorch) is measured from the checkout given, with the same atoms, images, hard
threshold and step size. All are timed in turn, round after round, for a number of iterations whose cost no longer
depends on the setting up; the figures are medians over the rounds of milliseconds per iteration and, for ratios,
medians of each round's own ratio.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from common import synchronise
from torch import Tensor

from warplca.configs.device import choose_device, float32
from warplca.frontend import THRESHOLDS, Problem, Threshold, solve
from warplca.frontend.sparse import functional
from warplca.frontend.sparse.operator import ConvOperator
from warplca.frontend.sparse.schedule import plain_schedule
from warplca.frontend.sparse.spectrum import spectral_bound

SETTINGS = [(64, 9, 1, 8), (64, 9, 2, 16), (64, 7, 2, 16), (128, 9, 4, 16)]
GPU_SETTINGS = [(64, 9, 1, 1024), (64, 9, 2, 1024)]
LAM = 0.5
SIZE = (32, 32)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lca-pytorch", type=Path, help="folder of a checkout of lanl/lca-pytorch")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.lca_pytorch is None:
        print("lca-pytorch is skipped: give the folder of a checkout with --lca-pytorch.")
    rows = []
    arguments.device = choose_device(arguments.device)
    for setting in SETTINGS if arguments.device.type == "cpu" else GPU_SETTINGS:
        contenders = build(setting, arguments)
        rows.append(row(setting, measure(contenders, arguments.rounds)))
        print(json.dumps(rows[-1]), file=sys.stderr)
    table(rows)
    if arguments.out:
        environment = {
            "threads": arguments.threads,
            "device": str(arguments.device),
            "torch": torch.__version__,
        }
        arguments.out.write_text(json.dumps({"environment": environment, "rows": rows}, indent=2) + "\n")


@torch.no_grad()
def build(
    setting: tuple[int, int, int, int], arguments: argparse.Namespace
) -> dict[str, tuple[int, Callable[[], object]]]:
    """Return each contender as (iterations, function that does so many)."""
    features, kernel, stride, batch = setting
    generator = torch.Generator().manual_seed(0)
    atoms = torch.randn(features, 3, kernel, kernel, generator=generator)
    atoms /= atoms.flatten(1).norm(dim=1)[:, None, None, None]
    images = torch.randn(batch, 3, *SIZE, generator=generator).to(arguments.device)
    operator = ConvOperator.from_atoms(
        atoms.to(arguments.device), stride, spectral_bound(atoms, stride).to(arguments.device)
    )
    code = THRESHOLDS["hard"](operator.analyse(images), LAM)
    count = arguments.iterations

    def ours(
        low: ConvOperator,
        momentum: float = 0.0,
        threshold: str = "hard",
        images: Tensor = images,
        state: Tensor | None = None,
    ) -> Callable[[], object]:
        schedule = plain_schedule(low, count, momentum=momentum)
        return lambda: solve(Problem(low, images, THRESHOLDS[threshold], LAM), schedule, state=state)

    contenders: dict[str, tuple[int, Callable[[], object]]] = {
        "floor": (count, floor(images, code, operator, count, torch.contiguous_format)),
        "floor, channels last": (count, floor(images, code, operator, count, torch.channels_last)),
        "ours": (count, ours(operator)),
        "ours, momentum": (count, ours(operator, 0.9)),
        "ours, soft": (count, ours(operator, 0.9, "soft")),
        "ours, smooth": (count, ours(operator, 0.9, "smooth")),
        "ours, bf16": (count, ours(operator.computing_in(torch.bfloat16), 0.9)),
    }
    if arguments.device.type == "cuda":
        last = replace(
            operator,
            atoms=operator.atoms.contiguous(memory_format=torch.channels_last),
            kernel=operator.kernel.contiguous(memory_format=torch.channels_last),
        )
        start = torch.zeros_like(code).contiguous(memory_format=torch.channels_last)
        pictures = images.contiguous(memory_format=torch.channels_last)
        contenders["ours, channels last"] = (count, ours(last, images=pictures, state=start))
        for name in ("floor", "floor, channels last", "ours", "ours, momentum"):
            contenders[f"{name}, TF32"] = (count, with_tf32(contenders[name][1]))
    if arguments.lca_pytorch:
        few = max(count // 8, 2) if stride == 1 else count  # at stride 1 it takes most of a second each
        layer = lca_pytorch(
            arguments.lca_pytorch, operator, images, few, LAM, float(operator.lipschitz), ["acts"]
        )
        contenders["lca-pytorch"] = (few, lambda: layer(images))
    return contenders


def with_tf32(run: Callable[[], object]) -> Callable[[], object]:
    """Allow TF32 in a contender."""

    def allowed() -> None:
        with float32(tf32=True):
            run()

    return allowed


def floor(
    images: Tensor, code: Tensor, operator: ConvOperator, count: int, layout: torch.memory_format
) -> Callable[[], object]:
    """Do both convolutions and nothing else."""
    x, a = images.contiguous(memory_format=layout), code.contiguous(memory_format=layout)
    atoms = operator.atoms.contiguous(memory_format=layout)
    kernel = operator.kernel.contiguous(memory_format=layout)
    side, stride = atoms.shape[-1], operator.stride

    @torch.no_grad()
    def run() -> None:
        for _ in range(count):
            functional.analyse(x, atoms, stride)
            functional.synthesise(a, kernel, side, stride, SIZE)

    return run


def lca_pytorch(
    folder: Path,
    operator: ConvOperator,
    images: Tensor,
    count: int,
    lam: float,
    tau: float,
    returns: list[str],
    threshold: Threshold = THRESHOLDS["hard"],
) -> torch.nn.Module:
    """Build lca-pytorch with the same atoms and ``count`` iterations of step size 1 / ``tau``.

    The threshold is the hard or the soft one.
    """
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    from lcapt.lca import LCAConv2D  # pyright: ignore[reportMissingImports]

    features, channels, kernel, _ = operator.atoms.shape
    layer = LCAConv2D(
        features,
        channels,
        tempfile.mkdtemp(),
        kernel,
        operator.stride,
        lam,
        tau,
        lca_iters=count,
        transfer_func="soft_threshold" if threshold.alpha == 1.0 else "hard_threshold",
        return_vars=returns,
        input_zero_mean=False,
        input_unit_var=False,
    ).to(images.device)
    layer.assign_weight_values(operator.atoms, normalize=False)
    return layer.requires_grad_(False)


@torch.no_grad()
@float32()
def measure(contenders: dict[str, tuple[int, Callable[[], object]]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds per iteration of every contender in every round."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(rounds + 1):
        for name, (count, function) in contenders.items():
            start = time.perf_counter()
            function()
            synchronise()
            if i:  # the first round warms up
                times[name].append(1e3 * (time.perf_counter() - start) / count)
    return times


def row(setting: tuple[int, int, int, int], times: dict[str, list[float]]) -> dict[str, object]:
    """Condense one setting's times."""
    floors = [times["floor"], times["floor, channels last"]]
    best = min(floors, key=median)
    result: dict[str, object] = dict(zip(("features", "kernel", "stride", "batch"), setting, strict=True))
    result["milliseconds"] = {name: median(values) for name, values in times.items()}
    result["over_floor"] = {
        name: median(a / b for a, b in zip(values, best, strict=True)) for name, values in times.items()
    }
    if "lca-pytorch" in times:
        pairs = zip(times["lca-pytorch"], times["ours"], strict=True)
        result["speedup_over_lca_pytorch"] = median(a / b for a, b in pairs)
    return result


def table(rows: list[dict]) -> None:
    """Print the figures."""
    names = list(rows[0]["milliseconds"])
    print(f"{'M, k, s, batch':20}" + "".join(f"{name:>22}" for name in names) + "   (ms; over the floor)")
    for entry in rows:
        label = ", ".join(str(entry[key]) for key in ("features", "kernel", "stride", "batch"))
        cells = [f"{entry['milliseconds'][name]:.2f} ({entry['over_floor'][name]:.2f}x)" for name in names]
        print(f"{label:20}" + "".join(f"{cell:>22}" for cell in cells))
    for entry in rows:
        if "speedup_over_lca_pytorch" in entry:
            label = ", ".join(str(entry[key]) for key in ("features", "kernel", "stride"))
            print(f"({label}): {entry['speedup_over_lca_pytorch']:.1f} times as fast as lca-pytorch")


if __name__ == "__main__":
    main()

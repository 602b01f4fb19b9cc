"""What a suite of attacks says of a network in every disguise: the same figure, or no trust.

    python benchmarks/metamorphic.py --checkpoint cifar10-slim-warp-lca --threat "linf 1/255" --images 24
    python benchmarks/metamorphic.py --network nets.py:resnet20 --data cifar10.npz --threat "linf 0.5/255"

``nets.py:resnet20`` is a function of your own that gives a classifier of pixels in [0, 1].
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path

import torch
from disguises import DISGUISES, MedianFiltered, with_softplus
from torch import Tensor, nn

from warplca.attacks import SuiteResult, run_suite
from warplca.attacks.suite.masking import allowance
from warplca.data import load_dataset
from warplca.models import load_checkpoint

HONEST = {"softplus": with_softplus, "median filter": MedianFiltered}
"""Honest changes of a network: other answers, so a figure of their own, which is to be trusted."""


def network_of(options: argparse.Namespace) -> nn.Module:
    """Load the checkpoint, or call the user's function."""
    if not options.network:
        return load_checkpoint(options.checkpoint).eval()
    path, _, function = options.network.partition(":")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} cannot be imported; expected FILE.py:FUNCTION.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, function)().eval()


def line(name: str, result: SuiteResult, plain: SuiteResult, left_by_plain: int, seconds: float) -> str:
    """One network in one line."""
    left, truth = int((~result.success).sum()), int((~plain.success).sum())
    same = abs(left - truth) <= allowance(len(result.success))
    word = "honest change" if name in HONEST else "same figure" if same else "OTHER FIGURE"
    return (
        f"{name}: {left} of {len(result.success)} left ({word}; the plain network's own images leave "
        f"{left_by_plain}), {result.verdict}, {seconds:.0f} s"
    )


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="", help="FILE.py:FUNCTION of your own")
    parser.add_argument("--checkpoint", default="cifar10-slim-warp-lca")
    parser.add_argument("--data", default="cifar10-subset", help="a source as in `warplca train`")
    parser.add_argument("--images", type=int, default=24, help="rightly classified test images")
    parser.add_argument("--threat", default="linf 1/255")
    parser.add_argument("--suite", default="quick")
    parser.add_argument(
        "--disguises", nargs="+", choices=[*DISGUISES, *HONEST], default=[*DISGUISES, *HONEST]
    )
    options = parser.parse_args()
    network = network_of(options).requires_grad_(False)
    images, labels = load_dataset(options.data, "test").subset(range(4 * options.images)).tensors()
    with torch.no_grad():
        right = network(images).argmax(dim=1) == labels
    images, labels = images[right][: options.images], labels[right][: options.images]
    plain = measure("plain", network, None, images, labels, options)
    for name in options.disguises:
        measure(name, (DISGUISES | HONEST)[name](network).eval(), plain, images, labels, options)


def measure(
    name: str,
    model: nn.Module,
    plain: SuiteResult | None,
    images: Tensor,
    labels: Tensor,
    options: argparse.Namespace,
) -> SuiteResult:
    """Judge one network and print its line."""
    started = time.process_time()
    result = run_suite(model, images, labels, options.threat, options.suite, progress=False)
    plain = plain or result
    with torch.no_grad():
        left_by_plain = int((model(plain.adversarial).argmax(dim=1) == labels).sum())
    print(line(name, result, plain, left_by_plain, time.process_time() - started), flush=True)
    return result


if __name__ == "__main__":
    main()

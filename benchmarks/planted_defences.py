"""Whether the attack suite sees through defences that only hide their gradients, and leaves honest networks alone.

Three planted defences (k-winners-take-all, an input quantiser with a detached gradient, a front-end whose predictor
is detached) and honest networks (undefended; adversarially trained; the ResNet-18 of pyautoattack's wheel, which is
undefended too; checkpoints of your own) are attacked at a radius where plain AutoAttack leaves 20 to 60 % of the
rightly classified images, or at a given one. Prints a table; figures and evidence go to OUT/planted.json. Cases
that finished are not run again.

    python benchmarks/planted_defences.py --data cifar10.npz --images 128
    python benchmarks/planted_defences.py --cases checkpoint --checkpoint runs/warp/checkpoint --radius 8
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from warplca.attacks import (
    Attack,
    Suite,
    SuiteResult,
    SuiteSession,
    ThreatModel,
    as_attack,
    run_attack,
    run_suite,
    suite_attacks,
)
from warplca.attacks.autoattack import AutoAttack
from warplca.attacks.interface import PLAIN_GRADIENTS
from warplca.configs.atomic import file_written_whole
from warplca.data import ImageDataset, load_dataset
from warplca.frontend import WarpLCA
from warplca.models import load_checkpoint

PLANTED = ("k-winners-take-all", "detached quantiser", "detached predictor")
CASES = (*PLANTED, "undefended", "adversarially trained", "resnet18", "checkpoint")
RADII = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
START = {"adversarially trained": 5}
TRAINING_RADIUS = 8 / 255
SEARCH_IMAGES = 48
LEVELS = 6


class KWinners(nn.Module):
    """k-winners-take-all (Xiao et al., ICLR 2020) over all units of a layer."""

    share = 0.08

    def forward(self, x: Tensor) -> Tensor:
        """Keep the largest share of the units of each image."""
        flat = x.flatten(1)
        smallest = flat.topk(max(1, int(self.share * flat.shape[1])), dim=1).values[:, -1:]
        return torch.where(flat >= smallest, flat, 0.0).view_as(x)


class DetachedQuantiser(nn.Module):
    """Rounds pixels and passes a zero gradient (AutoAttack stops with an error where there is none at all)."""

    def forward(self, x: Tensor) -> Tensor:
        """Round to a few levels."""
        return (x * LEVELS).round().div(LEVELS).detach() + 0.0 * x


class DetachedPredictor(WarpLCA):
    """WARP-LCA whose predictor works but hides from the gradient."""

    def initial_state(self, images: Tensor, lam: Tensor | float | None = None) -> Tensor | None:
        """Predict, and cut."""
        state = super().initial_state(images, lam)
        return None if state is None else state.detach()


def network(activation: type[nn.Module] = nn.ReLU, channels: int = 3, stride: int = 2) -> nn.Sequential:
    """A small convolutional classifier of 32 x 32 images."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 24, 3, stride, 1), activation(), nn.Conv2d(24, 48, 3, 2, 1), activation()),
        *(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(768, 10)),
    )


def with_frontend(layer: type[WarpLCA]) -> nn.Sequential:
    """A classifier behind a front-end of three small cycles, so that its predictor carries the answer."""
    frontend = layer(
        *(3, 24, 5, 2),
        **{"lam": 0.3, "threshold": "soft", "iterations": 3, "step_size": 0.002, "momentum": 0.01},
        **{"predictor_width": 32, "predictor_depth": 1},
    )
    return nn.Sequential(frontend, network(channels=24, stride=1))


def build(case: str, options: argparse.Namespace) -> nn.Module:
    """The network of a case, trained if it has to be, in evaluation mode."""
    torch.manual_seed(0)
    if case == "checkpoint":
        return load_checkpoint(options.checkpoint).eval()
    if case == "resnet18":
        return _resnet18()
    if case == "k-winners-take-all":
        return trained(network(KWinners), case, options)
    if case == "detached predictor":
        honest = trained(with_frontend(WarpLCA), case, options)
        planted = with_frontend(DetachedPredictor)
        planted.load_state_dict(honest.state_dict())
        return planted.eval()
    if case == "adversarially trained":
        return trained(network(), case, options, radius=TRAINING_RADIUS)
    plain = trained(network(), "undefended", options)
    return plain if case == "undefended" else nn.Sequential(DetachedQuantiser(), plain).eval()


def _resnet18() -> nn.Module:
    import pyautoattack
    from pyautoattack.examples.resnet import ResNet18

    weights = Path(pyautoattack.__file__).parent / "examples" / "model_test.pt"
    model = ResNet18()
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model.eval()


def trained(model: nn.Module, name: str, options: argparse.Namespace, radius: float = 0.0) -> nn.Module:
    """Fit, against PGD of a radius if above 0, or load what an earlier run fitted."""
    path = Path(options.out) / f"{name}.safetensors"
    if path.exists():
        model.load_state_dict(load_file(path))
        return model.eval()
    images, labels = load_dataset(options.data, "train").subset(range(options.train_images)).tensors()
    steps = options.epochs * (len(images) // 64)
    optimiser = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.05, total_steps=steps)
    for _ in range(steps):
        batch = torch.randint(len(images), (64,))
        x = perturbed(model, images[batch], labels[batch], radius) if radius else images[batch]
        optimiser.zero_grad()
        F.cross_entropy(model(x), labels[batch]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    with file_written_whole(path) as target:
        save_file(model.state_dict(), target)
    return model.eval()


def perturbed(model: nn.Module, images: Tensor, labels: Tensor, radius: float) -> Tensor:
    """Four steps of PGD."""
    shift = torch.empty_like(images).uniform_(-radius, radius)
    for _ in range(4):
        leaf = shift.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(images + leaf), labels), leaf)
        shift = (leaf.detach() + radius / 2 * gradient.sign()).clamp(-radius, radius)
    return (images + shift).clamp(0.0, 1.0)


def attacks_of(case: str) -> dict[str, Attack]:
    """The standard suite; on the ResNet-18 the quick one and a short Square, for a processor's sake."""
    if case != "resnet18":
        return suite_attacks("standard")
    return suite_attacks("quick") | {"square": AutoAttack(part="square", square_queries=500)}


def find_radius(case: str, model: nn.Module, images: Tensor, labels: Tensor) -> ThreatModel:
    """A radius where Auto-PGD and a short Square leave 25 to 60 %; AutoAttack leaves little less."""
    short = {"apgd-ce": as_attack("apgd-ce"), "square": AutoAttack(part="square", square_queries=1000)}
    x, y = images[:SEARCH_IMAGES], labels[:SEARCH_IMAGES]
    place, tried = START.get(case, 3), set()
    while place not in tried and 0 <= place < len(RADII):
        threat = ThreatModel("linf", RADII[place] / 255)
        left = run_suite(
            model, x, y, threat, Suite(short, probe_images=1), session=SuiteSession(progress=False)
        ).robust_accuracy
        tried.add(place)
        if 0.25 <= left <= 0.6:
            return threat
        place += 1 if left > 0.6 else -1
    return ThreatModel("linf", RADII[min(max(place, 0), len(RADII) - 1)] / 255)


def measure(case: str, options: argparse.Namespace) -> dict[str, Any]:
    """Attack one case and collect its figures."""
    started = time.perf_counter()
    model = build(case, options)
    images, labels, clean = _right_images(model, load_dataset(options.data, "test"), options.images)
    given = ThreatModel("linf", options.radius / 255) if options.radius else None
    threat = given or find_radius(case, model, images, labels)
    alone = None if case == "resnet18" else run_attack(model, images, labels, "autoattack", threat)
    result = run_suite(
        model, images, labels, threat, Suite(attacks_of(case), probe_images=options.probe_images)
    )
    return {
        "clean accuracy": clean,
        "images": len(images),
        "threat": str(threat),
        "plain attack": "AutoAttack" if alone else "the suite's plain gradients",
        "plain leaves": alone.robust_accuracy if alone else _left_by_plain_gradients(result),
        "suite leaves": result.robust_accuracy,
        "trusted": result.verdict.trusted,
        "checks": {check.name: [check.passed, check.evidence] for check in result.verdict.checks},
        "broken by": _attribution(result),
        "not applicable": dict(result.skipped),
        "seconds": round(time.perf_counter() - started),
    }


def _right_images(model: nn.Module, test: ImageDataset, count: int) -> tuple[Tensor, Tensor, float]:
    """The first images that the model classifies rightly, and its accuracy on the first 1,000."""
    images, labels = test.subset(range(min(len(test), 1000))).tensors()
    with torch.no_grad():
        right = torch.cat([model(part).argmax(dim=1) for part in images.split(100)]) == labels
    return images[right][:count], labels[right][:count], float(right.double().mean())


def _left_by_plain_gradients(result: SuiteResult) -> float:
    broken = sum(tally.broken for tally in result.tallies if tally.kind == PLAIN_GRADIENTS)
    return 1 - broken / len(result.success)


def _attribution(result: SuiteResult) -> dict[str, str]:
    return {tally.name: f"{tally.broken} of {tally.entered}" for tally in result.tallies}


def main() -> None:
    """Parse the command line, measure what is missing, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES[:-1])
    parser.add_argument("--data", default="cifar10-subset", help="a source as in `warplca train`")
    parser.add_argument("--train-images", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=128, help="rightly classified test images per case")
    parser.add_argument("--probe-images", type=int, default=64)
    parser.add_argument("--radius", type=float, default=0.0, help="in 255ths; 0 searches")
    parser.add_argument("--checkpoint", default="", help="folder of the case `checkpoint`")
    parser.add_argument("--out", default="planted", help="folder for the networks and planted.json")
    options = parser.parse_args()
    path = Path(options.out) / "planted.json"
    found: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    for case in options.cases:
        name = f"{case} {options.checkpoint}".strip()
        if name not in found:
            measured = measure(case, options)
            found = (json.loads(path.read_text()) if path.exists() else {}) | {name: measured}
            with file_written_whole(path) as target:
                target.write_text(json.dumps(found, indent=1))
        print(line(name, found[name]))


def line(name: str, case: dict[str, Any]) -> str:
    """One case in one line."""
    verdict = "trusted" if case["trusted"] else "not trusted"
    return (
        f"{name}: {case['images']} images at {case['threat']}, {case['plain attack']} leaves "
        f"{100 * case['plain leaves']:.1f} %, the suite {100 * case['suite leaves']:.1f} %, {verdict}, "
        f"{case['seconds']} s"
    )


if __name__ == "__main__":
    main()

"""Certificates of a published CIFAR-10 ResNet-20, untouched, behind front-ends that were never trained with it.

    python benchmarks/certify_stranger.py --weights DIR --data cifar10.npz --sigma 0.25 --samples 500 --images 40 \
        --arms bare cifar10-64x9s2-restore cifar10-64x9s2-restore-told

DIR holds ``resnet.py`` and ``resnet20-12fca82f.th`` of github akamaster/pytorch_resnet_cifar10 (91.7 % clean), whose
code is run and whose weights are read without unpickling objects. Arms: "bare"; "soft", the front-end
``cifar10-64x9s2-soft`` (reconstruction, lambda 0.05, adaptive 1.5, 10 cycles); any other name or folder that ``harden``
takes; "-told" after an arm gives it the strength of the noise. All go into one results store.
"""

from __future__ import annotations

import argparse
import runpy
from pathlib import Path

import torch
from torch import Tensor, nn

from warplca.attacks import SmoothAdv
from warplca.configs.device import choose_device
from warplca.data import load_dataset
from warplca.eval import CertificationPlan, Execution, certify
from warplca.eval.results.certificates import bracket_lines
from warplca.frontend import WarpLCA
from warplca.models import harden

TOLD = "-told"


class Stranger(nn.Module):
    """The published network with its normalisation, on pixels in [0, 1]."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        code = runpy.run_path(str(folder / "resnet.py"))
        weights = torch.load(folder / "resnet20-12fca82f.th", map_location="cpu", weights_only=True)
        self.network = code["resnet20"]()
        self.network.load_state_dict({n.removeprefix("module."): w for n, w in weights["state_dict"].items()})
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None])
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 10)."""
        return self.network((images - self.mean) / self.std)


def arm(folder: Path, name: str) -> nn.Module:
    """Build an arm by its name."""
    stranger = Stranger(folder)
    if name == "bare":
        return stranger
    if name == "soft":
        settings = {"output": "reconstruction", "lam": 0.05, "adaptive_lam": 1.5, "iterations": 10}
        return harden(stranger, WarpLCA.from_pretrained("cifar10-64x9s2-soft", **settings))
    return harden(stranger, name)


def main() -> None:
    """Certify every arm."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--arms", nargs="+", default=["bare", "cifar10-64x9s2-restore"])
    parser.add_argument("--sigma", nargs="+", type=float, default=[0.25])
    parser.add_argument("--samples", nargs="+", type=int, default=[500])
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--results", default="certificates.sqlite")
    parser.add_argument("--budget", type=float, default=None)
    parser.add_argument("--no-attack", action="store_true")
    parser.add_argument("--device", help="(default: the accelerator if there is one)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = choose_device(arguments.device)
    data = load_dataset(arguments.data, "test")
    for name in arguments.arms:
        frame = certify(
            arm(arguments.weights, name.removesuffix(TOLD)),
            data,
            CertificationPlan(
                sigma=arguments.sigma,
                samples=arguments.samples,
                images=arguments.images,
                attack=None if arguments.no_attack else SmoothAdv(steps=10, copies=8, samples=300),
                tell=name.endswith(TOLD),
            ),
            results=arguments.results,
            name=f"ResNet-20, {name}",
            execution=Execution(progress=False, budget=arguments.budget, device=device),
            say=print,
        )
        print(name)
        for line in bracket_lines(frame):
            print(line, flush=True)


if __name__ == "__main__":
    main()

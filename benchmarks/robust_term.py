"""A robust data term against impulses: does clipping the residual inside sparse coding beat a median before it?

Usage: python benchmarks/robust_term.py --data cifar10.npz [--images 48]

Minimised is sum rho(x - Phi a) + lambda ||a||_1 by FISTA (Beck and Teboulle 2009), 100 cycles. The square has
rho(r) = r^2 / 2; Huber's is linear beyond delta, so that its gradient is the residual clipped to delta; delta is a
multiple of the noise that each image shows. As delta falls, Huber's becomes the absolute value. Each lambda is chosen
for each kind of damage among four, by PSNR on as many other images, and so is delta. The accuracy is that of a
published ResNet-20 on 200 test images from 2,000 on; DIR as in plugin.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from common import table, write
from plugin_rows import parser, published
from torch import Tensor

from warplca.data import ImageDataset, corrupt, load_dataset
from warplca.frontend import WarpLCA, build_frontend, noise_level
from warplca.frontend.image_statistics import standardise
from warplca.frontend.priming.restoring import psnr
from warplca.frontend.sparse.operator import ConvOperator

DICTIONARY, RESTORE = "cifar10-64x9s2-soft", "cifar10-64x9s2-restore"
LAMBDAS = (0.01, 0.04, 0.1, 0.3)
DELTAS = (0.25, 0.5, 1.5)  # times the noise
CYCLES = 100
DAMAGE = {
    "impulse 1": ("impulse_noise", 1),
    "impulse 3": ("impulse_noise", 3),
    "impulse 5": ("impulse_noise", 5),
    "Gaussian 3": ("gaussian_noise", 3),
    "clean": None,
}


def robust_code(operator: ConvOperator, x: Tensor, lam: float, delta: Tensor) -> Tensor:
    """Minimise the energy for standardised images x (N, C, H, W); delta (N, 1, 1, 1) is infinite for the square."""
    size, step = (x.shape[2], x.shape[3]), 1.0 / operator.lipschitz
    code = ahead = torch.zeros_like(operator.analyse(x))
    momentum = 1.0
    for _ in range(CYCLES):
        residual = x - operator.synthesise(ahead, size)
        moved = ahead + step * operator.analyse(residual.clamp(-delta, delta))
        following = torch.nn.functional.softshrink(moved, float(step) * lam)
        after = (1.0 + (1.0 + 4.0 * momentum**2) ** 0.5) / 2.0
        code, ahead = following, following + (momentum - 1.0) / after * (following - code)
        momentum = after
    return code


def coded(images: Tensor, lam: float, delta: float | None) -> Tensor:
    """Restore images through the code; delta in units of each image's noise, None for the square."""
    operator = WarpLCA.from_pretrained(DICTIONARY).dictionary.operator()
    standardised = standardise(images)
    noise = noise_level(standardised.images).clamp_min(0.01)[:, None, None, None]
    limit = torch.full_like(noise, torch.inf) if delta is None else delta * noise
    code = robust_code(operator, standardised.images, lam, limit)
    return standardised.restore(operator.synthesise(code, (images.shape[2], images.shape[3])))


Method = Callable[[Tensor], Tensor]


def methods() -> dict[str, list[Method]]:
    """Every method with its choices."""
    repair, restore = build_frontend("impulse-repair").eval(), WarpLCA.from_pretrained(RESTORE).eval()
    lams, robust = LAMBDAS, list(itertools.product(LAMBDAS, DELTAS))
    return {
        "nothing": [lambda x: x],
        "square": [lambda x, lam=lam: coded(x, lam, None) for lam in lams],
        "Huber": [lambda x, lam=lam, d=d: coded(x, lam, d) for lam, d in robust],
        "Huber without sparsity (lambda 0)": [lambda x, d=d: coded(x, 0.0, d) for d in DELTAS],
        "switching median": [repair],
        "switching median, square": [lambda x, lam=lam: coded(repair(x), lam, None) for lam in lams],
        "switching median, Huber": [lambda x, lam=lam, d=d: coded(repair(x), lam, d) for lam, d in robust],
        "restoring WARP-LCA, 3 cycles": [restore],
        "switching median, restoring WARP-LCA": [lambda x: restore(repair(x))],
    }


def pair(dataset: ImageDataset, damage: tuple[str, int] | None) -> tuple[Tensor, Tensor]:
    """Damaged and sound images (N, 3, H, W)."""
    sound = dataset.tensors(list(range(len(dataset))))[0]
    if damage is None:
        return sound, sound
    pixels = np.asarray(corrupt(dataset.images, damage[0], severity=damage[1], seed=0))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, sound


@torch.no_grad()
def main() -> None:
    """Run from the command line."""
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=24, help="training images (default: %(default)s)")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    dataset, n = load_dataset(arguments.data, "train"), arguments.images
    chosen, shown = dataset.subset(list(range(n))), dataset.subset(list(range(n, 2 * n)))
    tested = load_dataset(arguments.data, "test").subset(list(range(2000, 2200)))
    classifier, lines = published(arguments.classifiers, "resnet20"), []
    for name, choices in methods().items():
        line = [name]
        for damage in DAMAGE.values():
            seen, sound = pair(chosen, damage)
            best = max(choices, key=lambda method: float(psnr(method(seen), sound).mean()))
            seen, sound = pair(shown, damage)
            line.append(f"{float(psnr(best(seen), sound).clamp_max(99.0).mean()):.2f}")
            if damage is not None and damage[1] > 1:
                seen, _ = pair(tested, damage)
                classes = classifier(best(seen).clamp(0, 1)).argmax(1)
                line[-1] += (
                    f" ({100 * float((classes == torch.as_tensor(tested.labels)).float().mean()):.1f})"
                )
        lines.append(line)
        print(line, flush=True)
    text = table(["before anything else", *DAMAGE], lines)
    text += f"\nMade by `python benchmarks/robust_term.py --images {n}`. PSNR in dB, {n} images; in brackets "
    text += "% correct of 200 others.\n"
    print(text)
    write(arguments.out / "plugin-robust-term.md", text)


if __name__ == "__main__":
    main()

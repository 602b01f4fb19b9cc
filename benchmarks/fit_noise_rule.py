"""Fit the rule by which a front-end's lambda follows from the estimated noise, and write it beside its weights.

Usage: python benchmarks/fit_noise_rule.py --data cifar10.npz [--frontend cifar10-64x9s2] [--images 100]

The rule, lambda = sqrt(lam^2 + (strength * noise)^2), is the one of the highest PSNR of what `warplca denoise` gives,
mean over training images and white noise of sigma 2 to 75 of 255. The test images are not looked at. That command
and adaptive lambda use it.
"""

from __future__ import annotations

import logging

import torch
from common import parser, some_images
from lambda_choice import fitted_rule, followed, tried
from noises import gaussian

from warplca.frontend import WarpLCA
from warplca.frontend.pretrained import save_noise_rule
from warplca.pipeline.denoise import ITERATIONS, CycleSpinning

SIGMAS = (2.0, 5.0, 10.0, 15.0, 25.0, 35.0, 50.0, 75.0)


def main() -> None:
    """Run from the command line."""
    options = parser(__doc__)
    options.set_defaults(images=100)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("warplca").setLevel(logging.ERROR)  # other lambda than primed for, on purpose
    clean = some_images(arguments.data, "train", arguments.images, arguments.seed)

    def layer_at(lam: float) -> CycleSpinning:
        layer = WarpLCA.from_pretrained(arguments.frontend, lam=lam, output="reconstruction")
        return CycleSpinning(layer, ITERATIONS)

    trials = [
        tried(layer_at, gaussian(clean, sigma, arguments.seed), clean, arguments.work, f"sigma {sigma:g}")
        for sigma in SIGMAS
    ]
    command = (
        f"python benchmarks/fit_noise_rule.py --data cifar10.npz --frontend {arguments.frontend} "
        f"--images {arguments.images} --seed {arguments.seed}"
    )
    rule = fitted_rule(trials, command)
    for sigma, trial in zip(SIGMAS, trials, strict=True):
        best = trial.psnr.mean(1).max()
        line = f"PSNR {followed(trial, rule.lam, rule.strength):.2f} dB, with the best lambda for all images {best:.2f}"
        print(f"sigma {sigma:4g}: {line}")
    print(f"lam {rule.lam}, strength {rule.strength}: {save_noise_rule(arguments.frontend, rule)}")


if __name__ == "__main__":
    main()

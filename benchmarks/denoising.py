"""How well WARP-LCA denoises, against plain LCA, wavelets, total variation and BM3D.

Usage: python benchmarks/denoising.py --data cifar10.npz [--frontend cifar10-64x9s2] [--images 100] [--training 10]

Writes denoising-FRONTEND.md, .json and .png to docs/results: PSNR and SSIM on CIFAR-10 test images and on larger
photographs (sigma 25 alone), white noise of sigma 10, 25 and 50 of 255 and 5 % impulses, clipped and rounded to 8 bits.
WARP-LCA takes 10 or 30 iterations, or 28 shared among the four shifts of a grid of stride 2 (cycle spinning, as in
`warplca denoise`), plain LCA (cold start, no momentum, eta = 1/L) 1,000, both with the front-end's
dictionary and threshold; each has the lambda of the highest PSNR on training images for each noise ("chosen"), or
follows the noise estimated in the image itself (adaptive lambda, a rule fitted on training images). Total variation's
strength is chosen on the same training images; the wavelet and BM3D are given sigma. Photographs take the adaptive
rules. scikit-image (pip install scikit-image PyWavelets) and bm3d are optional. Finished runs are kept in --work.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import denoisers
import numpy as np
import torch
from common import Arrays, fingerprint, kept, parser, psnr, some_images, ssim, write, write_json
from denoising_report import report, summary
from lambda_choice import LayerAt, Trial, best_lam, fitted_rule, restored, tried
from noises import GAUSSIAN, IMPULSE, KINDS, spoilt
from photographs import photographs
from torch import Tensor, nn

from warplca.frontend import LCA, WarpLCA
from warplca.frontend.pretrained import NoiseRule, load_noise_rule
from warplca.pipeline.denoise import CycleSpinning

PLAIN, WARP10, WARP30, SPUN, ACCELERATED = (
    "plain LCA, 1,000 iterations",
    "WARP-LCA, 10",
    "WARP-LCA, 30",
    "WARP-LCA, 28 over four shifts",
    "LCA, accelerated, 30",
)
LARGE = "sigma 25"  # the noise of the photographs, which take plain LCA minutes
CHOSEN, ADAPTIVE = ", lambda chosen", ", adaptive lambda"
Denoiser = Callable[[Tensor], Tensor]
Contestants = dict[str, tuple[str, Denoiser]]


def main() -> None:
    """Run from the command line."""
    options = parser(__doc__)
    options.set_defaults(images=100)
    options.add_argument(
        "--training", type=int, default=10, help="training images to choose on (default: 10)"
    )
    options.add_argument("--few", type=int, default=20, help="images for BM3D, which is slow (default: 20)")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("warplca").setLevel(logging.ERROR)  # other lambda than primed for, on purpose
    layers = solvers(arguments.frontend)
    train = some_images(arguments.data, "train", arguments.training, arguments.seed + 1)
    trials = {
        name: {kind: trial(arguments, layer_at, name, train, kind) for kind in KINDS}
        for name, layer_at in layers.items()
    }
    rules = {name: fitted_rule([trials[name][kind] for kind in GAUSSIAN]) for name in layers}
    rules[SPUN] = load_noise_rule(arguments.frontend)
    test = some_images(arguments.data, "test", arguments.images, arguments.seed)
    found = {}
    for kind in KINDS:
        contestants: Contestants = {}
        for name, layer_at in layers.items():
            layer = layer_at(best_lam(trials[name][kind]))
            contestants[name + CHOSEN] = (fingerprint(layer), by_layer(layer))
        contestants |= adaptive(arguments.frontend, rules) | others(arguments, train, kind)
        found[kind] = contest(arguments, test, kind, contestants)
    large = {}
    if denoisers.installed("skimage", "every photograph of at least 256 x 256 pixels"):
        contestants = adaptive(arguments.frontend, rules) | others(arguments, train, LARGE)
        large[LARGE] = contest(arguments, photographs(), LARGE, contestants)
    lams = {name: {kind: best_lam(trials[name][kind]) for kind in KINDS} for name in layers}
    name = f"denoising-{Path(arguments.frontend).name}"
    write_json(arguments.out / f"{name}.json", summary(found, large, lams, rules))
    write(arguments.out / f"{name}.md", report(arguments, found, large, lams, rules))
    if large:
        from denoising_figure import draw

        draw(arguments, arguments.out / f"{name}.png", found, adaptive(arguments.frontend, rules))
    print((arguments.out / f"{name}.md").read_text(encoding="utf-8"))


def solvers(frontend: str) -> dict[str, Callable[..., nn.Module]]:
    """Each LCA as a function of lambda; also of ``adaptive_lam``."""

    def warp(iterations: int) -> Callable[..., LCA]:
        def layer_at(lam: float, **more: float) -> LCA:
            layer = WarpLCA.from_pretrained(frontend, lam=lam, output="reconstruction", **more)
            layer.iterations = iterations
            return layer

        return layer_at

    def cold(**options: object) -> Callable[..., LCA]:
        return lambda lam, **more: LCA.from_pretrained(
            frontend, lam=lam, output="reconstruction", **options, **more
        )

    return {
        WARP10: warp(10),
        WARP30: warp(30),
        SPUN: lambda lam, **more: CycleSpinning(warp(30)(lam, **more), 30),
        ACCELERATED: cold(accelerated=True, iterations=30),
        PLAIN: cold(iterations=1000),
    }


def by_layer(layer: nn.Module) -> Denoiser:
    """The denoiser that a layer is."""
    return lambda noisy: restored(layer, noisy)


def adaptive(frontend: str, rules: dict[str, NoiseRule]) -> Contestants:
    """WARP-LCA and plain LCA that find lambda from the image."""
    found = {}
    for name in (WARP30, SPUN, PLAIN):
        layer = solvers(frontend)[name](rules[name].lam, adaptive_lam=rules[name].strength)
        found[name + ADAPTIVE] = (fingerprint(layer), by_layer(layer))
    return found


def others(arguments: argparse.Namespace, train: Tensor, kind: str) -> Contestants:
    """What is not LCA; total variation's strength is chosen on the training images."""
    found: Contestants = {}
    if denoisers.installed("skimage", "total variation"):
        weight = tv_weight(arguments, train, kind)
        found["total variation, strength chosen"] = (
            f"tv {weight}",
            lambda noisy: denoisers.total_variation(noisy, weight),
        )
        if denoisers.installed("pywt", "the wavelet"):
            known = kind in GAUSSIAN
            name = "wavelet, sigma known" if known else "wavelet, sigma estimated"
            found[name] = (
                f"wavelet {known} {kind}",
                lambda noisy: denoisers.wavelet(noisy, kind, known=known),
            )
    if kind in GAUSSIAN and denoisers.installed("bm3d", "BM3D"):
        found["BM3D, sigma known"] = (
            f"bm3d {kind}",
            lambda noisy: denoisers.bm3d(noisy[: arguments.few], kind),
        )
    if kind == IMPULSE:
        found["median of 3 x 3"] = ("median", denoisers.median)
    return found


def trial(arguments: argparse.Namespace, layer_at: LayerAt, name: str, train: Tensor, kind: str) -> Trial:
    """Denoise the training images at many lambda."""
    return tried(layer_at, spoilt(train, kind, arguments.seed), train, arguments.work, f"{name}, {kind}")


def tv_weight(arguments: argparse.Namespace, train: Tensor, kind: str) -> float:
    """Total variation's strength of the highest PSNR on the training images."""
    noisy = spoilt(train, kind, arguments.seed)

    def compute() -> Arrays:
        found = [psnr(denoisers.total_variation(noisy, w), train).mean() for w in denoisers.TV_WEIGHTS]
        return {"psnr": torch.stack(found).numpy()}

    quality = kept(arguments.work, fingerprint("tv", denoisers.TV_WEIGHTS, noisy, train), compute)["psnr"]
    return denoisers.TV_WEIGHTS[int(np.argmax(quality))]


def contest(
    arguments: argparse.Namespace, clean: Tensor, kind: str, contestants: Contestants
) -> dict[str, Arrays]:
    """PSNR and SSIM per image of each contestant and of the noisy images."""
    noisy = spoilt(clean, kind, arguments.seed)
    found = {"noisy": {"psnr": psnr(noisy, clean).numpy(), "ssim": ssim(noisy, clean).numpy()}}
    for name, (identity, denoise) in contestants.items():

        def compute(denoise: Denoiser = denoise) -> Arrays:
            result = denoise(noisy)
            reference = clean[: len(result)]
            return {"psnr": psnr(result, reference).numpy(), "ssim": ssim(result, reference).numpy()}

        limit = arguments.few if name.startswith("BM3D") else len(clean)
        found[name] = kept(arguments.work, fingerprint("contest", identity, limit, noisy), compute)
    return found


if __name__ == "__main__":
    main()

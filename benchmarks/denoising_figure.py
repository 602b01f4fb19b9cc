"""The figure of the denoising study: PSNR of every method, and what it looks like."""

from __future__ import annotations

import argparse
from pathlib import Path

import denoisers
from common import interval, psnr, save_figure
from noises import spoilt
from photographs import photographs

KIND = "sigma 25"
CROP = slice(48, 176)


def draw(arguments: argparse.Namespace, path: Path, found: dict, adaptive: dict) -> None:
    """Dots with intervals above, a part of a photograph below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.25, 1])
    _dots(top.subplots(1, len(found), sharey=True), found)
    _pictures(bottom, arguments, adaptive)
    save_figure(figure, path)


def _dots(axes, found: dict) -> None:
    methods = list(dict.fromkeys(name for part in found.values() for name in part))
    for axis, (kind, part) in zip(axes, found.items(), strict=True):
        for name, arrays in part.items():
            mean, low, high = interval(arrays["psnr"])
            colour = "#D55E00" if name.startswith("WARP") else "#0072B2" if "LCA" in name else "#555555"
            axis.errorbar(
                mean, methods.index(name), xerr=[[mean - low], [high - mean]], fmt="o", color=colour, ms=5
            )
        axis.set(title=kind, xlabel="PSNR, dB", yticks=range(len(methods)))
        axis.set_yticklabels(methods)
        axis.invert_yaxis() if axis is axes[0] else None
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)


def _pictures(figure, arguments: argparse.Namespace, adaptive: dict) -> None:
    clean = photographs(("chelsea",))
    noisy = spoilt(clean, KIND, arguments.seed)
    shown = {"clean": clean, f"noisy, {KIND}": noisy}
    shown |= {name: denoise(noisy) for name, (_, denoise) in adaptive.items()}
    if denoisers.installed("pywt", "the wavelet"):
        shown["wavelet, sigma known"] = denoisers.wavelet(noisy, KIND, known=True)
    for axis, (name, images) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        axis.imshow(images[0, :, CROP, CROP].clamp(0, 1).permute(1, 2, 0).numpy())
        quality = "" if name == "clean" else f"\n{float(psnr(images, clean)):.1f} dB"
        axis.set_title(name.replace(", adaptive", ",\nadaptive") + quality, fontsize=9)
        axis.axis("off")

"""The denoising study in words and tables."""

from __future__ import annotations

import argparse
from pathlib import Path

from common import Arrays, command, interval, shown, table

from warplca.frontend.pretrained import NoiseRule

Found = dict[str, dict[str, Arrays]]


def summary(
    found: Found, large: Found, lams: dict[str, dict[str, float]], rules: dict[str, NoiseRule]
) -> dict[str, object]:
    """Means and intervals for other programs."""

    def condensed(part: Found) -> dict[str, object]:
        return {
            kind: {
                name: {key: interval(values) for key, values in arrays.items()}
                for name, arrays in methods.items()
            }
            for kind, methods in part.items()
        }

    fitted = {name: [rule.lam, rule.strength] for name, rule in rules.items()}
    return {"cifar10": condensed(found), "photographs": condensed(large), "lambda": lams, "rules": fitted}


def report(
    arguments: argparse.Namespace,
    found: Found,
    large: Found,
    lams: dict[str, dict[str, float]],
    rules: dict[str, NoiseRule],
) -> str:
    """The study in words and tables."""
    name = Path(arguments.frontend).name
    lines = [
        f"# Denoising: `{name}`",
        "",
        command("denoising", arguments),
        "PSNR in dB / SSIM, means with half the width of their 95 % bootstrap intervals over images.",
        "Noise is clipped and rounded to 8 bits, as in a file. Everything tuned is tuned on training images.",
        "",
        *([f"![Denoised photographs](denoising-{name}.png)", ""] if large else []),
        f"## {arguments.images} CIFAR-10 test images",
        "",
        _table(found),
        *differences(found),
        "",
    ]
    if large:
        count = len(next(iter(large.values()))["noisy"]["psnr"])
        lines += [f"## {count} photographs of 256 x 256 pixels", "", _table(large)]
    lines += ["## Chosen on training images", ""]
    head = ("lambda for", *found)
    lines += [
        table(head, [(method, *[f"{value:.2f}" for value in row.values()]) for method, row in lams.items()])
    ]
    lines += ["Rules for adaptive lambda, sqrt(lam^2 + (strength noise)^2), noise in standardised units:", ""]
    lines += [f"- {method}: lam {rule.lam:g}, strength {rule.strength:g}" for method, rule in rules.items()]
    return "\n".join(lines).rstrip() + "\n"


def _table(found: Found) -> str:
    methods = list(dict.fromkeys(name for part in found.values() for name in part))
    counts = {name: len(part[name]["psnr"]) for part in found.values() for name in part}
    rows = []
    for method in methods:
        cells = [
            f"{shown(part[method]['psnr'])} / {shown(part[method]['ssim'], 3)}" if method in part else ""
            for part in found.values()
        ]
        fewer = counts[method] < max(counts.values())
        rows.append((f"{method} (first {counts[method]} only)" if fewer else method, *cells))
    return table(("method", *found), rows)


def differences(found: Found) -> list[str]:
    """WARP-LCA of at most 30 iterations against plain LCA's 1,000, image by image."""
    lines = []
    for method in ("WARP-LCA, 30", "WARP-LCA, 28 over four shifts"):
        lines += [f"{method} minus plain LCA, 1,000 iterations, image by image, PSNR in dB:", ""]
        for kind, part in found.items():
            gaps = []
            for way in (", lambda chosen", ", adaptive lambda"):
                gain = part[method + way]["psnr"] - part["plain LCA, 1,000 iterations" + way]["psnr"]
                mean, low, high = interval(gain)
                gaps.append(f"{mean:+.2f} ({low:+.2f} to {high:+.2f}){way}")
            lines.append(f"- {kind}: " + "; ".join(gaps) + ".")
        lines.append("")
    return lines[:-1]

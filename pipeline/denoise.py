"""Denoise photographs of any size with a primed front-end, averaged over the shifts of its grid."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..configs.device import choose_device
from ..configs.errors import InputError
from ..configs.progress import Bar
from ..frontend import WarpLCA, noise_level
from ..frontend.pretrained import load_noise_rule, open_primed
from ..frontend.sparse.lca import LCA
from ..frontend.tiles import in_tiles
from .photograph import read_photograph, write_photograph


class CycleSpinning(nn.Module):
    """Mean reconstruction over all shifts of the image against the atoms' grid (Coifman and Donoho 1995).

    At stride s a code depends on where its grid lies; the errors of the s^2 reconstructions partly cancel. At stride 1
    there is one shift, and this is the layer itself.

    Args:
        layer: Any LCA layer; ``output`` must be "reconstruction".
        iterations: Cycles in all, shared equally among the shifts, rounded down, at least one each. None leaves the
            layer its own cycles and does not shift.
    """

    def __init__(self, layer: LCA, iterations: int | None) -> None:
        super().__init__()
        self.layer = layer
        shifted = 1 if iterations is None else layer.dictionary.stride
        self.shifts = tuple(product(range(shifted), repeat=2))
        if iterations is not None:
            layer.iterations = max(1, iterations // len(self.shifts))

    def forward(self, images: Tensor) -> Tensor:
        """Restore images, (N, C, H, W), pixels in [0, 1]; the result has the same shape and is not clipped."""
        return self.restore(images)[0]

    def restore(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What ``forward`` gives, and the lambda of the image that is not shifted."""
        restored = []
        for down, right in self.shifts:
            encoding = self.layer.encode(F.pad(images, (right, 0, down, 0), mode="replicate"))
            restored.append((encoding.output[..., down:, right:], encoding.lam))
        output = sum(part for part, _ in restored[1:]) + restored[0][0]
        return output / len(restored), restored[0][1]


TILE = 512  # pixels: what bounds memory, about half a gigabyte at stride 1

FRONTEND = "cifar10-64x9s2-restore"

ITERATIONS = 30  # of front-ends that were primed to code; those primed to restore bring their own

NOISE = (1.5 / 255, 0.25)
"""Between these a front-end that was primed to restore helps. What it does to clean images is as much as noise of 1.5
grey levels; and it has seen noise up to 0.3, which reads about 0.25 once it is clipped to pixels."""


@dataclass(frozen=True)
class Denoised:
    """A denoised image.

    Attributes:
        pixels: (C, H, W) in [0, 1].
        noise: Standard deviation of the noise estimated in the image, in units of pixels in [0, 1]; NaN for an
            image of fewer than 3 x 3 pixels.
        lam: The smallest and the largest lambda used; they differ only between tiles of large images.
        remark: A warning if the noise is outside what the front-end was primed for; else empty.
    """

    pixels: Tensor
    noise: float
    lam: tuple[float, float]
    remark: str = ""


class Restorer:
    """A primed front-end made ready for images, with the lambda given, the rule that it learned, or one fitted for it.

    Args:
        frontend: Primed front-end, as for :func:`denoise`.
        lam: Threshold, as for :func:`denoise`.
        iterations: Number of cycles, as for :func:`denoise`.
        device: Device, as for :func:`denoise`.

    Raises:
        InputError: If there is no such front-end, or neither lambda nor a rule that chooses it.
    """

    def __init__(
        self,
        frontend: str | Path = FRONTEND,
        lam: float | None = None,
        iterations: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        primed = open_primed(frontend).settings
        restores = primed.get("output") == "reconstruction" and bool(primed.get("adaptive_lam"))
        options = {} if lam is None else {"lam": lam, "adaptive_lam": 0.0}
        if lam is None and not restores:
            rule = load_noise_rule(frontend)
            options = {"lam": rule.lam, "adaptive_lam": rule.strength}
        layer = WarpLCA.from_pretrained(frontend, output="reconstruction", tile=None, **options)
        self.strength = float(layer.adaptive_lam)
        self.spinning = CycleSpinning(layer, iterations if iterations or restores else ITERATIONS)
        self.spinning.to(choose_device(device))
        self.given = lam is not None
        self.remarks = restores and not self.given

    @torch.no_grad()
    def restore(self, pixels: Tensor, *, tile: int = TILE, progress: bool = False) -> Denoised:
        """Denoise one image, (C, H, W); see :func:`denoise`."""
        layer = self.spinning.layer
        channels = layer.dictionary.weight.shape[1]
        if pixels.ndim != 3 or pixels.shape[0] not in (1, channels):
            raise InputError(f"the image has shape {tuple(pixels.shape)}; expected (1 or {channels}, H, W).")
        estimable = min(pixels.shape[1:]) >= 3
        if not self.given and not estimable:
            raise InputError(
                f"the image has {pixels.shape[1]} x {pixels.shape[2]} pixels, too few to estimate its noise; "
                "give lambda."
            )
        layer.adaptive_lam = self.strength * math.sqrt(channels / pixels.shape[0])
        noise = float(noise_level(pixels[None])) if estimable else math.nan
        output, lams = _in_tiles(self.spinning, pixels.expand(channels, -1, -1)[None], tile, progress)
        restored = output[0] if pixels.shape[0] == channels else output[0].mean(0, keepdim=True)
        remark = _remark(noise) if self.remarks else ""
        return Denoised(restored.clamp(0, 1), noise, (min(lams), max(lams)), remark)


def denoise(
    pixels: Tensor,
    *,
    frontend: str | Path = FRONTEND,
    lam: float | None = None,
    iterations: int | None = None,
    tile: int = TILE,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Denoised:
    """Denoise one image.

    Lambda follows from the noise estimated in the image itself, by the rule that the front-end learned when it was
    primed to restore, or that was fitted for it afterwards, unless given.
    A gray image goes through an RGB front-end as three equal channels. Their noise is one and the same, and adds up
    in a gray atom to sqrt(3) times that of independent channels: the rule sees it so much larger.

    Args:
        pixels: (C, H, W) in [0, 1], C 1 or the front-end's number of channels.
        frontend: Name of a shipped front-end, or a folder.
        lam: Threshold value in units of the standardised image.
        iterations: Cycles in all, shared among the shifts of the atoms' grid (see :class:`CycleSpinning`). None takes
            30, or, of a front-end primed to restore, its own on one grid: shifts add 0.05 dB there.
        tile: Side in pixels above which an image is worked on in tiles that overlap.
        device: Device to compute on; None takes the accelerator if there is one.
        progress: Whether to show a progress bar over tiles.

    Raises:
        InputError: If the image has another number of channels, or is too small to estimate its noise.
    """
    return Restorer(frontend, lam, iterations, device).restore(pixels, tile=tile, progress=progress)


def denoise_files(
    images: Sequence[str | Path],
    out: str | Path,
    restorer: Restorer,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _: None,
    complain: Callable[[str], None] | None = None,
) -> list[Path]:
    """Denoise PNG and JPEG files; each becomes ``out/NAME.png``, written whole or not at all.

    Args:
        images: The files.
        out: Folder to write to.
        restorer: What denoises them.
        overwrite: Whether files that are there already are replaced.
        say: Called with one line for each image.
        complain: Called with what is wrong with an image that cannot be denoised; the others follow. None raises that.

    Returns:
        The files written.

    Raises:
        InputError: If an input or another output would be overwritten, or, without ``complain``, if an image cannot be
            denoised; images that were finished before stay.
    """
    targets = _targets([Path(image) for image in images], Path(out), overwrite)
    written = []
    for source, target in Bar(targets.items(), desc="restoring", unit="picture", delay=1):
        try:
            say(_denoise_file(restorer, source, target))
        except InputError as error:  # one bad picture of many
            if complain is None:
                raise
            complain(str(error))
        else:
            written.append(target)
    return written


def _denoise_file(restorer: Restorer, source: Path, target: Path) -> str:
    """Denoise one file, and tell what was done."""
    start = time.perf_counter()
    photograph = read_photograph(source)
    try:
        found = restorer.restore(photograph.pixels, progress=True)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    write_photograph(target, found.pixels, photograph)
    height, width = photograph.pixels.shape[1:]
    used = " to ".join(dict.fromkeys(f"{value:.3g}" for value in found.lam))
    note = "".join(f" ({text})" for text in (photograph.note, found.remark) if text)
    return (
        f"{source} -> {target}: {width} x {height} pixels, noise {255 * found.noise:.1f} of 255, lambda {used}, "
        f"{time.perf_counter() - start:.1f} s{note}"
    )


def _targets(images: Sequence[Path], out: Path, overwrite: bool) -> dict[Path, Path]:
    """Return the file for each result; refuse to overwrite before anything is done."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder to write to.")
    inputs = {image.resolve() for image in images}
    targets: dict[Path, Path] = {}
    for image in images:
        target = out / f"{image.stem}.png"
        if target.resolve() in inputs:
            raise InputError(f"{target} would overwrite an input; give another folder than {out}.")
        if target in targets.values():
            raise InputError(f"two images would become {target}; denoise them into different folders.")
        if target.exists() and not overwrite:
            raise InputError(f"{target} is there already; choose another folder, or give --overwrite.")
        targets[image] = target
    return targets


def _remark(noise: float) -> str:
    if noise < NOISE[0]:
        return "so little noise that restoring may cost as much as it gives"
    if noise > NOISE[1]:
        return "more noise than the front-end was primed on, 0.3 of the pixel range"
    return ""


def _in_tiles(
    spinning: CycleSpinning, images: Tensor, tile: int, progress: bool
) -> tuple[Tensor, list[float]]:
    """Reconstruct (1, C, H, W) tile by tile; return the lambdas as well."""
    dictionary = spinning.layer.dictionary

    def restore(part: Tensor) -> tuple[Tensor, float]:
        restored, lam = spinning.restore(part.to(dictionary.weight.device))
        return restored, float(lam)

    return in_tiles(restore, images, tile=tile, stride=dictionary.stride, progress=progress)

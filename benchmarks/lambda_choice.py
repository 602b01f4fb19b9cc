"""Choose lambda for denoising on training images: one for each noise, or a rule of the estimated noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import fingerprint, kept, psnr
from torch import Tensor, nn
from tqdm import tqdm

from warplca.frontend import noise_level, raised_lam, standardise
from warplca.frontend.pretrained import NoiseRule

LAMS = tuple(float(0.06 * 2 ** (i / 2)) for i in range(12))  # 0.06 to 2.7
BATCH = 25
LayerAt = Callable[[float], nn.Module]


@dataclass(frozen=True)
class Trial:
    """How well images are denoised at each of LAMS.

    Attributes:
        psnr: (len(LAMS), N) in dB.
        noise: (N,) noise estimated in the standardised images.
    """

    psnr: np.ndarray
    noise: np.ndarray


@torch.no_grad()
def restored(layer: nn.Module, images: Tensor) -> Tensor:
    """Reconstructions of images; the layer has output="reconstruction"."""
    return torch.cat([layer(batch) for batch in images.split(BATCH)])


def tried(layer_at: LayerAt, noisy: Tensor, clean: Tensor, work: Path, name: str) -> Trial:
    """Denoise training images at each of LAMS."""
    rows = []
    for lam in tqdm(LAMS, desc=f"lambda for {name}", dynamic_ncols=True):
        layer = layer_at(lam)

        def compute(layer: nn.Module = layer) -> dict[str, np.ndarray]:
            return {"psnr": psnr(restored(layer, noisy), clean).numpy()}

        rows.append(kept(work, fingerprint("denoise", layer, noisy, clean), compute)["psnr"])
    return Trial(np.stack(rows), noise_level(standardise(noisy).images).numpy())


def best_lam(trial: Trial) -> float:
    """The lambda of the highest mean PSNR; a parabola through the best of LAMS and its neighbours."""
    mean = trial.psnr.mean(1)
    top = int(np.clip(mean.argmax(), 1, len(LAMS) - 2))
    left, middle, right = mean[top - 1 : top + 2]
    curvature = left - 2 * middle + right
    shift = 0.5 * (left - right) / curvature if curvature < 0 else 0.0
    step = np.log(LAMS[1] / LAMS[0])
    return float(LAMS[top] * np.exp(np.clip(shift, -1, 1) * step))


def fitted_rule(trials: list[Trial], command: str = "") -> NoiseRule:
    """The rule of the highest PSNR, mean over images and noise levels; exhaustive search."""
    best, rule = -np.inf, None
    for lam in np.geomspace(0.05, 0.8, 33):
        for strength in np.geomspace(0.3, 6.0, 41):
            value = float(np.mean([followed(trial, float(lam), float(strength)) for trial in trials]))
            if value > best:
                best, rule = value, NoiseRule(round(float(lam), 4), round(float(strength), 4), command)
    assert rule is not None
    return rule


def followed(trial: Trial, lam: float, strength: float) -> float:
    """Mean PSNR where each image's lambda follows the rule, linear in log lambda between LAMS."""
    chosen = raised_lam(lam, strength, torch.from_numpy(trial.noise)).flatten().numpy()
    place = np.interp(np.log(chosen), np.log(LAMS), np.arange(len(LAMS)))
    below = np.minimum(place.astype(int), len(LAMS) - 2)
    share, images = place - below, np.arange(len(chosen))
    return float(((1 - share) * trial.psnr[below, images] + share * trial.psnr[below + 1, images]).mean())

"""Bring the spectrum of every image to the usual one, so that what is left to tell images apart is where things are.

Blur takes away high frequencies, noise adds some, fog and contrast change them all. An image's amplitudes in a few bands of
frequency are measured and divided out: divisive normalisation over bands, as in the normalised Laplacian pyramid (Laparra,
Balle, Berardino and Simoncelli, Human Vision and Electronic Imaging 2016), here over the whole image.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..configs.errors import InputError
from .standardise import standardise

CENTRES = tuple(2.0**exponent for exponent in (-3.5, -3.0, -2.5, -2.0, -1.5, -1.0))  # cycles per pixel
FLOOR = 0.3  # share of the usual amplitude under which gains hardly grow: they are at most 1.3 / 0.3
SLOWEST = 0.01  # the running mean forgets over a hundred batches


class Equaliser(nn.Module):
    """Multiply each band of an image's spectrum by ((1 + f) usual / (amplitude + f usual)) ** strength, f = 0.3.

    Amplitude is the mean magnitude of a band's cosine coefficients over channels; "usual" is its running mean over the
    training images, updated in training mode only and saved with the weights, as batch norm's statistics are.

    Args:
        strength: Above 0 (no change) to 1 (the same amplitudes in every image, but for the floor).

    Attributes:
        usual: (bands,) running mean, in units of the standardised image; zero before training: then nothing changes.
    """

    usual: Tensor
    batches: Tensor

    def __init__(self, strength: float) -> None:
        super().__init__()
        if not 0.0 < strength <= 1.0:
            raise InputError(f"equalise is {strength}; give 0 (off) to 1.")
        self.strength = float(strength)
        self.register_buffer("usual", torch.zeros(len(CENTRES)))
        self.register_buffer("batches", torch.tensor(0))

    def forward(self, images: Tensor) -> Tensor:
        """Equalise images (N, C, H, W) in pixel range; their mean and contrast stay about what they were."""
        standardised = standardise(images)
        x = standardised.images
        with torch.autocast(x.device.type, enabled=False):
            rows, columns = cosines(x.shape[2], x), cosines(x.shape[3], x)
            spectrum = transformed(x, rows, columns)
            bands = band_weights(x.shape[2], x.shape[3], x)
            amplitude = mean_amplitudes(spectrum, bands)
            if self.training:
                self._update(amplitude.detach().mean(0))
            gain = (self._gain(amplitude) @ bands.T).reshape(len(x), 1, *x.shape[2:])
            return standardised.restore(transformed(spectrum * gain, rows.T, columns.T))

    def _gain(self, amplitude: Tensor) -> Tensor:
        """Gain of each band, (N, bands)."""
        floor = FLOOR * self.usual
        known = self.usual > 0.0
        ratio = (self.usual + floor) / torch.where(known, amplitude + floor, 1.0)
        return torch.where(known, ratio, 1.0) ** self.strength

    def _update(self, amplitude: Tensor) -> None:
        """Move the running mean: a plain mean over the first hundred batches, then an exponential one."""
        self.batches += 1
        self.usual += (1.0 / self.batches).clamp_min(SLOWEST) * (amplitude.to(self.usual.dtype) - self.usual)

    def extra_repr(self) -> str:
        """Name the setting."""
        return f"strength={self.strength!r}"


def transformed(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Multiply (N, C, H, W) by a matrix for its columns and one for its rows: two large products, not many small."""
    return F.linear(F.linear(x, columns).mT, rows).mT


def mean_amplitudes(spectrum: Tensor, bands: Tensor) -> Tensor:
    """Return the mean magnitude in each band, (N, bands), without the constant's; 0 in bands that hold nothing."""
    magnitude = spectrum.abs().mean(1).flatten(1)[:, 1:]
    shares = bands[1:]
    return magnitude @ shares / shares.sum(0).clamp_min(1e-6)


def cosines(length: int, like: Tensor) -> Tensor:
    """Return the orthonormal DCT-II matrix (length, length): mirrored borders, so no seam adds frequencies."""
    index = torch.arange(length, dtype=like.dtype, device=like.device)
    waves = torch.cos(math.pi / length * (index + 0.5) * index[:, None]) * math.sqrt(2.0 / length)
    return torch.where(index[:, None] == 0, math.sqrt(1.0 / length), waves)


def band_weights(height: int, width: int, like: Tensor) -> Tensor:
    """Return each frequency's shares in the bands, (height width, bands): triangles over its logarithm, summing to 1."""
    vertical = torch.arange(height, dtype=like.dtype, device=like.device) / (2 * height)
    horizontal = torch.arange(width, dtype=like.dtype, device=like.device) / (2 * width)
    frequency = (vertical[:, None].square() + horizontal.square()).sqrt().flatten()
    first, step = math.log2(CENTRES[0]), math.log2(CENTRES[1] / CENTRES[0])
    place = ((frequency.clamp_min(CENTRES[0]).log2() - first) / step).clamp_max(len(CENTRES) - 1)
    return (
        1.0 - (place[:, None] - torch.arange(len(CENTRES), dtype=like.dtype, device=like.device)).abs()
    ).clamp_min(0)

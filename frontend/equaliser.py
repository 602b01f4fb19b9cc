"""Bring the spectrum of every image to the usual one: images then differ only in where things are.

Blur weakens the high frequencies, noise swells them, fog and contrast change them all. An image's amplitudes in a few
bands of frequency are measured, weak bands raised and strong ones lowered: divisive normalisation of bands, as in the
normalised Laplacian pyramid (Laparra, Balle, Berardino and Simoncelli, Human Vision and Electronic Imaging 2016), here
over the whole image. Inside a band the ratio of picture to noise stays what it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..configs.errors import InputError
from .base import NoTraining, register_frontend
from .gate import Gate, GatedFrontend, check_gate
from .image_statistics import standardise
from .pretrained import Primable, Primed

CENTRES = tuple(2.0**exponent for exponent in (-3.5, -3.0, -2.5, -2.0, -1.5, -1.0))  # cycles per pixel
FLOOR = 0.3  # share of the usual amplitude under which gains hardly grow: they are at most 1.3 / 0.3
SHARE = 0.01  # of each batch in the running mean
AT_ONCE = 100  # images whose spectra are computed together


@dataclass(frozen=True)
class EqualiserSettings:
    """Settings of the equaliser.

    Attributes:
        strength: Above 0 (no change) to 1 (the same amplitudes in every image, but for the floor).
        gate: Damage (see :class:`Equaliser`) at which the gate begins to open, and at which it is open; null equalises
            every image.
        in_channels: Image channels.
        weights: Name of a shipped equaliser, or a folder with one; null starts without a usual spectrum.
    """

    strength: float = 1.0
    gate: Gate | None = None
    in_channels: int = 3
    weights: str | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.strength <= 1.0:
            raise InputError(f"strength is {self.strength}; give a number above 0, at most 1.")
        object.__setattr__(self, "gate", check_gate(self.gate))


@register_frontend("equaliser")
class Equaliser(Primable, GatedFrontend):
    """Multiply each band of an image's spectrum by ((1 + f) usual / (amplitude + f usual)) ** strength, f = 0.3.

    Amplitude is the mean magnitude of a band's cosine coefficients over channels, each channel's constant left out;
    "usual" is its running mean over the training images, updated in training mode only and saved with the weights, as
    batch norm's statistics are. It belongs to the size of those images: at another resolution it is another spectrum.

    Damage is the root mean square over the bands of log(amplitude / usual).

    Arguments are the fields of :class:`EqualiserSettings`.

    Attributes:
        usual: (bands,) running mean, in units of the standardised image; zero before training: then nothing changes.
    """

    Settings = EqualiserSettings
    Training = NoTraining
    damage = (
        "how far, in logarithms, the spectrum is from the usual one. Pictures that are smooth or finely textured by "
        "nature read as unusual, and so does every image of another size than those that it learned from."
    )
    usual: Tensor

    def _build(self, primed: Primed | None) -> None:
        self.register_buffer("usual", torch.zeros(len(CENTRES)))

    def _fixed_by(self, primed: Primed) -> tuple[str, ...]:
        return ("in_channels",)

    @torch.no_grad()
    def learn(self, images: Tensor) -> None:
        """Take the mean spectrum of unlabelled images (N, C, H, W) in [0, 1] as the usual one; a thousand will do."""
        amplitudes = [
            mean_amplitudes(*self._spectrum(standardise(batch).images)) for batch in images.split(AT_ONCE)
        ]
        self.usual.copy_(torch.cat(amplitudes).mean(0))

    def restore(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Equalise images (N, C, H, W) in pixel range; return them and how unusual each spectrum was, (N,).

        Their mean stays; their contrast, and with it the colour of even areas, may grow up to 4.3 times, so that pixels
        may leave [0, 1].
        """
        standardised = standardise(images)
        x = standardised.images.to(torch.promote_types(images.dtype, torch.float32))
        with torch.autocast(x.device.type, enabled=False):
            spectrum, bands = self._spectrum(x)
            amplitude = mean_amplitudes(spectrum, bands)
            if self.training and self.learns_statistics:
                self._update(amplitude.detach().mean(0))
            gain = (self._gain(amplitude) @ bands.T).reshape(-1, 1, x.shape[2], x.shape[3])
            rows, columns = cosines(x.shape[2], x), cosines(x.shape[3], x)
            equalised = transformed(spectrum * gain, rows.T, columns.T).to(images.dtype)
            return standardised.restore(equalised), self._unusual(amplitude).to(images.dtype)

    def _spectrum(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine coefficients of standardised images, and each frequency's shares in the bands."""
        rows, columns = cosines(x.shape[2], x), cosines(x.shape[3], x)
        return transformed(x, rows, columns), band_weights(x.shape[2], x.shape[3], x)

    def _unusual(self, amplitude: Tensor) -> Tensor:
        """Root mean square of log(amplitude / usual) over the bands, (N,); 0 before there is a usual spectrum."""
        usual = torch.where(self.usual == 0.0, 1.0, self.usual)
        ratio = torch.where(self.usual == 0.0, 1.0, amplitude.clamp_min(1e-6) / usual)
        return ratio.log().square().mean(1).clamp_min(1e-12).sqrt()

    def _gain(self, amplitude: Tensor) -> Tensor:
        """Gain of each band, (N, bands)."""
        unknown = self.usual == 0.0
        floor = FLOOR * self.usual
        ratio = (self.usual + floor) / torch.where(unknown, 1.0, amplitude + floor)
        return torch.where(unknown, 1.0, ratio).to(amplitude.dtype) ** self._settings.strength

    def _update(self, amplitude: Tensor) -> None:
        """Move the running mean; the first batch is taken as it is."""
        amplitude = amplitude.to(self.usual.dtype)
        self.usual.copy_(torch.where(self.usual == 0.0, amplitude, self.usual.lerp(amplitude, SHARE)))


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
    index = torch.arange(length, device=like.device)
    phase = (2 * index + 1) * index[:, None] % (4 * length)  # whole turns are taken out exactly
    waves = torch.cos(math.pi / (2 * length) * phase.to(like.dtype)) * math.sqrt(2.0 / length)
    return torch.where(index[:, None] == 0, math.sqrt(1.0 / length), waves)


def band_weights(height: int, width: int, like: Tensor) -> Tensor:
    """Return each frequency's shares in the bands, (height width, bands): triangles over its logarithm, their sum 1.

    The first band holds everything below its centre, the constant too, the last everything above.
    """
    vertical = torch.arange(height, dtype=like.dtype, device=like.device) / (2 * height)
    horizontal = torch.arange(width, dtype=like.dtype, device=like.device) / (2 * width)
    frequency = (vertical[:, None].square() + horizontal.square()).sqrt().flatten()
    first, step = math.log2(CENTRES[0]), math.log2(CENTRES[1] / CENTRES[0])
    place = ((frequency.clamp_min(CENTRES[0]).log2() - first) / step).clamp_max(len(CENTRES) - 1)
    number = torch.arange(len(CENTRES), dtype=like.dtype, device=like.device)
    return (1.0 - (place[:, None] - number).abs()).clamp_min(0)

"""Reconstructions of images of any size, and their gate: large images in tiles, smaller ones than an atom filled up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base import Encoding
from ..gate import Gate, Gated, GateMode, mean_of_image, through_gate
from ..image_statistics import Standardised
from ..tiles import in_tiles
from .dictionary import ConvDictionary
from .encoding import SparseEncoding


@dataclass(frozen=True)
class TiledEncoding(Encoding):
    """Results for images that were restored in tiles; their codes are not kept.

    Attributes:
        reconstruction: Images from the codes, (N, C, H, W) in pixel range.
        active: Share of active units, (N,), mean over tiles.
        lam: The threshold value used; one per image, (N, 1, 1, 1), where it is adaptive.
        gated: Decision of the gate; None without one.
    """

    reconstruction: Tensor
    active: Tensor
    lam: Tensor | float
    gated: Gated | None = None

    def figures(self) -> dict[str, Tensor]:
        """Return the share of active units of each image, and what the gate decided of it."""
        figures = {"active_fraction": self.active}
        return figures if self.gated is None else figures | self.gated.figures()

    def pictures(self) -> dict[str, Tensor]:
        """Return what the codes restore."""
        return {"reconstruction": self.reconstruction}


Coded = SparseEncoding | TiledEncoding


def behind_gate(images: Tensor, coded: Coded, gate: Gate | None, mode: GateMode) -> Coded:
    """Output the reconstruction, behind the gate: an image's damage is what coding leaves out of it."""
    restored = coded.reconstruction
    if gate is None:
        return replace(coded, output=restored)
    damage = mean_of_image((restored - images).square()).clamp_min(1e-12).sqrt()
    gated = through_gate(images, restored, damage, gate, mode)
    return replace(coded, output=gated.images, gated=gated)


def coded_in_tiles(
    code: Callable[[Standardised], SparseEncoding],
    standardised: Standardised,
    dictionary: ConvDictionary,
    tile: int | None,
) -> Coded:
    """Code images whole where they fit into a tile; else tile by tile, with mean and deviation of the whole images.

    Args:
        code: Codes standardised images.
        standardised: The whole images.
        dictionary: The dictionary of the code.
        tile: Largest side in pixels; None for any.
    """
    least = dictionary.weight.shape[-1]
    sides = standardised.images.shape[2:]
    tile = max(sides) if tile is None else tile
    if max(sides) <= tile and min(sides) >= least:
        return code(standardised)
    lams = []

    def restore(part: Tensor) -> tuple[Tensor, Tensor]:
        height, width = part.shape[2:]
        if min(height, width) < least:
            fill = (0, max(least - width, 0), 0, max(least - height, 0))
            part = F.pad(part, fill, mode="replicate")
        coded = code(replace(standardised, images=part))
        lams.append(coded.lam)
        return coded.reconstruction[..., :height, :width], coded.active

    restored, active = in_tiles(restore, standardised.images, tile=tile, stride=dictionary.stride)
    return TiledEncoding(restored, restored, torch.stack(active).mean(0), lams[0])

"""Square Attack (Andriushchenko et al., ECCV 2020) on images whose sides its l2 and l1 starts cannot tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from pyautoattack.square import SquareAttack

TILES = 5
"""The l2 and l1 starts lay this many tiles along the height."""


def tiles_fit(height: int, width: int) -> bool:
    """Whether pyautoattack 0.2.0 can lay its start pattern on images of this size.

    Its tile side and offset come from the height alone; a tile cut by the border is a shape error.
    """
    side, offset = height // TILES, height % TILES // 2
    if side == 0:
        return False
    return side == 1 or all(offset + length // side * side <= length for length in (height, width))


class PaddedSquare:
    """Square on zero-padded squares that the model sees cropped.

    The part of the perturbation that falls on the padding is lost, so the rest lies inside the ball:
    slightly weaker than on a size that fits, never out of bounds.

    Attributes:
        seed: Set by the library before each call.
        n_queries: As in the library.
    """

    def __init__(self, inner: SquareAttack) -> None:
        self._inner = inner
        self._model = inner.predict
        self.seed = inner.seed

    def perturb(self, x: Tensor, y: Tensor) -> Tensor:
        """Attack (N, C, H, W) images of any size."""
        height, width = x.shape[2:]
        side = -(-max(height, width) // TILES) * TILES
        padded = functional.pad(x, (0, side - width, 0, side - height))
        self._inner.seed = self.seed
        self._inner.predict = lambda images: self._model(images[:, :, :height, :width])
        found = self._inner.perturb(padded, y)
        return found[:, :, :height, :width].contiguous()

"""Images mixed from chains of random operations, a whole batch at a time and on its device; AugMix and PRIME are two.

Hendrycks et al., ICLR 2020, algorithm 1: each view of an image is m times the mean of a few chains' images, with
Dirichlet weights, plus 1 - m times the image itself; a chain is one to three operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..configs.device import sent
from ..configs.recipe import AugmentConfig, filled
from . import augmix, primitives
from .sampling import Draws, generator, mixed_seed

DEPTH = 3
"""Most operations of a chain."""

Operation = Callable[[Tensor, Draws], Tensor]
"""Images (N, C, H, W) and the draws for them to images of the same kind."""


@dataclass(frozen=True)
class Mixture:
    """Makes augmented views of images.

    Which chain of which image has which operation is drawn on the host, so that each operation computes its own
    images only and nothing waits for the device.

    Attributes:
        operations: With their relative frequencies.
        width: Chains of a view.
        pixels: What operations take: uint8, or float32 in [0, 1].
    """

    operations: tuple[tuple[int, Operation], ...]
    width: int
    pixels: torch.dtype

    @classmethod
    def of(cls, config: AugmentConfig) -> Mixture | None:
        """Return the mixture that a configuration names, or None where its policy is none."""
        if config.policy == "augmix":
            return cls(augmix.operations(filled(config.severity)), filled(config.width), torch.uint8)
        if config.policy == "prime":
            return cls(primitives.operations(), filled(config.width), torch.float32)
        return None

    def __call__(self, images: Tensor, *, views: int, seed: int, count: int, rows: slice) -> Tensor:
        """Return views of images, (N, views, C, H, W) in [0, 1].

        Args:
            images: (N, C, H, W), uint8: the images ``rows`` of a batch.
            views: Views of each.
            seed: Seed of this batch.
            count: Images of the whole batch, for all of which is drawn.
            rows: Positions of these images among them.
        """
        host, shape = generator(seed), (count, views, self.width)
        depths = torch.randint(1, DEPTH + 1, shape, generator=host)
        frequencies = torch.tensor([float(share) for share, _ in self.operations])
        kinds = torch.multinomial(frequencies, depths.numel() * DEPTH, replacement=True, generator=host)
        kinds = kinds.view(*shape, DEPTH).masked_fill_(torch.arange(DEPTH) >= depths[..., None], -1)
        weights = torch.empty(shape).exponential_(generator=host)  # normalised: Dirichlet(1, ..., 1)
        mixed = torch.rand((count, views, 1), generator=host)  # Beta(1, 1)
        factors = torch.cat([mixed * weights / weights.sum(dim=2, keepdim=True), 1.0 - mixed], dim=2)
        factors = sent(factors[rows], images.device)[..., None, None, None]

        plain = images.float() / 255.0
        chains = images if self.pixels == torch.uint8 else plain
        chains = chains.repeat_interleave(views * self.width, dim=0)
        self._apply(chains, kinds, rows, seed)
        if self.pixels == torch.uint8:
            chains = chains.float() / 255.0
        chains = chains.view(len(images), views, self.width, *images.shape[1:])
        result = factors[:, :, self.width] * plain[:, None]
        for chain in range(self.width):
            result.addcmul_(factors[:, :, chain], chains[:, :, chain])
        return result.clamp_(0.0, 1.0)

    def _apply(self, chains: Tensor, kinds: Tensor, rows: slice, seed: int) -> None:
        """Apply to each chain (N * views * width, C, H, W) its operations, in place."""
        parts: list[tuple[Operation, Tensor, Draws]] = []
        for level in range(DEPTH):
            for number, (_, operation) in enumerate(self.operations):
                here = kinds[..., level] == number
                chosen = here[rows].flatten().nonzero()[:, 0]
                before = int(here[: rows.start].sum())
                mine = slice(before, before + len(chosen))
                draws = Draws(int(here.sum()), mine, mixed_seed(seed, level, number), chains.device)
                parts.append((operation, chosen, draws))
        places = sent(torch.cat([chosen for _, chosen, _ in parts]), chains.device)
        for place, (operation, _, draws) in zip(
            places.split([len(chosen) for _, chosen, _ in parts]), parts, strict=True
        ):
            if len(place):
                chains[place] = operation(chains.index_select(0, place), draws)

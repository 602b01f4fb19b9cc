"""Cycle spinning is the mean over the shifts of the grid, and denoises better at the same number of cycles."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from warplca.data import load_dataset
from warplca.frontend import LCA, WarpLCA
from warplca.pipeline.denoise import CycleSpinning


def test_mean_over_shifts() -> None:
    torch.manual_seed(0)
    layer = LCA(in_channels=3, features=6, kernel_size=5, stride=2, lam=0.2, output="reconstruction")
    spinning = CycleSpinning(layer, 14)
    assert layer.iterations == 3
    images = torch.rand(2, 3, 13, 10)
    parts = [
        layer(F.pad(images, (right, 0, down, 0), mode="replicate"))[:, :, down:, right:]
        for down in (0, 1)
        for right in (0, 1)
    ]
    torch.testing.assert_close(spinning(images), torch.stack(parts).mean(0))


def test_one_shift_at_stride_one() -> None:
    torch.manual_seed(0)
    layer = LCA(in_channels=3, features=6, kernel_size=5, stride=1, lam=0.2, output="reconstruction")
    spinning = CycleSpinning(layer, 4)
    images = torch.rand(2, 3, 9, 11)
    assert layer.iterations == 4
    torch.testing.assert_close(spinning(images), layer(images))


@torch.no_grad()
@pytest.mark.parametrize("frontend", ["cifar10-64x9s2", "cifar10-64x9s2-soft"])
def test_denoises_better_than_one_grid(frontend: str) -> None:
    clean = load_dataset("cifar10-subset", "test").tensors(list(range(8)))[0]
    noisy = clean + 25 / 255 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))

    def error(spun: bool) -> float:
        layer = WarpLCA.from_pretrained(frontend, lam=0.05, adaptive_lam=0.9, output="reconstruction")
        layer.iterations = 28
        restore = CycleSpinning(layer, 28) if spun else layer
        return float(((restore(noisy) - clean) ** 2).mean())

    assert error(True) < 0.95 * error(False)

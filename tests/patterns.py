"""A toy task that convolutional classifiers learn in a second, for tests of suites of attacks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 10


def task(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Five smooth coloured patterns under smooth and white noise."""
    patterns = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(5, (count,), generator=generator)
    clutter = torch.randn(count, 3, 5, 5, generator=generator)
    smooth = [F.interpolate(x, (SIZE, SIZE), mode="bilinear") for x in (patterns[labels], clutter)]
    white = torch.randn(count, 3, SIZE, SIZE, generator=generator)
    return (0.5 + 0.08 * smooth[0] + 0.14 * smooth[1] + 0.03 * white).clamp(0, 1), labels


def classifier(
    activation: Callable[[], nn.Module] = nn.ReLU, channels: int = 3, stride: int = 2
) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(channels, 24, 3, stride, 1), activation(), nn.Conv2d(24, 32, 3, 2, 1), activation()),
        *(nn.Flatten(), nn.Linear(32 * 9, 5)),
    )


def trained(network: nn.Module, *, steps: int = 150, radius: float = 0.0) -> nn.Module:
    """Fit to the task, against PGD of a radius if above 0."""
    torch.manual_seed(0)
    images, labels = task(1500, seed=1)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(steps):
        batch = torch.randint(len(images), (64,))
        x, y = images[batch], labels[batch]
        shift = torch.empty_like(x).uniform_(-radius, radius)
        for _ in range(4 if radius else 0):
            leaf = shift.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(network(x + leaf), y), leaf)
            shift = (leaf.detach() + radius / 2 * gradient.sign()).clamp(-radius, radius)
        optimiser.zero_grad()
        F.cross_entropy(network(x + shift), y).backward()
        optimiser.step()
    return network.eval()

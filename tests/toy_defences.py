"""A small LCA classifier with and without planted obstacles to the gradient, for tests of attacks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warplca.attacks.access import CountingModel
from warplca.attacks.adaptive.views import View

SIZE = (3, 7, 9)
LAM = 0.3


class HardThreshold:
    rectified = True

    def __call__(self, state: Tensor, lam: Any) -> Tensor:
        return F.threshold(state, lam, 0.0)


class ToyLayer(nn.Module):
    """A convolutional LCA in a few lines, with a predictor that may be cut off."""

    def __init__(self, *, mode: str = "unroll", cut_predictor: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        atoms = torch.randn(8, 3, 3, 3, generator=generator)
        self.atoms = nn.Parameter(atoms / atoms.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
        self.predictor = nn.Conv2d(3, 8, 3, padding=1)
        self.threshold = HardThreshold()
        self.gradient_mode, self.iterations, self.cut_predictor = mode, 3, cut_predictor

    def initial_state(self, images: Tensor) -> Tensor | None:
        predicted = 3 * self.predictor(images)
        return predicted.detach() if self.cut_predictor else predicted

    def forward(self, images: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient_mode != "detach"):
            state = self.initial_state(images)
            if state is None:
                state = torch.zeros(len(images), 8, *images.shape[2:])
            for _ in range(self.iterations):
                code = self.threshold(state, LAM)
                residual = images - F.conv_transpose2d(code, self.atoms, padding=1)
                state = state + 0.05 * (F.conv2d(residual, self.atoms, padding=1) + code - state)
            return self.threshold(state, LAM)


class Quantiser(nn.Module):
    def __init__(self, *, cut: bool = False) -> None:
        super().__init__()
        self.cut = cut

    def forward(self, images: Tensor) -> Tensor:
        rounded = (images * 7).round() / 7
        return rounded.detach() if self.cut else rounded


def defended(*, quantised: bool = True, **settings: Any) -> nn.Module:
    torch.manual_seed(3)
    layer = ToyLayer(**settings)
    head = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2), nn.Flatten(), nn.Linear(8 * 3 * 4, 5))
    first = [Quantiser()] if quantised else []
    network = nn.Sequential(*first, layer, head).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network


def pictures(count: int = 6) -> Tensor:
    return torch.rand(count, *SIZE, generator=torch.Generator().manual_seed(1))


def gradient(model: Any, images: Tensor) -> Tensor:
    leaf = images.clone().requires_grad_()
    weights = torch.linspace(-1, 1, 5)
    return torch.autograd.grad((model(leaf) * weights).sum(), leaf)[0]


def through(view: View, model: nn.Module, images: Tensor) -> Any:
    return view.surrogate(CountingModel(model, images.dtype), images[:1])


def labelled(model: nn.Module, count: int = 6) -> tuple[Tensor, Tensor]:
    images = pictures(count)
    with torch.no_grad():
        logits = model(images)
    labels = logits.argmax(dim=1)
    labels[0] = logits[0].argmin()
    return images, labels

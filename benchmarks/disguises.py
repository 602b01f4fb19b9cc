"""Networks in disguise: the very same answers behind other logits, other gradients or another dtype.

A disguise changes nothing about how robust a network is. Whatever an evaluation says of the network it must say of the
network in disguise, or refuse to be trusted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional

Map = Callable[[Tensor, Tensor], Tensor]
"""Logits (N, classes) and the images (N, C, H, W) that they belong to, to the logits in disguise."""


class Disguised(nn.Module):
    """A network whose logits pass through a map that keeps the highest of them the highest."""

    def __init__(self, network: nn.Module, change: Map) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits in disguise."""
        return self.change(self.network(images), images)


def winners(logits: Tensor) -> Tensor:
    """One where the logit is the highest of its image, else zero."""
    return functional.one_hot(logits.argmax(dim=1), logits.shape[1]).to(logits)


def raised(logits: Tensor, images: Tensor) -> Tensor:
    """The winner raised far above all others."""
    return logits + 1e4 * winners(logits)


def ranked(logits: Tensor, images: Tensor) -> Tensor:
    """Every logit raised by a thousand times its rank."""
    return logits + 1e3 * logits.argsort(dim=1).argsort(dim=1).to(logits)


def rippled(logits: Tensor, images: Tensor) -> Tensor:
    """The winner raised by a wave of the pixels that one level of 255 carries round more than once."""
    generator = torch.Generator().manual_seed(0)
    waves = torch.randn(images[0].numel(), generator=generator).sign().to(images)
    phase = 60 * images.flatten(1) @ waves
    return logits + winners(logits) * (1 + phase.sin()[:, None])


def rounded(logits: Tensor, images: Tensor) -> Tensor:
    """Tenths, the winner one more: flat everywhere."""
    return (10 * logits).round() / 10 + winners(logits)


def lying(logits: Tensor, images: Tensor) -> Tensor:
    """The right values with gradients that point the wrong way."""
    return 2 * logits.detach() - logits


def detached(logits: Tensor, images: Tensor) -> Tensor:
    """No gradient at all."""
    return logits.detach()


def _off_levels(images: Tensor) -> Tensor:
    """(N, 1) whether an image has pixels between the 256 levels of clean ones."""
    levels = 255 * images
    return ((levels - levels.round()).abs() > 1e-3).flatten(1).any(dim=1)[:, None]


def silent_off_levels(logits: Tensor, images: Tensor) -> Tensor:
    """Gradients on clean images only."""
    return torch.where(_off_levels(images), logits.detach() + 0 * logits, logits)


def cut_off_levels(logits: Tensor, images: Tensor) -> Tensor:
    """No gradient, and an error for who asks for it, as soon as an image of a batch is not clean."""
    return logits.detach() if bool(_off_levels(images).any()) else logits


def random_off_levels(logits: Tensor, images: Tensor) -> Tensor:
    """The winner raised at random, on images that are not clean only."""
    chance = torch.rand_like(logits[:, :1]) * _off_levels(images)
    return logits + 5 * winners(logits) * chance


class InDtype(nn.Module):
    """A network that computes in another floating type."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = copy.deepcopy(network).to(dtype), dtype

    def forward(self, images: Tensor) -> Tensor:
        """Give float32 logits."""
        return self.network(images.to(self.dtype)).float()


MAPS: dict[str, Map] = {
    "times 10": lambda logits, images: 10 * logits,
    "times 100": lambda logits, images: 100 * logits,
    "times 10,000": lambda logits, images: 1e4 * logits,
    "a millionth": lambda logits, images: 1e-6 * logits,
    "winner raised": raised,
    "all raised": lambda logits, images: logits + 1e3,
    "cubed": lambda logits, images: logits**3,
    "squashed": lambda logits, images: (logits / 15).tanh(),
    "probabilities": lambda logits, images: logits.softmax(dim=1),
    "sharp probabilities": lambda logits, images: (10 * logits.double()).softmax(dim=1),
    "ranked": ranked,
    "rippled": rippled,
    "rounded": rounded,
    "lying": lying,
    "detached": detached,
    "silent off the levels": silent_off_levels,
    "cut off the levels": cut_off_levels,
    "random off the levels": random_off_levels,
}

DISGUISES: dict[str, Callable[[nn.Module], nn.Module]] = {
    name: (lambda network, change=change: Disguised(network, change)) for name, change in MAPS.items()
} | {
    "double": lambda network: InDtype(network, torch.float64),
    "bfloat16": lambda network: InDtype(network, torch.bfloat16),
}
"""Name to what puts a network in disguise."""


class MedianFiltered(nn.Module):
    """A median of 3 x 3 pixels before a network: honest, if weak."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits of the filtered images."""
        padded = functional.pad(images, (1, 1, 1, 1), mode="reflect")
        patches = padded.unfold(2, 3, 1).unfold(3, 3, 1)
        return self.network(patches.flatten(4).median(dim=4).values)


def with_softplus(network: nn.Module, steepness: float = 20.0) -> nn.Module:
    """A copy whose rectifiers, modules and calls, are smooth."""
    traced = fx.symbolic_trace(copy.deepcopy(network))
    modules, found = dict(traced.named_modules()), False
    for node in list(traced.graph.nodes):
        is_module = node.op == "call_module" and isinstance(modules[node.target], nn.ReLU)
        if is_module or (node.op == "call_function" and node.target in (functional.relu, torch.relu)):
            with traced.graph.inserting_before(node):
                smooth = traced.graph.call_function(functional.softplus, node.args[:1], {"beta": steepness})
            node.replace_all_uses_with(smooth)
            traced.graph.erase_node(node)
            found = True
    if not found:
        raise ValueError("The network has no rectifiers that softplus could stand for.")
    traced.recompile()
    return traced


def with_folded_norms(network: nn.Module) -> nn.Module:
    """A copy whose batch norms are folded into the convolutions before them."""
    return fuse(copy.deepcopy(network).eval())


HONEST: dict[str, Callable[[nn.Module], nn.Module]] = {
    "softplus": with_softplus,
    "folded norms": with_folded_norms,
    "median filter": MedianFiltered,
    "double": DISGUISES["double"],
}
"""Honest changes of a network, which are to be trusted: of other answers the first and the third."""

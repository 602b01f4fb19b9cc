"""Ascent on the margin and towards single classes: attacks that no scale and no shift of the logits can blind.

The cross entropy of a network whose logits were multiplied is flat to machine precision (Carlini and Wagner,
S&P 2017), and the difference of logits ratio (Croce and Hein, ICML 2020) is where the winning logit was raised. The
margin keeps its gradient in both, and every step here has a length of its own, whatever the gradient's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..configs.errors import InputError
from .access import CountingModel, Model
from .gradient_descent import STEP_SHRINKAGE, step_uphill
from .interface import PLAIN_GRADIENTS, Attack, forward
from .threat import ThreatModel, project, random_direction

ANY = -1
"""The goal of a walk to whichever other class is nearest."""


def lead(logits: Tensor, labels: Tensor, goals: Tensor) -> Tensor:
    """By how much the logit of the goal exceeds that of the true class.

    Args:
        logits: (N, classes).
        labels: (N,) true classes.
        goals: (N,) other classes; ``ANY`` stands for the highest of them.

    Returns:
        (N,) differences of logits; with ``ANY`` positive where the image is misclassified.
    """
    own = logits.gather(1, labels[:, None]).squeeze(1)
    best = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    chosen = logits.gather(1, goals.clamp_min(0)[:, None]).squeeze(1)
    return torch.where(goals == ANY, best, chosen) - own


@dataclass(frozen=True)
class Walks:
    """Results of walks from N images.

    Attributes:
        found: (N, C, H, W), the misclassified point of a broken image, else where its last walk ended.
        broken: (N,) whether a point of a walk was misclassified.
        risen: (N,) whether a walk came higher than it began.
    """

    found: Tensor
    broken: Tensor
    risen: Tensor


@dataclass
class _UnderWay:
    """The walks of one batch, a row each: image, goal, steps taken, objective at its start, where it is and was."""

    image: Tensor
    goal: Tensor
    taken: Tensor
    began: Tensor
    current: Tensor
    before: Tensor

    def _parts(self) -> tuple[Tensor, ...]:
        return self.image, self.goal, self.taken, self.began, self.current, self.before

    def rows(self, chosen: Tensor) -> _UnderWay:
        return _UnderWay(*(part[chosen] for part in self._parts()))

    def joined(self, other: _UnderWay) -> _UnderWay:
        return _UnderWay(*(torch.cat(pair) for pair in zip(self._parts(), other._parts(), strict=True)))


def ascend_margins(
    model: Model,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    goals: Tensor,
    *,
    steps: int,
    batch_size: int,
    random_start: bool = True,
) -> Walks:
    """Walk uphill from every image to each of its goals, until one walk breaks it.

    An image leaves the batch as soon as it is broken, with all its walks, and waiting ones take their places.

    Args:
        model: From pixels to logits.
        images: (N, C, H, W), classified rightly.
        labels: (N,) true classes.
        threat: The ball.
        goals: (N, K) classes or ``ANY``, in order.
        steps: Steps of each walk.
        batch_size: Most walks at once.
        random_start: Begin at random points of the ball instead of the images.
    """
    count, each = goals.shape
    none = torch.zeros_like(labels, dtype=torch.bool)
    walks = Walks(images.clone(), none, none.clone())
    queue = torch.arange(count, device=images.device).repeat(each), goals.T.flatten()
    under_way = _begin(images, threat, queue[0][:0], queue[1][:0], random_start=random_start)
    while len(under_way.image) or len(queue[0]):
        alive = ~walks.broken[queue[0]]
        queue = queue[0][alive], queue[1][alive]
        room = batch_size - len(under_way.image)
        fresh = _begin(images, threat, queue[0][:room], queue[1][:room], random_start=random_start)
        under_way, queue = under_way.joined(fresh), (queue[0][room:], queue[1][room:])
        if len(under_way.image):
            under_way = _advance(model, images, labels, threat, under_way, walks, steps)
    return walks


def _begin(
    images: Tensor, threat: ThreatModel, image: Tensor, goal: Tensor, *, random_start: bool
) -> _UnderWay:
    x = images[image]
    start = x + random_direction(x, threat) if random_start else x
    current = project(x, start, threat).clamp(0.0, 1.0)
    began = torch.full_like(image, torch.inf, dtype=images.dtype)
    return _UnderWay(image, goal, torch.zeros_like(image), began, current, current)


def _advance(
    model: Model,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    walk: _UnderWay,
    walks: Walks,
    steps: int,
) -> _UnderWay:
    """Look at where each walk stands, keep what was found, and take a step on those that go on."""
    y = labels[walk.image]
    leaf = walk.current.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(leaf)
        height = lead(logits, y, walk.goal)
        (gradient,) = torch.autograd.grad(height.sum(), leaf)
    height = height.detach().to(images.dtype)
    walk.began = torch.where(walk.taken == 0, height, walk.began)
    _keep(walks, walk, logits.detach().argmax(dim=1) != y, height)
    onward = ~walks.broken[walk.image] & (walk.taken < steps)
    walk, gradient = walk.rows(onward), gradient[onward]
    length = threat.epsilon * STEP_SHRINKAGE ** (walk.taken / max(steps - 1, 1))
    length = length.to(images.dtype).view(-1, 1, 1, 1)
    ahead = step_uphill(images[walk.image], walk.current, walk.before, gradient, length, threat)
    return _UnderWay(walk.image, walk.goal, walk.taken + 1, walk.began, ahead, walk.current)


def _keep(walks: Walks, walk: _UnderWay, fooled: Tensor, height: Tensor) -> None:
    """Keep one point of each image: a misclassified one if there is any, of several the last."""
    count = len(walks.found)
    for rows in (torch.ones_like(fooled), fooled):
        # A GPU that writes two walks to one image mixes their pixels, which may lie outside the ball; so one is chosen.
        numbers = torch.arange(len(rows), device=rows.device)[rows]
        last = numbers.new_full((count,), -1).scatter_reduce(0, walk.image[rows], numbers, "amax")
        hit = last >= 0
        walks.found[hit] = walk.current[last[hit]]
    walks.broken.logical_or_(_any_walk(walk.image, fooled, count))
    walks.risen.logical_or_(_any_walk(walk.image, height > walk.began, count))


def _any_walk(image: Tensor, chosen: Tensor, count: int) -> Tensor:
    """Whether any walk of each image is chosen, (count,)."""
    return torch.bincount(image[chosen], minlength=count) > 0


@dataclass(frozen=True, kw_only=True)
class MarginAttack(Attack):
    """Ascent on the margin from a random start, then on the lead of each of the likeliest other classes.

    Attributes:
        steps: Steps of each walk, which shrink from epsilon to a twentieth of it.
        targets: Most classes that are aimed at one by one, likeliest first.
    """

    refills: ClassVar[bool] = True
    steps: int = 25
    targets: int = 3

    @property
    def kind(self) -> str:
        """Plain gradients."""
        return PLAIN_GRADIENTS

    def __post_init__(self) -> None:
        if self.steps < 1 or self.targets < 0:
            raise InputError(
                f"MarginAttack has steps={self.steps}, targets={self.targets}; "
                "expected at least 1 step and no fewer than 0 targets."
            )

    def run(
        self,
        model: CountingModel,
        images: Tensor,
        labels: Tensor,
        threat: ThreatModel,
        *,
        seed: int,
        batch_size: int,
    ) -> Tensor:
        """Walk to every goal in turn, on the images that are not broken yet."""
        torch.manual_seed(seed)
        logits = forward(model, images, batch_size).scatter(1, labels[:, None], -torch.inf)
        others = logits.shape[1] - 1
        # With one other class the margin aims at it already.
        likeliest = logits.topk(min(self.targets, others) if others > 1 else 0, dim=1).indices
        goals = torch.cat([torch.full_like(labels[:, None], ANY), likeliest], dim=1)
        walks = ascend_margins(model, images, labels, threat, goals, steps=self.steps, batch_size=batch_size)
        return walks.found

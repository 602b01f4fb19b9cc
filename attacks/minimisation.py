"""Attacks that look for the smallest perturbation, through foolbox, each judged at the threat's radius.

DeepFool: Moosavi-Dezfooli et al., CVPR 2016. Carlini-Wagner: Carlini and Wagner, S&P 2017. Boundary:
Brendel et al., ICLR 2018. HopSkipJump: Chen et al., S&P 2020. Brendel-Bethge: Brendel et al., NeurIPS 2019. Boundary
attacks walk in from a misclassified image, which is searched here.
"""

from __future__ import annotations

import importlib.util
from abc import abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..configs.errors import InputError
from .access import CountingModel, as_foolbox
from .checks import NotApplicable
from .interface import BLACK_BOX, PLAIN_GRADIENTS, BatchwiseAttack
from .threat import ThreatModel, scale_into_ball

if TYPE_CHECKING:
    from foolbox.attacks.base import MinimizationAttack


NOISE_DRAWS = 50


def starting_points(
    model: CountingModel, images: Tensor, labels: Tensor, threat: ThreatModel
) -> tuple[Tensor, Tensor]:
    """Find for each image the nearest misclassified one among its batch, or uniform noise where none is.

    foolbox's own search draws noise only, which many networks put into one class, and raises if a single
    image finds none.

    Args:
        model: The model behind its counter.
        images: (N, C, H, W).
        labels: (N,) true classes.
        threat: The threat model, whose norm measures distance.

    Returns:
        Starting points, and (N,) whether each is misclassified (the others are the clean images).
    """
    with torch.no_grad():
        predictions = model(images).argmax(dim=1)
        starts, fooled = images.clone(), torch.zeros_like(labels, dtype=torch.bool)
        for index, label in enumerate(labels):
            others = images[predictions != label]
            if len(others):
                nearest = threat.distance(others, images[index : index + 1].expand_as(others)).argmin()
                starts[index], fooled[index] = others[nearest], True
        for _ in range(NOISE_DRAWS):
            if fooled.all():
                break
            noise = torch.rand_like(images)
            hit = (model(noise).argmax(dim=1) != labels) & ~fooled
            starts[hit], fooled = noise[hit], fooled | hit
    return starts, fooled


@dataclass(frozen=True, kw_only=True)
class Minimisation(BatchwiseAttack):
    """A foolbox attack that minimises the distance; subclasses write ``_method``.

    What it finds outside the ball is scaled back along its own direction and then judged like any other.

    Attributes:
        steps: Steps of the attack.
    """

    steps: int
    needs_start: ClassVar[bool] = False
    """Whether the attack walks in from an image that is misclassified already."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise InputError(f"{type(self).__name__} has {field.name}={value}; expected at least 1.")

    @property
    def kind(self) -> str:
        """Plain gradients, or black box where it sees only the predicted class."""
        return PLAIN_GRADIENTS if self.uses_gradients else BLACK_BOX

    @abstractmethod
    def _method(self, norm: str) -> MinimizationAttack:
        """The foolbox attack for a norm."""

    def run_batch(
        self, model: CountingModel, images: Tensor, labels: Tensor, threat: ThreatModel, *, seed: int
    ) -> Tensor:
        """Run foolbox on the images that it can start from."""
        torch.manual_seed(seed)
        found = images.float().clone()
        options: dict[str, Any] = {}
        usable = torch.arange(len(images), device=images.device)
        if self.needs_start:
            starts, fooled = starting_points(model, found, labels, threat)
            usable, options = usable[fooled], {"starting_points": starts[fooled]}
            if not fooled.all():
                model.tally.notes.append(
                    f"{type(self).__name__} found no start for {int((~fooled).sum())} images."
                )
        if len(usable):
            method = self._method(threat.norm)
            wrapped = as_foolbox(model, images)
            found[usable] = method.run(wrapped, found[usable], labels[usable], **options).detach()
        return scale_into_ball(images, found.to(images.dtype), threat)


@dataclass(frozen=True, kw_only=True)
class DeepFool(Minimisation):
    """Steps to the nearest boundary of the linearised model.

    Attributes:
        candidates: Number of likeliest classes to consider.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    steps: int = 50
    candidates: int = 10

    def _method(self, norm: str) -> MinimizationAttack:
        from foolbox.attacks.deepfool import L2DeepFoolAttack, LinfDeepFoolAttack

        kind = LinfDeepFoolAttack if norm == "linf" else L2DeepFoolAttack
        return kind(steps=self.steps, candidates=self.candidates)


@dataclass(frozen=True, kw_only=True)
class CarliniWagner(Minimisation):
    """Adam on margin plus squared distance, with a search for the weight between them.

    Attributes:
        searches: Binary-search steps for the weight.
        step_size: Adam's step.
    """

    norms: ClassVar[tuple[str, ...]] = ("l2",)
    steps: int = 300
    searches: int = 6
    step_size: float = 0.01

    def _method(self, norm: str) -> MinimizationAttack:
        from foolbox.attacks.carlini_wagner import L2CarliniWagnerAttack

        return L2CarliniWagnerAttack(
            steps=self.steps, binary_search_steps=self.searches, stepsize=self.step_size, initial_const=0.1
        )


@dataclass(frozen=True, kw_only=True)
class BrendelBethge(Minimisation):
    """Follows the decision boundary towards the clean image; needs the package numba."""

    steps: int = 200
    needs_start: ClassVar[bool] = True

    def _method(self, norm: str) -> MinimizationAttack:
        if importlib.util.find_spec("numba") is None:
            raise NotApplicable(
                "the Brendel-Bethge attack needs numba, which is not installed; "
                "install it with 'pip install numba' or choose another attack."
            )
        from foolbox.attacks import brendel_bethge as attacks

        kinds: dict[str, Any] = {
            "linf": attacks.LinfinityBrendelBethgeAttack,
            "l2": attacks.L2BrendelBethgeAttack,
            "l1": attacks.L1BrendelBethgeAttack,
        }
        return kinds[norm](steps=self.steps)


@dataclass(frozen=True, kw_only=True)
class Boundary(Minimisation):
    """Random walk along the boundary that sees only the predicted class."""

    norms: ClassVar[tuple[str, ...]] = ("l2",)
    steps: int = 5000
    needs_start: ClassVar[bool] = True

    @property
    def uses_gradients(self) -> bool:
        """False."""
        return False

    def _method(self, norm: str) -> MinimizationAttack:
        from foolbox.attacks.boundary_attack import BoundaryAttack

        return BoundaryAttack(steps=self.steps)


@dataclass(frozen=True, kw_only=True)
class HopSkipJump(Minimisation):
    """Boundary walk with gradients estimated from predicted classes alone.

    Attributes:
        evaluations: Queries of the first gradient estimate; later ones use more.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    steps: int = 20
    evaluations: int = 100
    needs_start: ClassVar[bool] = True

    @property
    def uses_gradients(self) -> bool:
        """False."""
        return False

    def _method(self, norm: str) -> MinimizationAttack:
        from foolbox.attacks.hop_skip_jump import HopSkipJumpAttack

        constraint = "linf" if norm == "linf" else "l2"
        return HopSkipJumpAttack(
            steps=self.steps, initial_gradient_eval_steps=self.evaluations, constraint=constraint
        )

"""The adaptive attacks by name, and all of them in turn.

Written for sparse-coding front-ends (Tramer et al., NeurIPS 2020, say why a defence needs attacks of its own);
those that need no such layer serve any model. Each is an ordinary attack that follows the gradients of a view; what it
finds counts on the real model only.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from ..access import CountingModel
from ..autoattack import AutoAttack
from ..checks import NotApplicable, differentiable
from ..interface import Attack, misclassified
from ..margin import MarginAttack
from ..threat import ThreatModel, enforce
from .code_attack import CodeAttack
from .layers import GateView, LayerView
from .modules import ThroughModules
from .views import EstimatedView, LookThroughCalls, SmoothedView, View, carries_gradient


@dataclass(frozen=True, kw_only=True)
class ViewAttack(Attack):
    """Run an attack against a view of the model.

    Attributes:
        view: The path by which the model is differentiated.
        inner: The attack that follows those gradients; by default one that no scale of the logits can blind.
    """

    rechecks_alone: ClassVar[bool] = True
    view: View
    inner: Attack = field(default_factory=lambda: MarginAttack(steps=50, targets=1))

    @property
    def uses_gradients(self) -> bool:
        """Whether the view takes gradients of the model."""
        return self.view.uses_gradients

    @property
    def needs_differentiable_model(self) -> bool:
        """False: giving a gradient where the model has none is the point of a view."""
        return False

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
        """Attack the stand-in."""
        stand_in = self._stand_in(model, images[:1])
        return self.inner.run(stand_in, images, labels, threat, seed=seed, batch_size=batch_size)

    def _stand_in(self, model: CountingModel, image: Tensor) -> CountingModel:
        """The view of the model; where something else cuts the gradient as well, that is looked through too."""
        with differentiable():
            stand_in = model.replaced_by(self.view.surrogate(model, image))
        if not carries_gradient(stand_in, image) and not isinstance(self.view, LookThroughCalls):
            with suppress(NotApplicable):
                stand_in = stand_in.replaced_by(LookThroughCalls().surrogate(stand_in, image))
        if not carries_gradient(stand_in, image):
            raise NotApplicable(
                f"no gradient reaches the pixels through {self.view}; this path through the model is closed."
            )
        return stand_in


_SMOOTH = LayerView(threshold="smooth")

_COARSE = ThroughModules(coarseness=0.1)


def _targeted(view: View) -> Callable[[], Attack]:
    return partial(ViewAttack, view=view, inner=AutoAttack(part="apgd-t", target_classes=4))


ADAPTIVE: dict[str, Callable[[], Attack]] = {
    "unroll": partial(ViewAttack, view=LayerView()),
    "bpda-smooth": partial(ViewAttack, view=_SMOOTH),
    "bpda-identity": partial(ViewAttack, view=LayerView(threshold="identity")),
    "bpda-predictor": partial(ViewAttack, view=LayerView(threshold="smooth", cycles=0)),
    "bpda-calls": partial(ViewAttack, view=LookThroughCalls()),
    "bpda-modules": partial(ViewAttack, view=ThroughModules()),
    "bpda-modules-coarse": partial(ViewAttack, view=_COARSE),
    "fewer-cycles": partial(ViewAttack, view=LayerView(threshold="smooth", cycles=1 / 3)),
    "more-cycles": partial(ViewAttack, view=LayerView(threshold="smooth", cycles=3)),
    "cold-start": partial(ViewAttack, view=LayerView(threshold="smooth", cycles=3, start="cold")),
    "implicit": partial(ViewAttack, view=LayerView(gradient_mode="implicit")),
    "gates-smooth": partial(ViewAttack, view=GateView()),
    "gates-open": partial(ViewAttack, view=GateView(mode="open")),
    "gates-closed": partial(ViewAttack, view=GateView(mode="closed")),
    "code": CodeAttack,
    "smoothed": partial(ViewAttack, view=SmoothedView()),
    "bpda-smooth-t": _targeted(_SMOOTH),
    "bpda-calls-t": _targeted(LookThroughCalls()),
    "bpda-modules-t": _targeted(ThroughModules()),
    "bpda-modules-coarse-t": _targeted(_COARSE),
    "estimated": partial(ViewAttack, view=EstimatedView()),
}
"""Name to constructor, cheap ones first. A name's meaning: see the classes' docstrings and docs/threat-models.md."""


@dataclass(frozen=True, kw_only=True)
class Ensemble(Attack):
    """Several attacks in turn, each on the images that the ones before left standing.

    Attributes:
        parts: Names and attacks, in order. One that finds nothing to work on is left out with a note.
    """

    rechecks_alone: ClassVar[bool] = True
    parts: tuple[tuple[str, Attack], ...] = field(
        default_factory=lambda: tuple((name, make()) for name, make in ADAPTIVE.items())
    )

    @property
    def needs_differentiable_model(self) -> bool:
        """Whether every part needs one."""
        return all(part.needs_differentiable_model for _, part in self.parts)

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
        """Run the parts and note which broke how many."""
        found = images.clone()
        standing = torch.arange(len(images), device=images.device)
        for name, part in self.parts:
            if len(standing) == 0:
                break
            x, y = images[standing], labels[standing]
            try:
                candidates = part.run(model, x, y, threat, seed=seed, batch_size=batch_size)
            except NotApplicable:
                continue
            found[standing] = enforce(x, candidates, threat)
            broken = misclassified(model, found[standing], y, batch_size, alone=True)
            model.tally.notes.append(f"{name} broke {int(broken.sum())} of {len(standing)} images.")
            standing = standing[~broken]
        return found

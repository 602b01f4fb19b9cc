"""An ordinary attack that follows the gradients of a view; what it finds counts on the real model only."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from torch import Tensor

from .autoattack import AutoAttack
from .base import Attack
from .checks import NotApplicable, differentiable
from .counting import CountingModel
from .function_view import LookThroughCalls
from .threat import ThreatModel
from .views import View, carries_gradient


@dataclass(frozen=True, kw_only=True)
class ViewAttack(Attack):
    """Run an attack against a view of the model.

    Attributes:
        view: How to differentiate the model.
        inner: The attack that follows those gradients.
    """

    view: View
    inner: Attack = field(default_factory=lambda: AutoAttack(part="apgd-ce"))

    @property
    def uses_gradients(self) -> bool:
        """Whether the view takes gradients of the model."""
        return self.view.uses_gradients

    @property
    def needs_differentiable_model(self) -> bool:
        """False: giving a gradient where the model has none is the point of a view."""
        return False

    @property
    def rechecks_alone(self) -> bool:
        """True: a success must hold in batches of one as well."""
        return True

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
        """The view of the model; where something else still cuts the gradient, that is looked through too."""
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

"""Minimal-norm attacks of adversarial-library, which is installed by ``pip install 'warplca[adversarial-library]'``.

FMN: Pintor et al., NeurIPS 2021. DDN: Rony et al., CVPR 2019. Like foolbox's, what they find outside the ball is scaled
back along its own direction and then judged.
"""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..configs.errors import InputError
from .access import CountingModel
from .checks import NotApplicable
from .interface import PLAIN_GRADIENTS, BatchwiseAttack
from .threat import ThreatModel, scale_into_ball

ORDERS = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}


@dataclass(frozen=True, kw_only=True)
class MinimalNorm(BatchwiseAttack):
    """An attack of adversarial-library; subclasses write ``_call``.

    Attributes:
        steps: Steps of the attack.
    """

    steps: int = 100

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"{type(self).__name__} has steps={self.steps}; expected at least 1.")

    @property
    def kind(self) -> str:
        """They follow the model's own gradient."""
        return PLAIN_GRADIENTS

    @abstractmethod
    def _call(self, attacks: Any, norm: str) -> Callable[..., Tensor]:
        """The function of the module ``adv_lib.attacks`` for a norm, with its settings."""

    def run_batch(
        self, model: CountingModel, images: Tensor, labels: Tensor, threat: ThreatModel, *, seed: int
    ) -> Tensor:
        """Run it on a batch."""
        try:
            attacks = importlib.import_module("adv_lib.attacks")
        except ImportError as error:
            raise NotApplicable(
                "this attack needs adversarial-library, which is not installed or incomplete; install it with "
                "'pip install adv-lib' or choose another attack."
            ) from error
        torch.manual_seed(seed)
        found = self._call(attacks, threat.norm)(model, images.float(), labels).detach()
        return scale_into_ball(images, found.to(images.dtype), threat)


@dataclass(frozen=True, kw_only=True)
class FastMinimumNorm(MinimalNorm):
    """Follows the boundary while the ball around the image shrinks and grows."""

    norms: ClassVar[tuple[str, ...]] = tuple(ORDERS)

    def _call(self, attacks: Any, norm: str) -> Callable[..., Tensor]:
        def call(model: CountingModel, images: Tensor, labels: Tensor) -> Tensor:
            return attacks.fmn(model, images, labels, norm=ORDERS[norm], steps=self.steps)

        return call


@dataclass(frozen=True, kw_only=True)
class DecoupledNorm(MinimalNorm):
    """Moves along the gradient's direction, with a norm that follows from success."""

    norms: ClassVar[tuple[str, ...]] = ("l2",)

    def _call(self, attacks: Any, norm: str) -> Callable[..., Tensor]:
        def call(model: CountingModel, images: Tensor, labels: Tensor) -> Tensor:
            return attacks.ddn(model, images, labels, steps=self.steps, levels=None)

        return call

"""Signs that a robust figure rests on hidden gradients rather than on robustness.

After Athalye et al. (ICML 2018), Carlini et al. (arXiv 1902.06705) and Pintor et al. (NeurIPS 2022). Each check
takes what it judges and returns its evidence; none of them proves robustness, and one failure suffices
to distrust the figure. :class:`Prober` measures what they judge on a small sample of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..access import Model, seeded
from ..adaptive.views import carries_gradient
from ..checks import NotApplicable
from ..gradient_descent import ascend, direction
from ..threat import ThreatModel, project

ODD_SHARE = 0.02
"""Share of images that may fall the wrong way round before a check fails; at least one image may always."""

FLAT = 1e-6
"""A gradient counts as vanishing if the whole ball along it changes the margin by less than this share."""

RISEN_SHARE = 0.9

AGREEMENT = 0.5

RESIDUAL_ACCURACY = 0.05


@dataclass(frozen=True)
class MaskingCheck:
    """One check.

    Attributes:
        name: What was checked.
        passed: Whether nothing suspicious was seen.
        evidence: The figures behind it, as a sentence.
        value: The figure that decided.
    """

    name: str
    passed: bool
    evidence: str
    value: float


@dataclass(frozen=True)
class Verdict:
    """Whether the robust figure may be believed.

    Attributes:
        trusted: True if every check passed.
        reasons: Evidence of each failed check.
        checks: All checks.
    """

    trusted: bool
    reasons: tuple[str, ...]
    checks: tuple[MaskingCheck, ...]

    def __str__(self) -> str:
        """``"trusted"`` or ``"not trusted because ..."``."""
        return "trusted" if self.trusted else "not trusted because " + " ".join(self.reasons)


def masking_verdict(checks: Sequence[MaskingCheck]) -> Verdict:
    """Trust the figure only if every check passed, and at least one was made."""
    reasons = tuple(check.evidence for check in checks if not check.passed)
    if not checks:
        reasons = ("No masking check could be made.",)
    return Verdict(not reasons, reasons, tuple(checks))


def gradients_flow(margins: Tensor, reach: Tensor) -> MaskingCheck:
    """No zero, vanishing or non-finite gradients.

    Args:
        margins: (N,) logit of the true class minus the best other, at the clean image.
        reach: (N,) by how much the margin's gradient says the ball can change it (epsilon times dual norm).
    """
    flat = (~reach.isfinite()) | (reach <= FLAT * margins.abs().clamp_min(1e-12))
    share = float(flat.double().mean())
    evidence = f"The gradient is zero, vanishing or not finite for {int(flat.sum())} of {len(flat)} images."
    return MaskingCheck("gradients flow", int(flat.sum()) <= allowance(len(flat)), evidence, share)


def gradients_agree(correlations: Tensor) -> MaskingCheck:
    """Gradients predict what small random steps really do.

    Args:
        correlations: (N,) correlation, over random steps, of predicted and measured change of the margin.
    """
    median = float(correlations.median())
    evidence = (
        f"Gradients predict the effect of random steps with a median correlation of {median:.2f} "
        f"(at least {AGREEMENT} expected)."
    )
    return MaskingCheck("gradients agree with differences", median >= AGREEMENT, evidence, median)


def many_steps_beat_one(one_step: Tensor, many_steps: Tensor) -> MaskingCheck:
    """One gradient step breaks nothing that many steps leave standing.

    Args:
        one_step: (N,) broken by the one-step attack.
        many_steps: (N,) broken by the multi-step attack, on the same images.
    """
    odd = int((one_step & ~many_steps).sum())
    evidence = f"One step broke {odd} of {len(one_step)} images that many steps did not."
    return _odd_ones("many steps beat one", odd, len(one_step), evidence)


def loss_rises(losses: Tensor) -> MaskingCheck:
    """The attack's loss rises along its steps.

    Args:
        losses: (T, N) loss of each image at each step, T at least 2.
    """
    risen = losses[1:].amax(dim=0) > losses[0]
    share = float(risen.double().mean())
    evidence = f"The loss rose along the attack for {int(risen.sum())} of {len(risen)} images."
    return MaskingCheck("loss rises along the attack", share >= RISEN_SHARE, evidence, share)


def accuracy_falls_to_zero(epsilons: Sequence[float], accuracies: Sequence[float]) -> MaskingCheck:
    """A gradient attack breaks everything once the ball is large enough.

    Args:
        epsilons: Growing radii.
        accuracies: Robust accuracy at each, among images classified rightly, 0 to 1.
    """
    last = accuracies[-1]
    curve = ", ".join(f"{100 * a:.0f} % at {e:.3g}" for e, a in zip(epsilons, accuracies, strict=True))
    evidence = f"As epsilon grows a gradient attack leaves {curve}."
    return MaskingCheck("accuracy falls to 0 as epsilon grows", last <= RESIDUAL_ACCURACY, evidence, last)


def nothing_beats_plain_gradients(kind: str, extra: int, images: int) -> MaskingCheck:
    """Another kind of attack finds nothing that plain gradient attacks left standing.

    Args:
        kind: ``"random search"``, ``"black-box attacks"``, ``"transfer"``, ``"adaptive gradients"``.
        extra: Images that survived every plain gradient attack and fell to this kind.
        images: Images under attack.
    """
    evidence = f"{kind.capitalize()} broke {extra} of {images} images that plain gradients did not."
    return _odd_ones(f"{kind} finds nothing that plain gradients miss", extra, images, evidence)


def allowance(images: int) -> int:
    """How many of so many images may behave oddly by chance."""
    return max(1, int(ODD_SHARE * images))


def _odd_ones(name: str, odd: int, images: int, evidence: str) -> MaskingCheck:
    return MaskingCheck(name, odd <= allowance(images), evidence, odd / images)


def correlation(predicted: Tensor, measured: Tensor) -> Tensor:
    """Pearson correlation over the first axis of two (K, N) tensors; 0 where one of them is constant."""
    a, b = predicted.double(), measured.double()
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    scale = (a.square().sum(dim=0) * b.square().sum(dim=0)).sqrt()
    return torch.where(scale > 0, (a * b).sum(dim=0) / scale.clamp_min(1e-300), 0.0)


DUAL = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}

DIRECTIONS = 32
"""Random steps per image for the comparison of gradients with differences."""

STEP_SHARE = 0.25
"""Length of those steps, in epsilons: inside the ball, well above rounding."""

GROWTH = 4.0
"""Factor between the radii of the accuracy curve."""


@dataclass(frozen=True, kw_only=True)
class Prober:
    """A model, images that it classifies rightly, and a threat.

    All measurements use the margin (the true class's logit minus the best other), which does not saturate
    as cross-entropy does on a confident network.

    Attributes:
        model: The model under evaluation.
        images: (N, C, H, W) on the model's device.
        labels: (N,).
        threat: The ball.
        seed: Seeds all probes.
        batch_size: Most images per call.
        steps: Gradient steps of the multi-step attack.
    """

    model: Model
    images: Tensor
    labels: Tensor
    threat: ThreatModel
    seed: int = 0
    batch_size: int = 128
    steps: int = 40

    def checks(self) -> list[MaskingCheck]:
        """All checks that need only the sample; without any gradient the first says it all."""
        count = len(self.images)
        if not self._is_differentiable():
            return [gradients_flow(torch.ones(count), torch.zeros(count))]
        batches = list(
            zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True)
        )
        with seeded(self.seed):
            measured = [self._measure(x, y) for x, y in batches]
            margins, reaches, agreements, one_step = (
                torch.cat(parts) for parts in zip(*measured, strict=True)
            )
            climbs = [self._climb(x, y, self.threat) for x, y in batches]
            many_steps = torch.cat([broken for broken, _ in climbs])
            return [
                gradients_flow(margins, reaches),
                gradients_agree(agreements),
                many_steps_beat_one(one_step, many_steps),
                loss_rises(torch.cat([losses for _, losses in climbs], dim=1)),
                self._curve(batches, many_steps),
            ]

    def _is_differentiable(self) -> bool:
        try:
            return carries_gradient(self.model, self.images[:1])
        except NotApplicable:
            return False

    def margin(self, images: Tensor, labels: Tensor) -> Tensor:
        """(N,) logit of the true class minus the best other."""
        logits = self.model(images.clone())
        own = logits.gather(1, labels[:, None]).squeeze(1)
        return own - logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)

    def _measure(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Margin, its change over the ball by the gradient, agreement with differences, broken in one step."""
        leaf = x.clone().requires_grad_()
        with torch.enable_grad():
            margin = self.margin(leaf, y)
            (gradient,) = torch.autograd.grad(margin.sum(), leaf)
        slope = torch.linalg.vector_norm(gradient.flatten(1), DUAL[self.threat.norm], dim=1)
        moved = x - self.threat.epsilon * direction(gradient, self.threat.norm)
        stepped = project(x, moved, self.threat).clamp(0.0, 1.0)
        with torch.no_grad():
            one_step = self.margin(stepped, y) < 0
        return margin.detach(), self.threat.epsilon * slope, self._agreement(x, y, gradient), one_step

    @torch.no_grad()
    def _agreement(self, x: Tensor, y: Tensor, gradient: Tensor) -> Tensor:
        """Correlation of the gradient's predictions with central differences along random signs."""
        predicted, measured = [], []
        for _ in range(DIRECTIONS):
            signs = torch.randn_like(x).sign()
            norm = self.threat.distance(signs, torch.zeros_like(signs)).to(x.dtype)
            step = STEP_SHARE * self.threat.epsilon * signs / norm.view(-1, 1, 1, 1)
            predicted.append((gradient * step).flatten(1).sum(dim=1))
            measured.append(self.margin(x + step, y) - self.margin(x - step, y))
        return correlation(torch.stack(predicted), torch.stack(measured))

    def _climb(self, x: Tensor, y: Tensor, threat: ThreatModel) -> tuple[Tensor, Tensor]:
        """Images (N,) broken at any step of an ascent from the clean image, and losses (steps, N)."""
        losses = []
        broken = torch.zeros_like(y, dtype=torch.bool)
        path = ascend(lambda z: -self.margin(z, y), x, threat, steps=self.steps, random_start=False)
        last = x
        for candidates, loss in path:
            losses.append(loss)
            broken |= loss > 0
            last = candidates
        with torch.no_grad():
            broken |= self.margin(last, y) < 0
        return broken, torch.stack(losses)

    def _curve(self, batches: list[tuple[Tensor, Tensor]], broken: Tensor) -> MaskingCheck:
        """Let epsilon grow until nothing is left, or until every image can be turned to plain grey."""
        largest = float(self.threat.distance(self.images, torch.full_like(self.images, 0.5)).max())
        epsilons, accuracies = [self.threat.epsilon], [1 - float(broken.double().mean())]
        while accuracies[-1] > 0 and epsilons[-1] < largest:
            epsilons.append(min(GROWTH * epsilons[-1], max(largest, self.threat.epsilon)))
            threat = ThreatModel(self.threat.norm, epsilons[-1])
            broken = torch.cat([self._climb(x, y, threat)[0] for x, y in batches])
            accuracies.append(1 - float(broken.double().mean()))
        return accuracy_falls_to_zero(epsilons, accuracies)

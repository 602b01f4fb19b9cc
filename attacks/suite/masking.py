"""Signs that a robust figure rests on hidden gradients rather than on robustness.

After Athalye et al. (ICML 2018), Carlini et al. (arXiv 1902.06705) and Pintor et al. (NeurIPS 2022). Each check
takes what it judges and returns its evidence; none of them proves robustness, and one failure suffices
to distrust the figure. What they judge is measured in :mod:`.probes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ODD_SHARE = 0.02
"""Share of images that may fall the wrong way round before a check fails; at least one image may always."""

FLAT = 1e-6
"""A gradient counts as vanishing if the whole ball along it changes the margin by less than this share."""

RISEN_SHARE = 0.9

AGREEMENT = 0.5

RESIDUAL_ACCURACY = 0.05

KEPT_PROMISE = 0.35
"""Least median of realised over predicted change; honest networks at 8/255 keep 0.5, high frequencies leave 0.03."""


@dataclass(frozen=True)
class MaskingCheck:
    """One check.

    Attributes:
        name: Name of the check.
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


def steps_do_what_gradients_say(predicted: Tensor, realised: Tensor) -> MaskingCheck:
    """A step along the gradient, as attacks take it, changes the margin by what the gradient says.

    Random steps, see :func:`gradients_agree`, miss what bends the margin along the gradient only.

    Args:
        predicted: (N,) change of the margin along the step, by the gradient; negative.
        realised: (N,) change of the margin.
    """
    median = float((realised.double() / predicted.double()).nan_to_num(0.0, 0.0, 0.0).median())
    evidence = (
        f"A step along the gradient brings a median of {median:.2f} of the change that the gradient predicts "
        f"on the {len(predicted)} images looked at (at least {KEPT_PROMISE} expected)."
    )
    return MaskingCheck("steps do what gradients say", median >= KEPT_PROMISE, evidence, median)


def cross_entropy_is_felt(slopes: Tensor) -> MaskingCheck:
    """The cross entropy, which plain attacks follow, has a gradient at the images left standing.

    Args:
        slopes: (N,) norm of its gradient at each.
    """
    flat = int((slopes == 0).sum())
    evidence = (
        f"The gradient of the cross entropy is zero for {flat} of the {len(slopes)} images left standing that were "
        "looked at."
    )
    return MaskingCheck("cross entropy is felt", flat <= allowance(len(slopes)), evidence, flat / len(slopes))


def gradients_arrive(zero: int, received: int) -> MaskingCheck:
    """Attacks receive gradients that point somewhere; asked while images stand, for else nothing was missed.

    Args:
        zero: Image gradients, over all plain attacks, that were zero in every pixel.
        received: All image gradients that they received.
    """
    evidence = f"{zero} of {received} image gradients that plain attacks received were zero in every pixel."
    return MaskingCheck("gradients arrive", zero <= ODD_SHARE * received, evidence, zero / max(received, 1))


def probes_break_nothing_more(extra: int, images: int) -> MaskingCheck:
    """The probes of these checks, which are short, break nothing that the suite left standing.

    Args:
        extra: Images that only probes broke.
        images: Images probed.
    """
    evidence = f"Probes broke {extra} of {images} images that the suite left standing."
    return _odd_ones("probes break nothing that the suite leaves", extra, images, evidence)


def many_steps_beat_one(one_step: Tensor, many_steps: Tensor) -> MaskingCheck:
    """One gradient step breaks nothing that many steps leave standing.

    Args:
        one_step: (N,) broken by the one-step attack.
        many_steps: (N,) broken by the multi-step attack, on the same images.
    """
    odd = int((one_step & ~many_steps).sum())
    evidence = f"One step broke {odd} of {len(one_step)} images that many steps did not."
    return _odd_ones("many steps beat one", odd, len(one_step), evidence)


def loss_rises(risen: Tensor) -> MaskingCheck:
    """The attack's loss rises along its steps.

    Args:
        risen: (N,) whether it came higher than it began.
    """
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
    """Number of images that may behave oddly by chance, of so many."""
    return max(1, int(ODD_SHARE * images))


def _odd_ones(name: str, odd: int, images: int, evidence: str) -> MaskingCheck:
    return MaskingCheck(name, odd <= allowance(images), evidence, odd / images)


def correlation(predicted: Tensor, measured: Tensor) -> Tensor:
    """Pearson correlation over the first axis of two (K, N) tensors; 0 where one of them is constant."""
    a, b = predicted.double(), measured.double()
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    scale = (a.square().sum(dim=0) * b.square().sum(dim=0)).sqrt()
    return torch.where(scale > 0, (a * b).sum(dim=0) / scale.clamp_min(1e-300), 0.0)

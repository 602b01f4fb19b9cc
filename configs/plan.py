"""What an evaluation measures: conditions, attacks, image counts and seeds, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import InputError, unknown_name

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class AttackSetting:
    """One attack under one threat model.

    Attributes:
        attack: Name of the attack, e.g. ``"pgd-10"``, or of a suite of attacks with its checks, ``"suite:standard"``.
        threat: Name of the threat model, norm and epsilon in pixels, e.g. ``"linf 8/255"``.
    """

    attack: str
    threat: str


@dataclass(frozen=True)
class EvaluationPlan:
    """Conditions, attacks, image counts and seeds of one evaluation.

    The clean images are always measured. Every image count takes the first n of one seeded, class-balanced
    permutation of the data set, so every model sees the same images and a smaller count is a
    part of a larger one.

    Attributes:
        corruptions: Corruption names, chains joined by ``+`` (``"gaussian_noise+jpeg_compression"``), or the
            groups ``"standard"`` (the 15 of CIFAR-10-C), ``"extra"`` (the other four) and ``"all"``.
        severities: Severities from 1 to 5 at which each corruption is measured.
        corruption_images: Images in each corruption cell at most; 0 or None means all.
        attacks: Attack settings, measured in this order.
        attack_images: Images in each attack cell at most; 0 or None means all.
        clean_images: Images in the clean cell at most; 0 or None means all.
        seed: Seed of the choice of images, of random corruptions and of random attacks.
        batch_size: Images in one forward pass.
    """

    corruptions: tuple[str, ...] = ()
    severities: tuple[int, ...] = SEVERITIES
    corruption_images: int | None = None
    attacks: tuple[AttackSetting, ...] = ()
    attack_images: int | None = 500
    clean_images: int | None = None
    seed: int = 0
    batch_size: int = 128

    def __post_init__(self) -> None:
        for severity in self.severities:
            if severity not in SEVERITIES:
                raise InputError(
                    f"severity {severity!r} in the evaluation plan: expected whole numbers 1 to 5."
                )
        if self.corruptions and not self.severities:
            raise InputError("the evaluation plan names corruptions but no severities: give some of 1 to 5.")
        for field in ("corruption_images", "attack_images", "clean_images"):
            count = getattr(self, field)
            if count is not None and count < 0:
                raise InputError(
                    f"{field} is {count} in the evaluation plan: expected 0 (all images) or more."
                )
        if self.batch_size < 1:
            raise InputError(f"batch_size is {self.batch_size} in the evaluation plan: expected 1 or more.")


def _attacks(names: tuple[str, ...], threats: tuple[str, ...]) -> tuple[AttackSetting, ...]:
    return tuple(AttackSetting(attack, threat) for threat in threats for attack in names)


RADII = ("linf 1/255", "linf 2/255", "linf 4/255", "linf 8/255", "l2 0.5")

PLANS: dict[str, EvaluationPlan] = {
    "clean": EvaluationPlan(),
    "quick": EvaluationPlan(
        corruptions=(
            "gaussian_noise",
            "shot_noise",
            "impulse_noise",
            "defocus_blur",
            "zoom_blur",
            "brightness",
            "contrast",
            "pixelate",
            "jpeg_compression",
        ),
        severities=(3, 5),
        corruption_images=300,
        attacks=_attacks(("fgsm", "pgd-10", "suite:quick"), ("linf 2/255", "linf 8/255")),
        attack_images=100,
    ),
    "plug-in": EvaluationPlan(
        corruptions=("standard",), severities=(3,), corruption_images=200, clean_images=1000
    ),
    "corruptions": EvaluationPlan(corruptions=("standard",)),
    "standard": EvaluationPlan(
        corruptions=("standard",),
        attacks=_attacks(("pgd", "autoattack", "suite:standard"), RADII),
        attack_images=500,
    ),
    "attacks-quick": EvaluationPlan(
        attacks=_attacks(("fgsm", "pgd-10", "suite:quick"), RADII), attack_images=100
    ),
    "attacks": EvaluationPlan(attacks=_attacks(("pgd", "autoattack", "suite:standard"), RADII)),
    "attacks-all": EvaluationPlan(
        attacks=_attacks(("pgd", "autoattack", "suite:standard"), RADII), attack_images=None
    ),
}


def resolve_plan(plan: EvaluationPlan | str) -> EvaluationPlan:
    """Return the plan itself, or the preset of that name.

    Raises:
        InputError: No preset has this name.
    """
    if isinstance(plan, EvaluationPlan):
        return plan
    if plan not in PLANS:
        raise unknown_name("evaluation plan", plan, PLANS)
    return PLANS[plan]

"""All attacks by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points

from torch import Tensor

from ..configs.errors import InputError, unknown_name
from .access import Model
from .adaptive.ensemble import ADAPTIVE, Ensemble
from .adversarial_library import DecoupledNorm, FastMinimumNorm
from .autoattack import AutoAttack
from .gradient_descent import FGSM, PGD
from .gradient_free import AdditiveNoise
from .interface import Attack, AttackResult
from .margin import MarginAttack
from .minimisation import Boundary, BrendelBethge, CarliniWagner, DeepFool, HopSkipJump
from .threat import ThreatModel, as_threat

ATTACKS: dict[str, Callable[[], Attack]] = {
    "fgsm": FGSM,
    "pgd": PGD,
    "pgd-10": partial(PGD, steps=10),
    "pgd-restarts": partial(PGD, steps=50, restarts=10),
    "margin": MarginAttack,
    "margin-all": partial(MarginAttack, steps=50, targets=9),
    "autoattack": AutoAttack,
    "autoattack-plus": partial(AutoAttack, version="plus"),
    "autoattack-rand": partial(AutoAttack, version="rand"),
    "apgd-ce": partial(AutoAttack, part="apgd-ce"),
    "apgd-dlr": partial(AutoAttack, part="apgd-dlr"),
    "apgd-t": partial(AutoAttack, part="apgd-t"),
    "fab": partial(AutoAttack, part="fab"),
    "fab-t": partial(AutoAttack, part="fab-t"),
    "square": partial(AutoAttack, part="square"),
    "square-20k": partial(AutoAttack, part="square", square_queries=20_000),
    "deepfool": DeepFool,
    "carlini-wagner": CarliniWagner,
    "brendel-bethge": BrendelBethge,
    "boundary": Boundary,
    "hopskipjump": HopSkipJump,
    "fmn": FastMinimumNorm,
    "ddn": DecoupledNorm,
    "noise": AdditiveNoise,
    "adaptive": Ensemble,
    **ADAPTIVE,
}
"""Name to constructor. A new attack is one entry here."""
GROUP = "warplca.attacks"
"""Group of entry points by which installed packages offer theirs."""


def as_attack(attack: str | Attack) -> Attack:
    """Accept an attack or its name in ``ATTACKS``."""
    if isinstance(attack, Attack):
        return attack
    if attack not in ATTACKS:
        return _installed(attack)
    return ATTACKS[attack]()


def _installed(name: str) -> Attack:
    """Make the attack that an installed package registered under a name: it names a class, or what makes one."""
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise unknown_name("attack", name, [*ATTACKS, *points])
    try:
        made = points[name].load()()
    except Exception as error:
        raise InputError(
            f"the installed attack {name!r} ({points[name].value}) cannot be made: {type(error).__name__}: {error}; "
            "mend or uninstall it."
        ) from error
    if not isinstance(made, Attack):
        raise InputError(f"the installed attack {name!r} is {made!r}; expected a warplca.attacks.Attack.")
    return made


def run_attack(
    model: Model,
    images: Tensor,
    labels: Tensor,
    attack: str | Attack,
    threat: str | ThreatModel,
    *,
    seed: int = 0,
    batch_size: int = 128,
    progress: bool = False,
) -> AttackResult:
    """Attack a model on images.

    Args:
        model: Any callable, usually an ``nn.Module`` in evaluation mode, from pixels to logits.
        images: (N, C, H, W) float images in [0, 1].
        labels: (N,) integer classes.
        attack: A name in ``ATTACKS``, or an attack with settings of your own.
        threat: A threat model or its text, such as ``"linf 8/255"``.
        seed: Seeds the attack.
        batch_size: Most images that pass through the model at once.
        progress: Show on stderr how many images have passed through the model.

    Returns:
        Adversarial images, predictions, success per image, and what the attack spent.

    Raises:
        InputError: One of the arguments cannot be used; the message says which and why.
    """
    chosen, ball = as_attack(attack), as_threat(threat)
    return chosen(model, images, labels, ball, seed=seed, batch_size=batch_size, progress=progress)

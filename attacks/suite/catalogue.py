"""Which attacks a suite runs, in which order, and of which kind each is."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ...configs.errors import unknown_name
from ..adaptive.ensemble import ADAPTIVE
from ..gradient_free import Transfer
from ..interface import Attack
from ..registry import as_attack

PLAIN = (
    "fgsm",
    "pgd",
    "pgd-10",
    "pgd-restarts",
    "margin",
    "margin-all",
    "apgd-ce",
    "apgd-dlr",
    "apgd-t",
    "fab",
    "fab-t",
    "fmn",
    "ddn",
    "autoattack-rand",
)
"""Attacks that follow the model's own gradient."""

PLAIN_KIND = "plain gradients"

RANDOM = ("noise",)

BLACK_BOX = ("square", "square-20k", "boundary", "hopskipjump")

PROBES = "probes"
"""Stands where an attack's name does for images that only the measurements behind the checks broke."""

TRANSFER_PREFIX = "transfer-from-"

SUITES: dict[str, tuple[str, ...]] = {
    "autoattack": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "quick": (
        "fgsm",
        "pgd-10",
        "margin",
        "apgd-ce",
        "bpda-smooth",
        "gates-smooth",
        "gates-closed",
        "bpda-calls",
        "bpda-modules-coarse",
        "noise",
    ),
    "standard": ("fgsm", "pgd-10", "margin-all", "apgd-ce", "apgd-t", "fab-t", *ADAPTIVE, "noise", "square"),
    "thorough": (
        *("fgsm", "pgd-10", "margin-all", "apgd-ce", "apgd-t", "fab-t", "pgd-restarts", *ADAPTIVE),
        *("noise", "square", "hopskipjump", "square-20k"),
    ),
}
"""Names in order of cost within each kind; plain gradients first, for the others are judged against them."""

IMAGE_COUNTS = {"quick": 100, "standard": 500, "all": 0}
"""Image counts that reports use; 0 stands for all."""

SUITE_PREFIX = "suite:"
"""Before a suite's name where attacks are named, as in an evaluation plan."""


def suite_in(attack: str) -> str | None:
    """The suite that an attack's name stands for, e.g. of ``"suite:standard"``; None if it is a single attack.

    Raises:
        InputError: The suite is unknown.
    """
    if not attack.startswith(SUITE_PREFIX):
        return None
    suite = attack.removeprefix(SUITE_PREFIX)
    if suite not in SUITES:
        raise unknown_name("attack suite", suite, SUITES)
    return suite


def suite_attacks(suite: str, transfer_from: Mapping[str, nn.Module] | None = None) -> dict[str, Attack]:
    """Attacks of a suite by name, in order.

    Args:
        suite: A name in ``SUITES``.
        transfer_from: Surrogates by name, in evaluation mode; each adds a transfer attack before the
            attacks without gradients.

    Raises:
        InputError: The suite is unknown, or a surrogate is in training mode.
    """
    if suite not in SUITES:
        raise unknown_name("attack suite", suite, SUITES)
    names = SUITES[suite]
    last = [name for name in names if name in RANDOM + BLACK_BOX]
    attacks = {name: as_attack(name) for name in names if name not in last}
    for name, source in (transfer_from or {}).items():
        attacks[TRANSFER_PREFIX + name] = Transfer(source=source, name=name)
    return attacks | {name: as_attack(name) for name in last}


def kind_of(name: str) -> str:
    """``"plain gradients"``, ``"random search"``, ``"black-box attacks"``, ``"transfer"`` or ``"adaptive attacks"``."""
    if name in PLAIN:
        return PLAIN_KIND
    if name in RANDOM:
        return "random search"
    if name in BLACK_BOX:
        return "black-box attacks"
    return "transfer" if name.startswith(TRANSFER_PREFIX) else "adaptive attacks"

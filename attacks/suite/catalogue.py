"""Suites: which attacks one runs, in which order. The one place where the name of an attack or a suite is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ...configs.errors import InputError, unknown_name
from ..adaptive.ensemble import ADAPTIVE
from ..gradient_free import Transfer
from ..interface import BLACK_BOX, RANDOM_SEARCH, Attack
from ..registry import as_attack
from ..threat import NORMS

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

SUITE_PREFIX = "suite:"
"""Before a suite's name where attacks are named, as in an evaluation plan."""


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
    attacks = {name: as_attack(name) for name in SUITES[suite]}
    last = {name: attack for name, attack in attacks.items() if attack.kind in (RANDOM_SEARCH, BLACK_BOX)}
    first = {name: attack for name, attack in attacks.items() if name not in last}
    for name, source in (transfer_from or {}).items():
        first[TRANSFER_PREFIX + name] = Transfer(source=source, name=name)
    return first | last


@dataclass(frozen=True, eq=False)
class Suite:
    """Attacks in order, and how what they leave is judged; a single attack is a suite of one that nothing judges.

    Attributes:
        attacks: Attacks by name.
        checked: Whether checks for gradient masking judge the figure that is left.
        probe_images: Number of rightly classified images for those checks.

    Raises:
        InputError: There are no images to look at.
    """

    attacks: Mapping[str, Attack]
    checked: bool = True
    probe_images: int = 64

    def __post_init__(self) -> None:
        if self.probe_images < 1:
            raise InputError(f"probe_images is {self.probe_images}; expected at least 1.")

    @property
    def norms(self) -> tuple[str, ...]:
        """The norms of threat models that it knows; a checked suite leaves out the attacks that do not fit."""
        return NORMS if self.checked else tuple(n for a in self.attacks.values() for n in a.norms)


def as_suite(attack: str | Suite, surrogates: Mapping[str, nn.Module] | None = None) -> Suite:
    """Read an attack as evaluation plans name it: ``"pgd-10"``, or a suite of them, ``"suite:standard"``.

    Args:
        attack: The name; a suite comes back as it is.
        surrogates: Other classifiers by name, see ``suite_attacks``; a single attack does without.

    Raises:
        InputError: There is no such attack or suite.
    """
    if isinstance(attack, Suite):
        return attack
    if attack.startswith(SUITE_PREFIX):
        return Suite(suite_attacks(attack.removeprefix(SUITE_PREFIX), surrogates))
    return Suite({attack: as_attack(attack)}, checked=False)

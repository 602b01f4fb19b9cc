"""Threat models and attacks on any callable that maps pixels in [0, 1] to logits."""

from .base import Attack
from .protocol import GRADIENT_MODES, IterativeLayer, find_iterative_layers, iterative_settings
from .registry import ATTACKS, as_attack, run_attack
from .result import AttackResult
from .threat import PRESETS, ThreatModel, as_threat

__all__ = [
    "ATTACKS",
    "GRADIENT_MODES",
    "PRESETS",
    "Attack",
    "AttackResult",
    "IterativeLayer",
    "ThreatModel",
    "as_attack",
    "as_threat",
    "find_iterative_layers",
    "iterative_settings",
    "run_attack",
]
